"""The elements of a data set in Explicit VR Little Endian, level by level (PS3.5 7.1.2, 7.5).

`walk` goes through every encoding and every depth in one pass. Whoever has to know which
elements a data set or an item consists of, and in which item another one lies, uses a `Reader`:
it steps over sequences of defined length until somebody asks for their items, and reads each
byte of structure a bounded number of times, however sequences are nested.

Unlike `walk` it has no leniences that let two readers see different elements in the same bytes:
a VR it does not know (is its length of 16 bits or of 32?), reserved bytes that are not zero,
delimiters with a length, and items and delimiters out of place are refused.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import NamedTuple, TypeAlias

from dicom_secure_node.elements.walk import (
    ITEM,
    ITEM_DELIMITER,
    LONG_VRS,
    MAX_DEPTH,
    SEQUENCE_DELIMITER,
    SHORT_VRS,
    UNDEFINED,
    Buffer,
    Truncated,
    end_of_undefined,
)
from dicom_secure_node.errors import InvalidDataSet

MAX_ELEMENTS = 1_000_000  # elements and items one reader looks at, all levels together

# Both give the one object for each VR: a million elements would have as many otherwise.
_SHORT = {vr: vr for vr in SHORT_VRS}
_LONG = {vr: vr for vr in LONG_VRS}
_FRAMES = 0xFFFE  # the group of items and delimiters
_SEQUENCE = _LONG[b"SQ"]
_FRAGMENTED = (_LONG[b"OB"], _LONG[b"OW"])

_HEADER = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<L")
_ITEM_HEADER = struct.Struct("<HHL")


class Element(NamedTuple):
    """Where one element is.

    Attributes
    ----------
    tag : int
        0xGGGGEEEE.
    vr : bytes
        Two letters, as encoded.
    start, value, end : int
        Offsets of the header, of the value, and of what follows (after the delimiter, if one
        ends it).
    length : int
        As encoded, `UNDEFINED` included.
    items : list of Item or None
        Of a sequence of undefined length, which had to be read to find its end. See
        `Reader.items`.
    """

    tag: int
    vr: bytes
    start: int
    value: int
    end: int
    length: int
    items: list[Item] | None = None

    @property
    def encapsulated(self) -> bool:
        """Return True for fragments: pixel data of undefined length (PS3.5 A.4)."""
        return self.length == UNDEFINED and self.vr in _FRAGMENTED


class Item(NamedTuple):
    """Where one item is, and its elements.

    Attributes
    ----------
    start, value, stop, end : int
        Offsets of the item's tag, of its first element, of what follows its last element, and
        of what follows the item.
    elements : list of Element
    """

    start: int
    value: int
    stop: int
    end: int
    elements: list[Element]


Level: TypeAlias = list[Element]


class Reader:
    """Reads one buffer; for one thread.

    Parameters
    ----------
    buffer : bytes-like
        Explicit VR Little Endian, inflated.
    limit : int
        Elements and items it may look at; what is read twice counts twice.
    """

    def __init__(self, buffer: Buffer, limit: int = MAX_ELEMENTS) -> None:
        self.buffer = buffer
        self._left = limit
        self._limit = limit
        self._madvise: Callable[[int], None] | None = getattr(buffer, "madvise", None)

    def let_go(self) -> None:
        """Give back the memory of a mapped file; its pages are read again when they are wanted."""
        if self._madvise is not None:
            self._madvise(mmap.MADV_DONTNEED)

    def holds(self, mark: bytes, start: int, end: int) -> bool:
        """Tell whether bytes occur between two offsets: much faster than reading the elements."""
        if isinstance(self.buffer, memoryview):
            return mark in bytes(self.buffer[start:end])
        return self.buffer.find(mark, start, end) >= 0

    def level(self, start: int, end: int) -> Level:
        """Return the elements between two offsets, in encoded order.

        Raises
        ------
        Truncated
            The buffer ends first.
        InvalidDataSet
            Malformed, or beyond the limits.
        """
        elements, offset = self._level(start, end, delimited=False, depth=0)
        if offset > end or offset > len(self.buffer):
            last = elements[-1]
            kind = Truncated if len(self.buffer) <= end else InvalidDataSet
            room = max(min(end, len(self.buffer)) - last.value, 0)
            raise kind(
                f"length {last.length}", f"at most the {room} bytes left",
                _at(last.tag, last.start), "PS3.5 7.1",
            )  # fmt: skip
        return elements

    def items(self, sequence: Element, depth: int = 1) -> list[Item]:
        """Return the items of an element of VR SQ.

        Parameters
        ----------
        sequence : Element
        depth : int
            Number of sequences it lies in, itself included: who walks down counts.

        Raises
        ------
        InvalidDataSet
            Malformed, or beyond the limits.
        """
        if sequence.items is not None:
            return sequence.items
        return self._items(sequence.value, sequence.end, delimited=False, depth=depth)[0]

    def fragments(self, element: Element) -> Iterator[tuple[int, int]]:
        """Yield where each fragment of an encapsulated element begins and ends (PS3.5 A.4).

        The first one is the Basic Offset Table.
        """
        offset = element.value
        while offset < element.end - 8:  # the delimiter
            _, _, size = _ITEM_HEADER.unpack_from(self.buffer, offset)
            yield offset + 8, offset + 8 + size
            offset += 8 + size

    def _level(self, offset: int, end: int, *, delimited: bool, depth: int) -> tuple[Level, int]:
        """Return elements and where they end; `delimited` ones end at their item delimiter."""
        found: Level = []
        counted = 0
        buffer = self.buffer
        unpack, length_at, short = _HEADER.unpack_from, _LENGTH.unpack_from, _SHORT.get
        add, new = found.append, tuple.__new__  # the constructor's checks would cost half the time
        try:
            for _ in repeat(None, self._left + 1):
                if offset >= end:
                    break
                group, number, code, length = unpack(buffer, offset)
                tag = group << 16 | number
                vr = short(code)
                if vr and group != _FRAMES:
                    value = offset + 8
                    stop = value + length
                    add(new(Element, (tag, vr, offset, value, stop, length, None)))
                elif group == _FRAMES:
                    if tag != ITEM_DELIMITER or not delimited:
                        raise _wrong(tag, offset, "an item or delimiter", "an element", "PS3.5 7.5")
                    self._check_delimiter(offset, tag)
                    break
                else:
                    vr = _LONG.get(code)
                    if vr is None:
                        raise _wrong(tag, offset, f"VR {code!r}", "one of PS3.5", "PS3.5 6.2")
                    if length:
                        raise _wrong(
                            tag, offset, "reserved bytes that are used", "zeros", "PS3.5 7.1.2"
                        )
                    (length,) = length_at(buffer, offset + 8)
                    value, items = offset + 12, None
                    if length != UNDEFINED:
                        stop = value + length
                    elif vr is _SEQUENCE:
                        self._count(len(found) - counted, offset)
                        counted = len(found)
                        items, stop = self._items(value, end, delimited=True, depth=depth + 1)
                    elif vr in _FRAGMENTED:
                        stop = self._end_of_fragments(value, end)
                    else:
                        stop = end_of_undefined(
                            buffer, tag, vr.decode(), offset, value, end, max(self._left, 0)
                        )
                        self._check_delimiter(stop - 8, tag)
                    add(new(Element, (tag, vr, offset, value, stop, length, items)))
                offset = stop
            else:
                raise self._too_many(offset)
        except struct.error as exc:
            raise Truncated("the end", "an element", f"byte {offset}") from exc
        self._count(len(found) - counted, offset)
        if delimited and offset + 8 > min(end, len(buffer)):
            raise Truncated("the end", "a delimiter", f"byte {offset}", "PS3.5 7.5")
        return found, offset

    def _items(
        self, offset: int, end: int, *, delimited: bool, depth: int
    ) -> tuple[list[Item], int]:
        """Return items and where what follows them begins."""
        if depth > MAX_DEPTH:
            raise InvalidDataSet(f"more than {MAX_DEPTH} nested sequences", "fewer")
        found: list[Item] = []
        while offset < end:
            try:
                group, number, size = _ITEM_HEADER.unpack_from(self.buffer, offset)
            except struct.error as exc:
                raise Truncated("the end", "an item", f"byte {offset}") from exc
            tag, value = group << 16 | number, offset + 8
            if tag == SEQUENCE_DELIMITER and delimited:
                self._check_delimiter(offset, tag)
                return found, value
            if tag != ITEM:
                raise _wrong(tag, offset, "an element", "an item", "PS3.5 7.5")
            self._count(1, offset)
            if size == UNDEFINED:
                elements, stop = self._level(value, end, delimited=True, depth=depth)
                after = stop + 8
            else:
                after = value + size
                if after > end:
                    raise _wrong(tag, offset, f"length {size}", f"at most {end - value}")
                elements, stop = self._level(value, after, delimited=False, depth=depth)
                if stop != after:
                    raise _wrong(
                        elements[-1].tag, elements[-1].start, "an element longer than its item",
                        "one within it",
                    )  # fmt: skip
            found.append(Item(offset, value, stop, after, elements))
            offset = after
        if delimited:
            raise Truncated("the end", "a delimiter", f"byte {offset}", "PS3.5 7.5")
        return found, offset

    def _end_of_fragments(self, offset: int, end: int) -> int:
        """Return the offset after encapsulated pixel data and its delimiter."""
        unpack = _ITEM_HEADER.unpack_from
        for _ in repeat(None, self._left + 1):
            group, number, size = unpack(self.buffer, offset)
            tag, value = group << 16 | number, offset + 8
            if tag == SEQUENCE_DELIMITER:
                self._check_delimiter(offset, tag)
                if value > end:
                    break
                return value
            if tag != ITEM:
                raise _wrong(tag, offset, "an element", "a fragment", "PS3.5 A.4")
            offset = value + size
            if offset > end:
                raise _wrong(tag, value - 8, f"length {size}", f"at most {max(end - value, 0)}")
        else:
            raise self._too_many(offset)
        raise Truncated("the end", "a delimiter", f"byte {offset}", "PS3.5 7.5")

    def _check_delimiter(self, offset: int, tag: int) -> None:
        (length,) = _LENGTH.unpack_from(self.buffer, offset + 4)
        if length:
            raise _wrong(tag, offset, f"a delimiter of length {length}", "0", "PS3.5 7.5")

    def _count(self, more: int, offset: int) -> None:
        self._left -= more
        if self._left < 0:
            raise self._too_many(offset)

    def _too_many(self, offset: int) -> InvalidDataSet:
        self._left = -1
        return InvalidDataSet(f"more than {self._limit} elements", "fewer", f"byte {offset}")


def _wrong(
    tag: int, offset: int, found: str, wanted: str, clause: str = "PS3.5 7.1"
) -> InvalidDataSet:
    return InvalidDataSet(found, wanted, _at(tag, offset), clause)


def _at(tag: int, offset: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) at byte {offset}"
