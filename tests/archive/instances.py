"""Data sets to store, and where they came from."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pydicom.data

from dicom_secure_node.archive import Archive, Provenance, Stored
from dicom_secure_node.elements.part10 import (
    MEDIA_STORAGE_SOP_CLASS,
    MEDIA_STORAGE_SOP_INSTANCE,
    TRANSFER_SYNTAX,
    read_header,
)
from dicom_secure_node.elements.syntax import EXPLICIT_VR_LITTLE_ENDIAN
from dicom_secure_node.errors import InvalidDataSet

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Return one element in Explicit VR Little Endian."""
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + struct.pack("<HL", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def data_set(
    sop_instance: str = "1.2.3.4",
    *,
    sop_class: str = CT_STORAGE,
    study: str = "1.2.3",
    patient: str = "Doe^Jane",
    pixels: bytes = b"\1\2\3\4",
) -> bytes:
    """Return a small CT image in Explicit VR Little Endian."""
    return (
        element(0x00080016, "UI", sop_class.encode())
        + element(0x00080018, "UI", sop_instance.encode())
        + element(0x00080020, "DA", b"20240229")
        + element(0x00080050, "SH", b"ACC1")
        + element(0x00080060, "CS", b"CT")
        + element(0x00081030, "LO", b"Thorax")
        + element(0x00100010, "PN", patient.encode("latin-1"))
        + element(0x00100020, "LO", b"P-1")
        + element(0x0020000D, "UI", study.encode())
        + element(0x0020000E, "UI", f"{study}.1".encode())
        + element(0x7FE00010, "OW", pixels)
    )


def provenance(
    sop_instance: str = "1.2.3.4",
    *,
    sop_class: str = CT_STORAGE,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    association_id: str = "a1",
) -> Provenance:
    """Return where an instance came from, every attribute set."""
    return Provenance(
        sop_class=sop_class,
        sop_instance=sop_instance,
        transfer_syntax=transfer_syntax,
        calling_ae="CT1",
        called_ae="ARCHIVE",
        peer_address="10.0.0.5",
        peer_subject="CN=ct1,O=Hospital",
        tls={"version": "TLSv1.3", "suite": "TLS_AES_128_GCM_SHA256", "group": "x25519"},
        identity="ada",
        association_id=association_id,
        listener="tls",
        received_at=datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC),
    )


def store(archive: Archive, data: bytes, source: Provenance, chunk: int = 16 << 10) -> Stored:
    """Store one data set as a C-STORE does, in pieces."""
    incoming = archive.receive(source)
    try:
        for start in range(0, len(data), chunk):
            incoming.write(memoryview(data)[start : start + chunk])
        return incoming.keep()
    finally:
        incoming.abandon()


def stored_bytes(path: Path) -> bytes:
    """Return what follows the File Meta Information of a file."""
    with path.open("rb") as file:
        read_header(file)
        return file.read()


def files(archive: Path) -> list[Path]:
    """Return every file of the archive's instances, whatever its name."""
    return sorted(p for p in (archive / "instances").rglob("*") if p.is_file())


def pydicom_data_sets() -> Iterator[tuple[str, bytes, Provenance]]:
    """Yield name, data set and provenance of each of pydicom's files that a peer could send."""
    for path in sorted(PYDICOM_FILES.rglob("*")):
        if path.is_dir():
            continue
        with path.open("rb") as file:
            try:
                header = read_header(file)
            except InvalidDataSet:
                continue
            data = file.read()
        sop_class = header.text(MEDIA_STORAGE_SOP_CLASS)
        sop_instance = header.text(MEDIA_STORAGE_SOP_INSTANCE)
        syntax = header.text(TRANSFER_SYNTAX)
        if sop_class and sop_instance and syntax:
            name = str(path.relative_to(PYDICOM_FILES))
            source = provenance(sop_instance, sop_class=sop_class, transfer_syntax=syntax)
            yield name, data, source
