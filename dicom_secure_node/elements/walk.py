"""Walk over an encoded data set without decoding it (PS3.5 section 7).

Bytes in, positions out. Nothing is copied and no value is looked at, so a walk costs the
same for a pixel data element of a kilobyte and of a gigabyte. The buffer may be the
beginning of the data set only: a walk that needs more raises `Truncated`.

Leniences, each because products in the field need it: odd value lengths, tags out of
order, lengths in delimiters (ignored), a VR nobody knows yet (PS3.5 6.2: such a VR has the
32-bit length).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from pydicom.datadict import dictionary_VR

from dicom_secure_node.elements.syntax import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Encoding
from dicom_secure_node.errors import InvalidDataSet

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Also an `mmap.mmap`, of which the type checker wants a memoryview."""

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_DELIMITER = 0xFFFEE00D
SEQUENCE_DELIMITER = 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
_NO_TAG = 1 << 32  # beyond any

MAX_DEPTH = 128
MAX_ELEMENTS = 2_000_000
MAX_VALUE = 1 << 16  # bytes; what a UID, name or identifier never exceeds

# PS3.5 7.1.2: these have a 16-bit length, all others two reserved bytes and a 32-bit length.
SHORT_VRS = {
    vr: vr.decode()
    for vr in b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
}
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN"})
LONG_VRS |= {b"UR", b"UT", b"UV"}
_TAG_LENGTH = {True: struct.Struct("<HHL"), False: struct.Struct(">HHL")}
_TAG_VR_LENGTH = {True: struct.Struct("<HH2sH"), False: struct.Struct(">HH2sH")}
_LENGTH = {True: struct.Struct("<L"), False: struct.Struct(">L")}


class Truncated(InvalidDataSet):
    """The buffer ends before the data set, or the element looked for, does."""


class Position(NamedTuple):
    """Where one element, item or delimiter stands.

    Attributes
    ----------
    tag : int
        0xGGGGEEEE. Items and delimiters have their own of group FFFE.
    vr : str
        As encoded; empty where the encoding has none, but ``SQ`` for what was walked as one.
    start, value : int
        Offsets of the header and of the value in the data set, in bytes.
    length : int
        Bytes of the value, or `UNDEFINED`. 0 for a delimiter, whatever it says.
    depth : int
        Number of items around it; an item and its delimiter count themselves.
    """

    tag: int
    vr: str
    start: int
    value: int
    length: int
    depth: int

    @property
    def end(self) -> int:
        """Return the offset after the value; only for a defined length."""
        assert self.length != UNDEFINED
        return self.value + self.length


class _Frame(NamedTuple):
    """What we are inside of, while walking."""

    kind: str  # "elements" (data set or item), "items" (sequence), "fragments" (pixel data)
    limit: int  # offset nothing in here may pass
    ends_at_limit: bool  # else a delimiter ends it
    encoding: Encoding
    depth: int


def walk(
    buffer: Buffer,
    encoding: Encoding,
    *,
    size: int | None = None,
    max_depth: int = MAX_DEPTH,
    max_elements: int = MAX_ELEMENTS,
) -> Iterator[Position]:
    """Yield the position of every element, item and delimiter, in encoded order.

    Parameters
    ----------
    buffer : bytes-like
        The data set, inflated, or its beginning.
    encoding : Encoding
        See `encoding_of`.
    size : int, optional
        Bytes of the whole data set, when `buffer` is only its beginning.
    max_depth : int
        Sequences inside one another.
    max_elements : int
        Positions yielded.

    Raises
    ------
    Truncated
        `buffer` is too short.
    InvalidDataSet
        Malformed, or beyond the limits. Names tag and byte offset.
    """
    whole = len(buffer) if size is None else size
    frames = [_Frame("elements", whole, True, encoding, 0)]
    return _walk(buffer, 0, frames, max_depth, max_elements)


def find(
    buffer: Buffer,
    tags: Collection[int],
    encoding: Encoding,
    *,
    size: int | None = None,
    to_end: bool = False,
    max_value: int = MAX_VALUE,
) -> dict[int, bytes]:
    """Return the values of the elements `tags` at the top level, as encoded.

    Elements in sequences do not count. Absent ones are absent from the result.

    Parameters
    ----------
    buffer : bytes-like
        The data set, inflated, or its beginning.
    tags : collection of int
        0xGGGGEEEE, none of them a sequence.
    encoding : Encoding
    size : int, optional
        Bytes of the whole data set, when `buffer` is only its beginning.
    to_end : bool
        Go on to the end, so that a data set that breaks off or is malformed behind the last
        wanted tag is noticed. Otherwise stop there.
    max_value : int
        Bytes of the longest value that is copied out.

    Raises
    ------
    Truncated
        `buffer` is too short.
    InvalidDataSet
        Malformed, or a wanted element occurs twice (which one counts would depend on the reader).
    """
    whole = len(buffer) if size is None else size
    last = max(tags)
    top = _Frame("elements", whole, True, encoding, 0)
    # Short values are never longer than 64 KiB less one.
    skims, stop = encoding == EXPLICIT_LITTLE and max_value >= 0xFFFF, _NO_TAG if to_end else last
    found: dict[int, bytes] = {}
    offset = 0
    count = 0
    while offset < whole:
        if skims:
            offset, taken = _skim(buffer, offset, whole, tags, stop, found)
            count += taken
            if offset == whole:
                break
        tag, vr, value, length = _header(buffer, offset, top)
        if tag > last and not to_end:
            break
        count += 1
        if count > MAX_ELEMENTS:
            raise _too_many(tag, offset, MAX_ELEMENTS)
        if length == UNDEFINED:
            inside = _without_length(tag, vr, offset, top)
            left = MAX_ELEMENTS - count
            for position in _walk(buffer, value, [inside], MAX_DEPTH, left):
                count += 1
                offset = position.value  # of the delimiter at last, which has no value
            continue
        if tag in tags:
            if tag in found:
                raise InvalidDataSet("an element twice", "once", _at(tag, offset), "PS3.5 7.1")
            if length > max_value:
                raise InvalidDataSet(f"{length} bytes", f"at most {max_value}", _at(tag, offset))
            if value + length > len(buffer):
                raise Truncated("the end", "the value", _at(tag, offset))
            found[tag] = bytes(buffer[value : value + length])
        offset = value + length
    return found


def _skim(
    buffer: Buffer,
    offset: int,
    whole: int,
    tags: Collection[int],
    last: int,
    found: dict[int, bytes],
) -> tuple[int, int]:
    """Take elements of the simplest kind, as long as there are any.

    Explicit VR little endian only, where most elements of most data sets are just that. What
    this stops at, for whatever reason, `find` looks at as ever.

    Returns
    -------
    (int, int)
        Where it stopped, and after how many elements.
    """
    unpack, short, size = _TAG_VR_LENGTH[True].unpack_from, SHORT_VRS, len(buffer)
    count = 0
    while offset + 8 <= size:
        group, element, code, length = unpack(buffer, offset)
        value = offset + 8
        following = value + length
        tag = group << 16 | element
        if code not in short or following > whole or group == 0xFFFE or tag > last:
            break
        if tag in tags:
            if tag in found or following > size:
                break
            found[tag] = bytes(buffer[value:following])
        offset = following
        count += 1
    return offset, count


def end_of_undefined(
    buffer: Buffer,
    tag: int,
    vr: str,
    start: int,
    value: int,
    limit: int,
    max_elements: int = MAX_ELEMENTS,
) -> int:
    """Return the offset after an element of undefined length and its delimiter.

    Parameters
    ----------
    buffer : bytes-like
        Explicit VR Little Endian.
    tag, vr, start, value : int, str, int, int
        The element and the offsets of its header and of its value.
    limit : int
        What it must not pass.
    max_elements : int
        Elements, items and delimiters in it.

    Raises
    ------
    Truncated, InvalidDataSet
    """
    inside = _without_length(tag, vr, start, _Frame("elements", limit, True, EXPLICIT_LITTLE, 0))
    end = value
    for position in _walk(buffer, value, [inside], MAX_DEPTH, max_elements):
        end = position.value  # of the delimiter at last, which has no value
    return end


def _walk(
    buffer: Buffer, offset: int, frames: list[_Frame], max_depth: int, max_elements: int
) -> Iterator[Position]:
    """Yield positions from `offset` until the last of `frames` is left."""
    left = max_elements
    while frames:
        frame = frames[-1]
        if offset == frame.limit:
            if not frame.ends_at_limit:
                raise Truncated("the end", "a delimiter", f"byte {offset}", "PS3.5 7.5")
            frames.pop()
            continue
        tag, vr, value, length = _header(buffer, offset, frame)
        left -= 1
        if left < 0:
            raise _too_many(tag, offset, max_elements)
        here = frame.depth
        if tag in (ITEM_DELIMITER, SEQUENCE_DELIMITER):
            wanted = ITEM_DELIMITER if frame.kind == "elements" else SEQUENCE_DELIMITER
            if tag != wanted or frame.ends_at_limit:
                raise InvalidDataSet("a delimiter", "an element", _at(tag, offset), "PS3.5 7.5")
            frames.pop()
            yield Position(tag, "", offset, value, 0, here)
            offset = value
            continue
        if (tag == ITEM) == (frame.kind == "elements"):
            found, missed = ("an item", "an element") if tag == ITEM else ("an element", "an item")
            raise InvalidDataSet(found, missed, _at(tag, offset), "PS3.5 7.5")
        inside = _entered(tag, vr, offset, value, length, frame)
        if inside is None:
            yield Position(tag, vr, offset, value, length, here + (tag == ITEM))
            offset = value + length
            continue
        if len(frames) > 2 * max_depth:  # each level is a sequence and an item
            raise InvalidDataSet(
                f"more than {max_depth} nested sequences", "fewer", _at(tag, offset)
            )
        if inside.kind == "items" and not vr:
            vr = "SQ"
        yield Position(tag, vr, offset, value, length, here + (tag == ITEM))
        frames.append(inside)
        offset = value


def _header(buffer: Buffer, offset: int, frame: _Frame) -> tuple[int, str, int, int]:
    """Return tag, VR, offset of the value and its length, all within `frame`."""
    little = frame.encoding.little
    try:
        if frame.encoding.explicit:
            group, element, code, length = _TAG_VR_LENGTH[little].unpack_from(buffer, offset)
            value = offset + 8
            if group == 0xFFFE:  # first: a length may look like a VR
                vr = ""
                (length,) = _LENGTH[little].unpack_from(buffer, offset + 4)
            elif code in SHORT_VRS:
                vr = SHORT_VRS[code]
            elif code.isalpha() and code.isupper():
                vr = code.decode("ascii")
                (length,) = _LENGTH[little].unpack_from(buffer, offset + 8)
                value = offset + 12
            else:
                tag = group << 16 | element
                raise InvalidDataSet(f"VR {code!r}", "two letters", _at(tag, offset), "PS3.5 6.2")
        else:
            group, element, length = _TAG_LENGTH[little].unpack_from(buffer, offset)
            vr = ""
            value = offset + 8
    except struct.error as exc:
        raise Truncated("the end", "an element", f"byte {offset}") from exc
    tag = group << 16 | element
    if tag in (ITEM_DELIMITER, SEQUENCE_DELIMITER):
        length = 0
    if value > frame.limit or (length != UNDEFINED and value + length > frame.limit):
        kind = Truncated if len(buffer) <= frame.limit else InvalidDataSet
        room = max(frame.limit - value, 0)
        raise kind(
            f"length {length}", f"at most the {room} bytes left", _at(tag, offset), "PS3.5 7.1"
        )
    return tag, vr, value, length


def _entered(
    tag: int, vr: str, offset: int, value: int, length: int, frame: _Frame
) -> _Frame | None:
    """Return the frame an element or item opens, None where it holds a plain value."""
    if tag == ITEM and frame.kind == "fragments":
        if length == UNDEFINED:
            raise InvalidDataSet(
                "a fragment of undefined length", "a length", _at(tag, offset), "PS3.5 A.4"
            )
        return None
    if tag == ITEM:
        limit = frame.limit if length == UNDEFINED else value + length
        return _Frame("elements", limit, length != UNDEFINED, frame.encoding, frame.depth + 1)
    if length == UNDEFINED:
        return _without_length(tag, vr, offset, frame)
    if vr == "SQ" or (not vr and _is_sequence(tag)):
        return _Frame("items", value + length, True, frame.encoding, frame.depth)
    return None


def _without_length(tag: int, vr: str, offset: int, frame: _Frame) -> _Frame:
    """Return the frame an element of undefined length opens: items or fragments (PS3.5 7.1)."""
    if vr in ("OB", "OW") or (vr == "" and tag == PIXEL_DATA):
        return _Frame("fragments", frame.limit, False, frame.encoding, frame.depth)
    if vr not in ("SQ", "UN", ""):
        raise InvalidDataSet(
            f"VR {vr} of undefined length", "a length", _at(tag, offset), "PS3.5 7.1.2"
        )
    # A UN of undefined length is a sequence in Implicit VR Little Endian (PS3.5 6.2.2).
    encoding = IMPLICIT_LITTLE if vr == "UN" else frame.encoding
    return _Frame("items", frame.limit, False, encoding, frame.depth)


@lru_cache(maxsize=4096)
def _is_sequence(tag: int) -> bool:
    """Tell from the dictionary whether an element without VR is a sequence; no private one is."""
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _at(tag: int, offset: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) at byte {offset}"


def _too_many(tag: int, offset: int, limit: int) -> InvalidDataSet:
    return InvalidDataSet(f"more than {limit} elements", "fewer", _at(tag, offset))
