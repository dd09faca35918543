"""Changes inside items: every defined length around them has to follow (PS3.5 7.5).

A change is an `Edit` and the `Length` fields it lies within. Several changes share the fields of
the sequences they are in, so the fields are set right once, at the end (`enclosed`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from dicom_secure_node.elements.explicit import Element, Reader
from dicom_secure_node.elements.walk import UNDEFINED, Buffer
from dicom_secure_node.signatures.mac import DIGITAL_SIGNATURES, MAC_PARAMETERS
from dicom_secure_node.signatures.places import ORIGINAL_ATTRIBUTES
from dicom_secure_node.signatures.writing import Edit, longer

_NOT_ENTERED = frozenset({DIGITAL_SIGNATURES, MAC_PARAMETERS, ORIGINAL_ATTRIBUTES})


class Length(NamedTuple):
    """A 32-bit length field that is not undefined: where it is, and what it says."""

    at: int
    says: int


class Nest(NamedTuple):
    """A data set or an item, and the lengths around what is in it.

    Attributes
    ----------
    location : str
        Empty for the data set; else e.g. ``(0040,A730)[2]``, items from 1.
    elements : list of Element
    end : int
        Where its content ends.
    around : tuple of Length
        Those that grow with the content.
    depth : int
        Number of sequences it lies in.
    """

    location: str
    elements: list[Element]
    end: int
    around: tuple[Length, ...] = ()
    depth: int = 0

    def element(self, tag: int) -> Element | None:
        """Return the first element of this tag."""
        return next((element for element in self.elements if element.tag == tag), None)

    def place_for(self, tag: int) -> int:
        """Return where an element of this tag goes, by the order of tags."""
        return next((e.start for e in self.elements if e.tag > tag), self.end)


Change: TypeAlias = tuple[Edit, tuple[Length, ...]]
"""An edit, and the lengths around it."""


def outermost(elements: list[Element]) -> Nest:
    """Return the main data set, which is not empty."""
    return Nest("", elements, elements[-1].end)


def lengths_around(nest: Nest, sequence: Element) -> tuple[Length, ...]:
    """Return the lengths that grow with the items of a sequence in `nest`."""
    return nest.around + _length(sequence.value - 4, sequence.length)


def inside(reader: Reader, nest: Nest, sequence: Element) -> Iterator[Nest]:
    """Yield the items of a sequence that stands in `nest`.

    Raises
    ------
    InvalidDataSet
        It is malformed, or beyond the limits.
    """
    outer = lengths_around(nest, sequence)
    where = f"{nest.location}/" if nest.location else ""
    where += f"({sequence.tag >> 16:04X},{sequence.tag & 0xFFFF:04X})"
    depth = nest.depth + 1
    for number, item in enumerate(reader.items(sequence, depth), start=1):
        says = int.from_bytes(reader.buffer[item.value - 4 : item.value], "little")
        around = outer + _length(item.value - 4, says)
        yield Nest(f"{where}[{number}]", item.elements, item.stop, around, depth)


def nests_with(tag: int, reader: Reader, nest: Nest) -> Iterator[Nest]:
    """Yield `nest`, and the items at any depth in it, that hold an element `tag`.

    What `places.places_with` passes over is passed over.

    Raises
    ------
    InvalidDataSet
        A sequence that may hold one is malformed.
    """
    if nest.element(tag) is not None:
        yield nest
    mark = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    for element in nest.elements:
        if element.vr != b"SQ" or element.tag in _NOT_ENTERED:
            continue
        if _occurs(mark, reader.buffer, element):  # much faster than to walk it
            for item in inside(reader, nest, element):
                yield from nests_with(tag, reader, item)


def enclosed(changes: Iterable[Change]) -> list[Edit]:
    """Return the edits of all changes, and those of the lengths around them.

    Raises
    ------
    InvalidDataSet
        Something gets longer than a length can say.
    """
    edits: list[Edit] = []
    grown: dict[Length, int] = {}
    for edit, around in changes:
        edits.append(edit)
        more = len(edit.content) - (edit.end - edit.start)
        for length in around:
            grown[length] = grown.get(length, 0) + more
    return edits + [longer(length.says, length.at, more) for length, more in grown.items() if more]


def _length(at: int, says: int) -> tuple[Length, ...]:
    return () if says == UNDEFINED else (Length(at, says),)


def _occurs(mark: bytes, buffer: Buffer, element: Element) -> bool:
    if isinstance(buffer, memoryview):
        return mark in bytes(buffer[element.value : element.end])
    return buffer.find(mark, element.value, element.end) >= 0
