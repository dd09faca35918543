"""The File Meta Information before a data set (PS3.10 section 7)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from dicom_secure_node.elements.syntax import EXPLICIT_LITTLE, encoding_of
from dicom_secure_node.elements.walk import UNDEFINED, Truncated, walk
from dicom_secure_node.errors import InvalidDataSet

GROUP_LENGTH = 0x00020000
VERSION = 0x00020001
MEDIA_STORAGE_SOP_CLASS = 0x00020002
MEDIA_STORAGE_SOP_INSTANCE = 0x00020003
TRANSFER_SYNTAX = 0x00020010
IMPLEMENTATION_CLASS = 0x00020012
IMPLEMENTATION_VERSION = 0x00020013
SOURCE_AE = 0x00020016
SENDING_AE = 0x00020017
RECEIVING_AE = 0x00020018
PRIVATE_CREATOR = 0x00020100
PRIVATE_INFORMATION = 0x00020102

MAX_HEADER = 4 << 20  # bytes; a reader gives up beyond
_FIRST_READ = 16 << 10
_PREFIX = bytes(128) + b"DICM"


@dataclass(frozen=True)
class FileMeta:
    """What the File Meta Information of a new file says.

    Attributes
    ----------
    sop_class, sop_instance, transfer_syntax : str
        UIDs.
    implementation_class, implementation_version : str
        Of the writer: UID, and a name of at most 16 characters.
    source_ae, sending_ae, receiving_ae : str
        (0002,0016), (0002,0017), (0002,0018). What is no character of an AE title is left
        out, an empty one is not written: peers choose these.
    private_creator : str
        UID of who understands `private_information`; empty for neither.
    private_information : bytes
        Of even length.
    """

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    implementation_class: str
    implementation_version: str
    source_ae: str = ""
    sending_ae: str = ""
    receiving_ae: str = ""
    private_creator: str = ""
    private_information: bytes = b""


@dataclass(frozen=True)
class Header:
    """The File Meta Information of a file that was read.

    Attributes
    ----------
    values : mapping
        Tag to value, as encoded.
    offset : int
        Where the data set begins, in bytes from the start of the file.
    """

    values: Mapping[int, bytes]
    offset: int

    def text(self, tag: int) -> str:
        """Return a value without padding; empty when it is absent."""
        return self.values.get(tag, b"").decode("ascii", "replace").strip("\0 ")


def encode_header(meta: FileMeta) -> bytes:
    """Return preamble, prefix and File Meta Information, up to where the data set begins."""
    elements = [
        _long(VERSION, b"OB", b"\x00\x01"),
        _uid(MEDIA_STORAGE_SOP_CLASS, meta.sop_class),
        _uid(MEDIA_STORAGE_SOP_INSTANCE, meta.sop_instance),
        _uid(TRANSFER_SYNTAX, meta.transfer_syntax),
        _uid(IMPLEMENTATION_CLASS, meta.implementation_class),
        _title(IMPLEMENTATION_VERSION, meta.implementation_version, b"SH"),
        _title(SOURCE_AE, meta.source_ae),
        _title(SENDING_AE, meta.sending_ae),
        _title(RECEIVING_AE, meta.receiving_ae),
    ]
    if meta.private_creator:
        elements.append(_uid(PRIVATE_CREATOR, meta.private_creator))
        elements.append(_long(PRIVATE_INFORMATION, b"OB", meta.private_information))
    group = b"".join(elements)
    length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(group))
    return _PREFIX + length + group


def read_header(file: BinaryIO) -> Header:
    """Return the File Meta Information of a Part 10 file and leave `file` at the data set.

    Parameters
    ----------
    file : binary file
        At its first byte; seekable.

    Raises
    ------
    InvalidDataSet
        Not a Part 10 file, or its header is malformed or larger than 4 MiB.
    """
    start = file.tell()
    data = file.read(_FIRST_READ)
    if data[128:132] != b"DICM":
        raise InvalidDataSet("no DICM", "a DICOM file", "byte 128", "PS3.10 7.1")
    while True:
        more = file.read(len(data))
        try:
            header = _parse(data, at_end=not more)
            break
        except Truncated:
            if not more or len(data) > MAX_HEADER:
                raise
            data += more
    file.seek(start + header.offset)
    return header


def _parse(data: bytes, at_end: bool) -> Header:
    """Walk group 0002 by its tags: its length is wrong or absent in too many files."""
    view = memoryview(data)
    offset = len(_PREFIX)
    values: dict[int, bytes] = {}
    while data[offset : offset + 2] == b"\x02\x00":
        if _ends_by_length(values, offset):
            break
        position = next(walk(view[offset:], EXPLICIT_LITTLE, size=MAX_HEADER))
        where = f"({position.tag >> 16:04X},{position.tag & 0xFFFF:04X}) at byte {offset}"
        if position.length == UNDEFINED:
            raise InvalidDataSet("an undefined length", "a length", where, "PS3.10 7.1")
        if position.tag in values:
            # Readers disagree on which one counts, and on where the header ends.
            raise InvalidDataSet("an element twice", "once", where, "PS3.10 7.1")
        value, offset = offset + position.value, offset + position.end
        if offset > len(data):
            raise Truncated("the end", "the File Meta Information", clause="PS3.10 7.1")
        values[position.tag] = data[value:offset]
    if len(data) - offset < 2 and not at_end:
        raise Truncated("the end", "the data set", clause="PS3.10 7.1")
    return Header(values, offset)


def _ends_by_length(values: Mapping[int, bytes], offset: int) -> bool:
    """Tell whether (0002,0000) puts a data set here that may start like group 0002."""
    length = values.get(GROUP_LENGTH, b"")
    if len(length) != 4 or offset != len(_PREFIX) + 12 + int.from_bytes(length, "little"):
        return False
    syntax = values.get(TRANSFER_SYNTAX, b"").decode("ascii", "replace").strip("\0 ")
    return encoding_of(syntax).deflated


def _short(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _long(tag: int, vr: bytes, value: bytes) -> bytes:
    assert len(value) % 2 == 0
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value


def _uid(tag: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    return _short(tag, b"UI", value + b"\0" * (len(value) % 2))


@lru_cache(maxsize=1024)
def _title(tag: int, title: str, vr: bytes = b"AE") -> bytes:
    """Return an AE or SH element (PS3.5 6.2: 16 characters, here of ASCII, no backslash)."""
    legal = "".join(c for c in title if " " <= c <= "~" and c != "\\").strip()[:16]
    if not legal:
        return b""
    value = legal.encode("ascii")
    return _short(tag, vr, value + b" " * (len(value) % 2))
