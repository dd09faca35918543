"""What the index wants to know of a data set, read from the file without decoding the rest."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dicom_secure_node.archive.provenance import Provenance, read_provenance
from dicom_secure_node.elements.part10 import read_header
from dicom_secure_node.elements.syntax import Encoding, encoding_of, inflate
from dicom_secure_node.elements.text import decode_text
from dicom_secure_node.elements.walk import Truncated, find
from dicom_secure_node.errors import InvalidDataSet

CHARACTER_SET = 0x00080005
SOP_CLASS = 0x00080016
SOP_INSTANCE = 0x00080018
STUDY_DATE = 0x00080020
ACCESSION = 0x00080050
MODALITY = 0x00080060
STUDY_DESCRIPTION = 0x00081030
PATIENT_NAME = 0x00100010
PATIENT_ID = 0x00100020
STUDY = 0x0020000D
SERIES = 0x0020000E

TAGS = frozenset(
    {
        CHARACTER_SET,
        SOP_CLASS,
        SOP_INSTANCE,
        STUDY_DATE,
        ACCESSION,
        MODALITY,
        STUDY_DESCRIPTION,
        PATIENT_NAME,
        PATIENT_ID,
        STUDY,
        SERIES,
    }
)

_HEAD = 64 << 10  # bytes; nearly always enough to reach the pixel data
_MAX_INFLATED = 16 << 20  # bytes that a deflated data set may put before the last of TAGS
_UNKNOWN_SIZE = 1 << 62


@dataclass(frozen=True)
class Keys:
    """The attributes of one instance that the index holds; empty where absent."""

    sop_class: str
    sop_instance: str
    study: str
    series: str
    modality: str
    study_date: str = field(repr=False)
    study_description: str = field(repr=False)
    accession: str = field(repr=False)
    patient_id: str = field(repr=False)
    patient_name: str = field(repr=False)


@dataclass(frozen=True)
class Contents:
    """An archived file as read back."""

    provenance: Provenance
    digest: str
    size: int
    keys: Keys


def read_keys(descriptor: int, offset: int, size: int, encoding: Encoding) -> Keys:
    """Return the keys of the data set that begins at `offset` of an open file.

    The whole top level is walked, so a data set that breaks off is noticed, except in a
    deflated one. Values of other elements are skipped, whatever their size.

    Parameters
    ----------
    descriptor : int
        Of a file open for reading.
    offset, size : int
        Of the data set in the file, in bytes.
    encoding : Encoding

    Raises
    ------
    InvalidDataSet
        The data set cannot be walked, or one of the keys occurs twice.
    OSError
        The disk.
    """
    if encoding.deflated:
        return _keys(_find_deflated(descriptor, offset, size, encoding))
    head = os.pread(descriptor, _HEAD, offset)
    try:
        return _keys(find(head, TAGS, encoding, size=size, to_end=True))
    except Truncated:
        if size <= _HEAD:
            raise
    with (
        mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as pages,
        memoryview(pages) as whole,
        whole[offset : offset + size] as data_set,
    ):
        return _keys(find(data_set, TAGS, encoding, to_end=True))


def read_head(file: BinaryIO, size: int, encoding: Encoding) -> Keys:
    """Return the keys found in the beginning of a data set that somebody else keeps.

    What is absent there, or cannot be walked, is empty: it is for a report, not for a decision.

    Parameters
    ----------
    file : binary file
        At the first byte of the data set.
    size : int
        Of the data set, in bytes.
    encoding : Encoding
    """
    head = file.read(_HEAD)
    if encoding.deflated:
        head, whole = inflate(head, _HEAD * 4)
        size = len(head) if whole else _UNKNOWN_SIZE
    for tags in (TAGS, TAGS - {STUDY, SERIES}, frozenset({SOP_CLASS, SOP_INSTANCE})):
        try:
            return _keys(find(head, tags, encoding, size=size))
        except InvalidDataSet:
            continue
    return _keys({})


def read_file(path: Path) -> Contents:
    """Return what an archived file tells about itself.

    Raises
    ------
    InvalidDataSet
        No archive wrote it, or it was damaged.
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        header = read_header(file)
        provenance, digest = read_provenance(header)
        size = os.fstat(file.fileno()).st_size - header.offset
        encoding = encoding_of(provenance.transfer_syntax)
        keys = read_keys(file.fileno(), header.offset, size, encoding)
    return Contents(provenance, digest, size, keys)


def _find_deflated(descriptor: int, offset: int, size: int, encoding: Encoding) -> dict[int, bytes]:
    """Inflate no more than it takes."""
    length = _HEAD
    while True:
        length = min(length * 4, _MAX_INFLATED)
        data, whole = inflate(os.pread(descriptor, min(length, size), offset), length)
        try:
            return find(data, TAGS, encoding, size=len(data) if whole else _UNKNOWN_SIZE)
        except Truncated:
            if whole or length == _MAX_INFLATED or len(data) < length > size:
                raise


def _keys(values: dict[int, bytes]) -> Keys:
    character_set = values.get(CHARACTER_SET, b"")

    def text(tag: int) -> str:
        return decode_text(values.get(tag, b""), character_set)

    return Keys(
        sop_class=text(SOP_CLASS),
        sop_instance=text(SOP_INSTANCE),
        study=text(STUDY),
        series=text(SERIES),
        modality=text(MODALITY),
        study_date=text(STUDY_DATE),
        study_description=text(STUDY_DESCRIPTION),
        accession=text(ACCESSION),
        patient_id=text(PATIENT_ID),
        patient_name=text(PATIENT_NAME),
    )
