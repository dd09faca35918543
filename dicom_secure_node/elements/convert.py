"""From any encoding to Explicit VR Little Endian, value for value (PS3.5 Annex A, 6.2, 7.3).

Values stay what they are but for their byte order; nothing is decoded, padded or put in order.
An element without VR gets the one of the dictionary; one that nobody knows becomes UN, and a UN
stays UN. Sequences and items get undefined lengths, and group lengths, which would be wrong
now, are left out; no signature covers either.
"""

from __future__ import annotations

import array
import struct
import zlib
from functools import lru_cache
from typing import BinaryIO, Literal

from pydicom.datadict import dictionary_VR

from dicom_secure_node.elements.syntax import EXPLICIT_LITTLE, Encoding
from dicom_secure_node.elements.walk import (
    ITEM,
    ITEM_DELIMITER,
    SEQUENCE_DELIMITER,
    SHORT_VRS,
    UNDEFINED,
    Position,
    walk,
)
from dicom_secure_node.errors import InvalidDataSet

PIXEL_REPRESENTATION = 0x00280103
MAX_INFLATED = 4 << 30  # bytes

# PS3.5 7.3: bytes of the words that are turned round.
_WORDS = {"US": 2, "SS": 2, "OW": 2, "AT": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4}
_WORDS |= {"FD": 8, "OD": 8, "OV": 8, "SV": 8, "UV": 8}
_CODES = {2: "H", 4: "I", 8: "Q"}
_PIECE = 1 << 20  # bytes
_PADS = dict.fromkeys(
    [
        "AE",
        "AS",
        "CS",
        "DA",
        "DS",
        "DT",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "ST",
        "TM",
        "UC",
        "UR",
        "UT",
    ],
    b" ",
)
_PADS["UI"] = b"\0"
_SHORT = frozenset(SHORT_VRS.values())
_LONGEST_SHORT = 0xFFFF

_ITEM_HEADER = struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
_ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def to_explicit_little(
    data_set: memoryview, encoding: Encoding, out: BinaryIO, *, tidy: bool = False
) -> None:
    """Write a data set in Explicit VR Little Endian.

    Parameters
    ----------
    data_set : memoryview
    encoding : Encoding
        Of `data_set`; where it is Explicit VR Little Endian, nothing but `tidy` makes a difference.
    out : binary file
    tidy : bool
        Leave one pad byte where a text has several, and call encapsulated pixel data OB, whatever
        it was called (`is_tidy`). Of a deflated data set nothing is tidied.

    Raises
    ------
    InvalidDataSet
        It cannot be walked; a deflated one gets larger than 4 GiB, or holds no deflate stream; a
        value is longer than its VR can say.
    """
    if encoding.deflated:
        _inflate(data_set, out)
    else:
        _Converter(data_set, encoding, out, tidy).run()


def _inflate(data_set: memoryview, out: BinaryIO) -> None:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    rest: bytes | memoryview = data_set
    written = 0
    try:
        while not stream.eof and len(rest):
            data = stream.decompress(rest[:_PIECE], _PIECE)
            while data:
                written += len(data)
                if written > MAX_INFLATED:
                    raise InvalidDataSet(f"more than {MAX_INFLATED} bytes inflated", "fewer")
                out.write(data)
                data = stream.decompress(stream.unconsumed_tail, _PIECE)
            rest = rest[_PIECE:]
    except zlib.error as exc:
        raise InvalidDataSet(
            "bytes that do not inflate", "a raw deflate stream", clause="PS3.5 A.5"
        ) from exc
    if not stream.eof:
        raise InvalidDataSet("the end", "the end of the deflate stream", clause="PS3.5 A.5")


class _Converter:
    """One conversion of a data set that is not deflated."""

    def __init__(self, data_set: memoryview, encoding: Encoding, out: BinaryIO, tidy: bool) -> None:
        self._data = data_set
        self._tidy = tidy
        self._encoding = encoding
        self._out = out
        self._open: list[tuple[int, bytes]] = []  # what ends by length: where, and its delimiter
        self._pixels_signed = False
        self._unknown: Position | None = None  # a UN of undefined length we are inside of
        self._in_fragments = False

    def run(self) -> None:
        for position in walk(self._data, self._encoding):
            if self._unknown is not None:
                self._end_unknown(position)
                continue
            self._close(position.start)
            if position.tag == ITEM and self._in_fragments:
                self._out.write(struct.pack("<HHL", 0xFFFE, 0xE000, position.length))
                self._value(position, 1)
            elif position.tag == ITEM:
                self._out.write(_ITEM_HEADER)
                if position.length != UNDEFINED:
                    self._open.append((position.end, _ITEM_END))
            elif position.tag == ITEM_DELIMITER:
                self._out.write(_ITEM_END)
            elif position.tag == SEQUENCE_DELIMITER:
                self._out.write(_SEQUENCE_END)
                self._in_fragments = False
            elif position.tag & 0xFFFF:
                self._element(position)
        self._close(len(self._data))

    def _close(self, offset: int) -> None:
        """End what ends by its length at `offset` or before."""
        while self._open and self._open[-1][0] <= offset:
            self._out.write(self._open.pop()[1])

    def _element(self, position: Position) -> None:
        vr = position.vr or self._vr_of(position)
        if position.length == UNDEFINED and vr == "UN":
            self._unknown = position  # Implicit VR Little Endian inside (PS3.5 6.2.2)
            return
        if vr == "SQ":
            self._out.write(_header(position.tag, vr, UNDEFINED))
            if position.length != UNDEFINED:
                self._open.append((position.end, _SEQUENCE_END))
            return
        if position.length == UNDEFINED:
            if self._encoding != EXPLICIT_LITTLE:
                found = "encapsulated pixel data"
                raise InvalidDataSet(found, "native", f"byte {position.start}", "PS3.5 A.4")
            self._out.write(_header(position.tag, "OB" if self._tidy else vr, UNDEFINED))
            self._in_fragments = True
            return
        if position.tag == PIXEL_REPRESENTATION:
            value = self._data[position.value : position.end]
            order: Literal["little", "big"] = "little" if self._encoding.little else "big"
            self._pixels_signed = int.from_bytes(value, order) == 1
        if vr in _SHORT and position.length > _LONGEST_SHORT:
            vr = "UN"  # PS3.5 6.2.2: no other way to say its length
        if self._tidy and vr in _PADS:
            value = self._data[position.value : position.end]
            if not _is_tidy(value, vr):
                text = tidied(value, vr)
                self._out.write(_header(position.tag, vr, len(text)))
                self._out.write(text)
                return
        self._out.write(_header(position.tag, vr, position.length))
        self._value(position, 1 if self._encoding.little else _WORDS.get(vr, 1))

    def _value(self, position: Position, size: int) -> None:
        for start in range(position.value, position.end, _PIECE):
            piece = self._data[start : min(start + _PIECE, position.end)]
            self._out.write(piece if size == 1 else _turned(piece, size))

    def _end_unknown(self, position: Position) -> None:
        """Write a UN of undefined length as it lies there, once its delimiter has come."""
        unknown = self._unknown
        assert unknown is not None
        if position.tag == SEQUENCE_DELIMITER and position.depth == unknown.depth:
            self._out.write(_header(unknown.tag, "UN", UNDEFINED))
            self._out.write(self._data[unknown.value : position.start])
            self._out.write(_SEQUENCE_END)
            self._unknown = None

    def _vr_of(self, position: Position) -> str:
        """Return the VR of an element that came without."""
        vr = _dictionary_vr(position.tag)
        if "OW" in vr:
            return "OW"  # PS3.5 A.1
        if vr == "US or SS":
            return "SS" if self._pixels_signed else "US"
        return vr


def is_tidy(data_set: memoryview) -> bool:
    """Tell whether a data set in Explicit VR Little Endian has nothing to tidy.

    Products disagree on what several pad bytes mean to a signature, and on the VR of
    encapsulated pixel data; one that has neither verifies everywhere.

    Raises
    ------
    InvalidDataSet
        It cannot be walked.
    """
    unknown_ends_at = -1
    for position in walk(data_set, EXPLICIT_LITTLE):
        if unknown_ends_at >= 0:  # inside a UN of undefined length: Implicit VR Little Endian
            if position.tag == SEQUENCE_DELIMITER and position.depth == unknown_ends_at:
                unknown_ends_at = -1
        elif position.length == UNDEFINED:
            if position.vr == "OW":
                return False
            if position.vr == "UN":
                unknown_ends_at = position.depth
        elif position.vr in _PADS and not _is_tidy(
            data_set[position.value : position.end], position.vr
        ):
            return False
    return True


def _is_tidy(value: memoryview, vr: str) -> bool:
    pad = _PADS[vr][0]
    return len(value) < 2 or value[-1] != pad or value[-2] != pad


def tidied(value: memoryview, vr: str) -> memoryview:
    """Return a text value with the one pad byte that an even length may take (PS3.5 6.2).

    Nothing is copied but a value of odd length that is not padded.
    """
    pad = _PADS.get(vr)
    if pad is None:
        return value
    stop = len(value)
    while stop:
        piece = bytes(value[max(0, stop - _PIECE) : stop])
        kept = len(piece.rstrip(pad))
        stop -= len(piece) - kept
        if kept:
            break
    if stop % 2 and stop == len(value):
        return memoryview(bytes(value) + pad)
    return value[: stop + stop % 2]


def _header(tag: int, vr: str, length: int) -> bytes:
    group, number, code = tag >> 16, tag & 0xFFFF, vr.encode()
    if vr in _SHORT:
        return struct.pack("<HH2sH", group, number, code, length)
    return struct.pack("<HH2sHL", group, number, code, 0, length)


def _turned(value: memoryview, size: int) -> bytes:
    """Return a value with the bytes of each word in the other order."""
    words = array.array(_CODES[size])
    whole = len(value) - len(value) % size
    words.frombytes(value[:whole])
    words.byteswap()
    return words.tobytes() + bytes(value[whole:])


@lru_cache(maxsize=4096)
def _dictionary_vr(tag: int) -> str:
    if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
        return "LO"  # a private creator
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"
