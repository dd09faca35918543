"""Where in a data set the items are that hold a certain element.

Items below (0400,0561) Original Attributes Sequence describe a former state, with signatures that
no longer hold: they are passed over, as are the items of the Digital Signatures Macro itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dicom_secure_node.elements.explicit import Element, Reader
from dicom_secure_node.errors import InvalidDataSet
from dicom_secure_node.signatures.mac import DIGITAL_SIGNATURES, MAC_PARAMETERS

ORIGINAL_ATTRIBUTES = 0x04000561

_NOT_ENTERED = frozenset({DIGITAL_SIGNATURES, MAC_PARAMETERS, ORIGINAL_ATTRIBUTES})


class Place(NamedTuple):
    """An item somewhere in a data set that holds a certain element.

    Attributes
    ----------
    location : str
        See `Level.location`.
    elements : list of Element
    problem : str
        Why nobody can tell what is inside the sequence that stands there; empty as a rule.
    """

    location: str
    elements: list[Element]
    problem: str = ""


def places_with(
    tag: int, reader: Reader, elements: Iterable[Element], location: str = "", depth: int = 1
) -> Iterator[Place]:
    """Yield the items, at any depth in sequences among `elements`, that hold an element `tag`."""
    mark = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    for element in elements:
        if element.vr != b"SQ" or element.tag in _NOT_ENTERED:
            continue
        if not reader.holds(mark, element.value, element.end):
            continue
        where = f"{location}/" if location else ""
        where += f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X})"
        try:
            items = reader.items(element, depth)
        except InvalidDataSet as exc:
            yield Place(where, [], str(exc))
            continue
        for number, item in enumerate(items, start=1):
            here = f"{where}[{number}]"
            if any(inner.tag == tag for inner in item.elements):
                yield Place(here, item.elements)
            yield from places_with(tag, reader, item.elements, here, depth + 1)
