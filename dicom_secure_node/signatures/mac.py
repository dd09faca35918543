"""The byte stream a MAC is computed over (PS3.3 C.12.1.1.3.1.1 and C.12.1.1.3.1.2).

What goes in, level by level and in the order of the data set:

1. An element of defined length goes in as it is encoded, header and padding included.
2. A sequence goes in without lengths: tag, VR, two zero bytes; then for each item its tag and its
   elements; then the tag of the sequence delimiter, whether there was one or not.
3. Encapsulated pixel data goes in like a sequence, with the bytes of each fragment for an item.
4. What may not be signed stays out, at any depth (`may_be_listed`): group lengths, groups below
   0008, other signatures and MAC parameters, padding. An element of VR UN stays out; a sequence
   that holds one anywhere stays out as a whole.

Most of it is the file's own bytes in their own order, so runs of elements are handed to the
digests as they lie there: nothing is decoded, and nothing is written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Protocol

from dicom_secure_node.elements.convert import tidied
from dicom_secure_node.elements.explicit import Element, Reader
from dicom_secure_node.elements.walk import SHORT_VRS, UNDEFINED
from dicom_secure_node.spec.signatures import never_signed

MAC_PARAMETERS = 0x4FFE0001
DIGITAL_SIGNATURES = 0xFFFAFFFA

ITEM_TAG = b"\xfe\xff\x00\xe0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_RESERVED = b"\0\0"
_PIECE = 1 << 16  # bytes put together before they go to a digest
_STEP = 8 << 20  # bytes of a mapped file that are in memory at a time

Bytes = bytes | bytearray | memoryview
Update = Callable[[Bytes], object]


class Hash(Protocol):
    """A digest as `hashlib` makes it."""

    def update(self, data: Bytes, /) -> None: ...

    def digest(self) -> bytes: ...

    def copy(self) -> Hash: ...


class Variant(Enum):
    """How some products computed the stream; `PLAIN` is what the standard says.

    A signature that verifies under another one is reported with that remark.
    """

    PLAIN = "as the standard says"
    OB = "with encapsulated Pixel Data labelled OW taken as OB (PS3.5 A.4)"
    TRIMMED = "after padding was normalised (as DCMTK does)"
    FRAGMENT_LENGTHS = "with fragment lengths, as DCMTK did before 3.5.4"


@lru_cache(maxsize=1 << 14)
def may_be_listed(tag: int) -> bool:
    """Tell whether an element of this tag may be signed, as far as its tag tells."""
    return never_signed(tag) is None


def may_be_signed(reader: Reader, element: Element) -> bool:
    """Tell whether an element may be signed: its tag may be listed, and its VR is known.

    A sequence is read to its last byte, whatever the answer: readers that go by the lengths of
    its items would find other elements behind one whose items are longer than itself.

    Raises
    ------
    InvalidDataSet
        A sequence is malformed.
    """
    if element.vr == b"SQ":
        return not _holds_unknown(reader, element) and may_be_listed(element.tag)
    return element.vr != b"UN" and may_be_listed(element.tag)


def signable_tags(reader: Reader, elements: Iterable[Element]) -> frozenset[int]:
    """Return the tags of those elements of one level that may be signed."""
    found = []
    for element in elements:  # a loop, for it is run through for every instance received
        vr = element[1]
        if vr == b"SQ":
            if may_be_signed(reader, element):
                found.append(element[0])
        elif vr != b"UN" and may_be_listed(element[0]):
            found.append(element[0])
    return frozenset(found)


def _holds_unknown(reader: Reader, sequence: Element, depth: int = 1) -> bool:
    """Tell whether an element of VR UN is anywhere in a sequence, which is read as a whole."""
    found = False
    for item in reader.items(sequence, depth):
        for element in item.elements:
            if element.vr == b"SQ":
                found |= _holds_unknown(reader, element, depth + 1)
            elif element.vr == b"UN":
                found = True
    return found


@dataclass
class Mac:
    """One MAC being computed: which elements it takes, and its digest so far.

    Attributes
    ----------
    tags : collection of int
        (0400,0020) Data Elements Signed.
    hash : Hash
    """

    tags: Collection[int]
    hash: Hash


def may_be_cut_elsewhere(reader: Reader, element: Element) -> bool:
    """Tell whether fragments could be cut in another way and have the same stream.

    It has no lengths of fragments, so the tag of an item between two of them cannot be told from
    the same four bytes inside one. In compressed data they occur by chance as well, once in some
    16 MiB of JPEG.
    """
    return element.encapsulated and any(
        reader.holds(ITEM_TAG, start, end) for start, end in reader.fragments(element)
    )


def new_hash(name: str) -> Hash:
    """Return an empty digest by its name in `hashlib`."""
    return hashlib.new(name, usedforsecurity=False)


def feed(
    reader: Reader,
    elements: Iterable[Element],
    macs: Sequence[Mac],
    signable: frozenset[int],
    variant: Variant = Variant.PLAIN,
) -> None:
    """Put the elements of one level into each MAC that lists them, in one pass.

    Parameters
    ----------
    reader : Reader
        Of the buffer that holds them.
    elements : iterable of Element
        In the order of the data set.
    macs : sequence of Mac
    signable : frozenset of int
        Tags of those that may be signed (`signable_tags`); others are left out, listed or not.
    variant : Variant

    Raises
    ------
    InvalidDataSet
        A sequence is malformed.
    """
    view = memoryview(reader.buffer)
    wanted: dict[int, list[_Run]] = {}
    runs = [_Run(mac.hash) for mac in macs]
    for mac, run in zip(macs, runs, strict=True):
        for tag in signable.intersection(mac.tags):
            wanted.setdefault(tag, []).append(run)
    for element in elements:
        wanting = wanted.get(element.tag)
        if wanting is None:
            continue
        if _is_plain(view, element, variant):
            for run in wanting:
                if run.end != element.start:
                    run.take(reader, view)
                    run.start = element.start
                run.end = element.end
            continue
        for run in wanting:
            run.take(reader, view)
        for piece in _pieces(reader, view, element, variant):
            for run in wanting:
                _update(run.hash, reader, piece)
    for run in runs:
        run.take(reader, view)


class _Run:
    """Plain elements that lie one behind the other and that a digest has not taken yet."""

    __slots__ = ("end", "hash", "start")

    def __init__(self, digest: Hash) -> None:
        self.hash = digest
        self.start = self.end = -1

    def take(self, reader: Reader, view: memoryview) -> None:
        if self.end > self.start:
            _update(self.hash, reader, view[self.start : self.end])
        self.start = self.end = -1


def stream_of(reader: Reader, elements: Iterable[Element]) -> bytes:
    """Return the stream of a few small elements, those of a Digital Signatures item."""
    view = memoryview(reader.buffer)
    return b"".join(_item(reader, view, elements, Variant.PLAIN, 1))


def _update(digest: Hash, reader: Reader, data: Bytes) -> None:
    """Put bytes into a digest; those of a mapped file do not stay in memory."""
    if len(data) <= _STEP:
        digest.update(data)
        return
    for at in range(0, len(data), _STEP):
        digest.update(data[at : at + _STEP])
        reader.let_go()


def _is_plain(view: memoryview, element: Element, variant: Variant) -> bool:
    """Tell whether an element goes in byte by byte, as it lies there."""
    if element.vr in SHORT_VRS:
        return variant is not Variant.TRIMMED
    if element.vr == b"SQ" or element.length == UNDEFINED or variant is Variant.TRIMMED:
        return False
    return view[element.start + 6 : element.start + 8] == _RESERVED


def _pieces(
    reader: Reader, view: memoryview, element: Element, variant: Variant
) -> Iterator[Bytes]:
    """Yield the stream of an element that does not go in as it lies there."""
    gathered = bytearray()
    for piece in _stream(reader, view, element, variant):
        if len(piece) >= _PIECE:
            yield gathered
            yield piece
            gathered = bytearray()
            continue
        gathered += piece
        if len(gathered) >= _PIECE:
            yield gathered
            gathered = bytearray()
    yield gathered


def _stream(
    reader: Reader, view: memoryview, element: Element, variant: Variant, depth: int = 1
) -> Iterator[Bytes]:
    if element.vr == b"SQ":
        yield view[element.start : element.start + 6]
        yield _RESERVED
        for item in reader.items(element, depth):
            yield ITEM_TAG
            yield from _item(reader, view, item.elements, variant, depth)
        yield SEQUENCE_END
    elif element.length == UNDEFINED:
        yield encapsulated_header(view, element, variant)
        for start, end in reader.fragments(element):
            yield ITEM_TAG
            if variant is Variant.FRAGMENT_LENGTHS:
                yield (end - start).to_bytes(4, "little")
            yield view[start:end]
        yield SEQUENCE_END
    else:
        yield from _value(view, element, variant)


def encapsulated_header(view: Bytes, element: Element, variant: Variant) -> bytes:
    """Return what stands before the fragments in the stream."""
    vr = b"OB" if variant is Variant.OB else element.vr
    return bytes(view[element.start : element.start + 4]) + vr + _RESERVED


def _item(
    reader: Reader,
    view: memoryview,
    elements: Iterable[Element],
    variant: Variant,
    depth: int,
) -> Iterator[Bytes]:
    """Yield the stream of one item; nothing in it is of VR UN (`may_be_signed`)."""
    start = end = -1
    for element in elements:
        if not may_be_listed(element.tag):
            continue
        if _is_plain(view, element, variant):
            if element.start != end:
                if end > start:
                    yield view[start:end]
                start = element.start
            end = element.end
            continue
        if end > start:
            yield view[start:end]
        start = end = -1
        yield from _stream(reader, view, element, variant, depth + 1)
    if end > start:
        yield view[start:end]


def _value(view: memoryview, element: Element, variant: Variant) -> Iterator[Bytes]:
    """Yield an element with its header written anew."""
    value = view[element.value : element.end]
    if variant is Variant.TRIMMED:
        value = tidied(value, element.vr.decode("ascii"))
    yield view[element.start : element.start + 6]
    if element.vr in SHORT_VRS:
        yield len(value).to_bytes(2, "little")
    else:
        yield _RESERVED
        yield len(value).to_bytes(4, "little")
    yield value
