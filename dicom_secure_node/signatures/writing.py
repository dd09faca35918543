"""Put a signature into a data set and leave every other byte where it was.

A change is a list of `Edit`; what lies between them is copied from the source as it is, in pieces,
so that an instance of gigabytes needs no memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from dicom_secure_node.elements.explicit import Element, Reader
from dicom_secure_node.elements.part10 import GROUP_LENGTH, TRANSFER_SYNTAX
from dicom_secure_node.elements.walk import ITEM, SHORT_VRS, UNDEFINED
from dicom_secure_node.errors import InvalidDataSet
from dicom_secure_node.signatures.mac import DIGITAL_SIGNATURES, MAC_PARAMETERS

_COPY = 1 << 20  # bytes
_LONGEST = 0xFFFFFFFE


class Edit(NamedTuple):
    """Replace the bytes from `start` to `end` by `content`; an insertion where both are equal."""

    start: int
    end: int
    content: bytes


def encode(tag: int, vr: bytes, value: bytes) -> bytes:
    """Return one element in Explicit VR Little Endian, padded to even length."""
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", b"OB") else b" "
    group, number = tag >> 16, tag & 0xFFFF
    if vr in SHORT_VRS:
        return struct.pack("<HH2sH", group, number, vr, len(value)) + value
    return struct.pack("<HH2sHL", group, number, vr, 0, len(value)) + value


def encode_item(elements: Iterable[bytes]) -> bytes:
    """Return an item of encoded elements, of defined length."""
    content = b"".join(elements)
    return struct.pack("<HHL", ITEM >> 16, ITEM & 0xFFFF, len(content)) + content


def macro_edits(
    reader: Reader, elements: Sequence[Element], end: int, mac_item: bytes, signature_item: bytes
) -> list[Edit]:
    """Return what adds one MAC Parameters item and one signature to a level.

    Parameters
    ----------
    reader : Reader
    elements : sequence of Element
        Of the level.
    end : int
        Where the level's content ends.
    mac_item, signature_item : bytes
        Encoded items.
    """
    return [
        _appended(reader, elements, end, MAC_PARAMETERS, mac_item),
        _appended(reader, elements, end, DIGITAL_SIGNATURES, signature_item),
    ]


def _appended(reader: Reader, elements: Sequence[Element], end: int, tag: int, item: bytes) -> Edit:
    """Return the edit that appends an item to a sequence, which is made where it is absent."""
    for element in elements:
        if element.tag == tag:
            stop = element.end - 8 if element.length == UNDEFINED else element.end
            items = bytes(reader.buffer[element.value : stop])
            return Edit(element.start, element.end, encode(tag, b"SQ", items + item))
    at = next((element.start for element in elements if element.tag > tag), end)
    return Edit(at, at, encode(tag, b"SQ", item))


def growth(edits: Iterable[Edit]) -> int:
    """Return by how many bytes edits lengthen what they change."""
    return sum(len(edit.content) - (edit.end - edit.start) for edit in edits)


def longer(buffer_length: int, at: int, more: int) -> Edit:
    """Return the edit that enlarges a 32-bit length field.

    Parameters
    ----------
    buffer_length : int
        What the field says.
    at : int
        Where it is.
    more : int
        Bytes that were added.
    """
    length = buffer_length + more
    if length > _LONGEST:
        raise InvalidDataSet(f"length {length}", f"at most {_LONGEST}", f"byte {at}", "PS3.5 7.1")
    return Edit(at, at + 4, length.to_bytes(4, "little"))


def edited(
    view: memoryview, start: int, end: int, edits: Iterable[Edit]
) -> Iterator[bytes | memoryview]:
    """Yield the bytes from `start` to `end` with the edits made, in pieces."""
    for edit in sorted(
        edits, key=lambda one: one.start
    ):  # insertions in one place keep their order
        yield from _copied(view, start, edit.start)
        yield edit.content
        start = edit.end
    yield from _copied(view, start, end)


def _copied(view: memoryview, start: int, end: int) -> Iterator[memoryview]:
    for at in range(start, end, _COPY):
        yield view[at : min(at + _COPY, end)]


def with_transfer_syntax(header: bytes, uid: str) -> bytes:
    """Return preamble, prefix and File Meta Information with another Transfer Syntax UID.

    Everything else in it stays as it is (PS3.10 7.1).
    """
    reader = Reader(header)
    kept = []
    for element in reader.level(132, len(header)):
        if element.tag == TRANSFER_SYNTAX:
            kept.append(encode(TRANSFER_SYNTAX, b"UI", uid.encode("ascii")))
        elif element.tag != GROUP_LENGTH:
            kept.append(header[element.start : element.end])
    group = b"".join(kept)
    return header[:132] + encode(GROUP_LENGTH, b"UL", len(group).to_bytes(4, "little")) + group
