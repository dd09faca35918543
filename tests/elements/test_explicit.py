"""The reader of levels: the same elements as the walk finds, and none where readers disagree."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.elements.explicit import Element, Reader
from dicom_secure_node.elements.part10 import TRANSFER_SYNTAX, read_header
from dicom_secure_node.elements.syntax import EXPLICIT_LITTLE, encoding_of
from dicom_secure_node.elements.walk import UNDEFINED, Truncated, walk
from dicom_secure_node.errors import InvalidDataSet

FILES = Path(pydicom.data.__file__).parent / "test_files"
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
NAME = b"\x10\0\x10\0PN\2\0A "


def header(tag: int, vr: bytes, length: int, reserved: int = 0) -> bytes:
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, reserved, length)


def frame(tag: int, length: int = 0) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length)


def whole(reader: Reader, elements: list[Element], depth: int = 1) -> Iterator[tuple[int, ...]]:
    """Yield tag, start and value of every element, at every depth, in encoded order."""
    for one in elements:
        yield one.tag, one.start, one.value
        if one.vr == b"SQ":
            for item in reader.items(one, depth):
                yield from whole(reader, item.elements, depth + 1)


def explicit_files() -> list[Path]:
    found = []
    for path in sorted(FILES.glob("*.dcm")):
        with path.open("rb") as file, contextlib.suppress(InvalidDataSet):
            encoding = encoding_of(read_header(file).text(TRANSFER_SYNTAX))
            if encoding == EXPLICIT_LITTLE:
                found.append(path)
    return found


BROKEN = {"MR_truncated.dcm", "SC_rgb_jpeg.dcm", "meta_missing_tsyntax.dcm"}


@pytest.mark.parametrize(
    "path", [path for path in explicit_files() if path.name not in BROKEN], ids=lambda p: p.name
)
def test_a_real_file_has_the_elements_the_walk_finds(path: Path) -> None:
    with path.open("rb") as file:
        read_header(file)
        data = file.read()
    reader = Reader(data)
    elements = reader.level(0, len(data))
    frames = (ITEM, ITEM_END, SEQUENCE_END)
    # What is inside a UN of undefined length is in implicit VR: no level of ours.
    unknown = [(e.value, e.end) for e in elements if e.vr == b"UN" and e.length == UNDEFINED]
    found = [
        (p.tag, p.start, p.value)
        for p in walk(data, EXPLICIT_LITTLE)
        if p.tag not in frames and not any(start <= p.start < end for start, end in unknown)
    ]
    assert list(whole(reader, elements)) == found


SHAPES = {
    "nothing": (b"", []),
    "an element": (NAME, [0x00100010]),
    "an empty sequence of each kind": (
        header(0x00081140, b"SQ", 0)
        + header(0x00081150, b"SQ", UNDEFINED)
        + frame(SEQUENCE_END),
        [0x00081140, 0x00081150],
    ),
    "fragments": (
        header(0x7FE00010, b"OB", UNDEFINED) + frame(ITEM) + frame(ITEM, 2) + b"ab"
        + frame(SEQUENCE_END) + NAME,
        [0x7FE00010, 0x00100010],
    ),
    "a fragment that looks like a delimiter": (
        header(0x7FE00010, b"OW", UNDEFINED) + frame(ITEM, 8) + frame(SEQUENCE_END)
        + frame(SEQUENCE_END),
        [0x7FE00010],
    ),
    "an unknown that is a sequence": (
        header(0x00091001, b"UN", UNDEFINED) + frame(ITEM, UNDEFINED) + frame(0x00100010)
        + frame(ITEM_END) + frame(SEQUENCE_END) + NAME,
        [0x00091001, 0x00100010],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "tags"), SHAPES.values(), ids=SHAPES)
def test_shapes_of_a_level(data: bytes, tags: list[int]) -> None:
    for buffer in (data, bytearray(data)):
        elements = Reader(buffer).level(0, len(data))
        assert [one.tag for one in elements] == tags
        assert [one.end for one in elements] == [
            *(one.start for one in elements[1:]),
            *[len(data)][: len(elements)],
        ]


def test_fragments_are_where_they_are() -> None:
    data, _ = SHAPES["fragments"]
    reader = Reader(data)
    first, *_ = reader.level(0, len(data))
    assert first.encapsulated
    assert [data[start:end] for start, end in reader.fragments(first)] == [b"", b"ab"]


REFUSED = {
    "a VR nobody knows": header(0x00091001, b"ZZ", 0),
    "a VR of small letters": header(0x00091001, b"ob", 0),
    "reserved bytes that are used": header(0x00091001, b"OB", 0, reserved=1),
    "reserved bytes of a sequence": header(0x00091001, b"SQ", 0, reserved=1),
    "an item among elements": frame(ITEM),
    "an item whose length looks like a VR": frame(ITEM, int.from_bytes(b"LO", "little")),
    "a delimiter among elements": frame(ITEM_END) + NAME,
    "an element where an item must be": header(0x00081140, b"SQ", len(NAME)) + NAME,
    "an item longer than its sequence": (
        header(0x00081140, b"SQ", 8) + frame(ITEM, len(NAME)) + NAME
    ),
    "an element longer than its item": (
        header(0x00081140, b"SQ", 16) + frame(ITEM, 8) + NAME[:6] + b"\x20\0" + NAME * 4
    ),
    "a sequence in it that is longer than its item": (
        header(0x00081140, b"SQ", 20) + frame(ITEM, 12) + header(0x00081150, b"SQ", 10) + NAME
    ),
    "an item that never ends": header(0x00081140, b"SQ", 8) + frame(ITEM, UNDEFINED) + NAME,
    "the delimiter of an item half outside the sequence": (
        header(0x00081140, b"SQ", 12) + frame(ITEM, UNDEFINED) + frame(ITEM_END) + b"UL\4\0abcd"
    ),
    "a sequence that never ends": header(0x00081140, b"SQ", UNDEFINED) + frame(ITEM),
    "the delimiter of a sequence half outside its item": (
        header(0x00081140, b"SQ", 24) + frame(ITEM, 16)
        + header(0x00081150, b"SQ", UNDEFINED) + frame(SEQUENCE_END)
    ),
    "a delimiter of an item with a length": (
        header(0x00081140, b"SQ", 16) + frame(ITEM, UNDEFINED) + frame(ITEM_END, 4)
    ),
    "a delimiter of a sequence with a length": (
        header(0x00081140, b"SQ", UNDEFINED) + frame(SEQUENCE_END, 4)
    ),
    "a delimiter of fragments with a length": (
        header(0x7FE00010, b"OB", UNDEFINED) + frame(SEQUENCE_END, 4) + NAME
    ),
    "a delimiter of an unknown with a length": (
        header(0x00091001, b"UN", UNDEFINED) + frame(SEQUENCE_END, 4) + NAME
    ),
    "an element among fragments": header(0x7FE00010, b"OB", UNDEFINED) + NAME + frame(SEQUENCE_END),
    "a fragment of undefined length": (
        header(0x7FE00010, b"OB", UNDEFINED) + frame(ITEM, UNDEFINED) + frame(SEQUENCE_END)
    ),
    "a fragment beyond the end": header(0x7FE00010, b"OB", UNDEFINED) + frame(ITEM, 80),
    "fragments that never end": header(0x7FE00010, b"OB", UNDEFINED) + frame(ITEM),
    "a text of undefined length": header(0x00091001, b"UT", UNDEFINED) + frame(SEQUENCE_END),
    "a value beyond the end": NAME[:-1],
    "half a header": NAME + NAME[:5],
}  # fmt: skip


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_is_malformed_or_read_in_two_ways_is_refused(data: bytes) -> None:
    reader = Reader(data)
    with pytest.raises(InvalidDataSet, match=r"found .*, wanted"):
        list(whole(reader, reader.level(0, len(data))))


def test_a_level_in_the_middle_of_a_buffer_does_not_look_beyond() -> None:
    data = NAME * 3
    assert len(Reader(data).level(10, 20)) == 1
    with pytest.raises(InvalidDataSet):
        Reader(data).level(10, 18)
    with pytest.raises(Truncated):
        Reader(data).level(0, 40)


def nested(depth: int) -> bytes:
    opening = header(0x00081140, b"SQ", UNDEFINED) + frame(ITEM, UNDEFINED)
    return opening * depth + (frame(ITEM_END) + frame(SEQUENCE_END)) * depth


def test_levels_are_bounded() -> None:
    Reader(nested(128)).level(0, len(nested(128)))
    with pytest.raises(InvalidDataSet, match="more than 128 nested"):
        Reader(nested(129)).level(0, len(nested(129)))


COUNTED = {
    "elements": (NAME * 10, 10),
    "items": (header(0x00081140, b"SQ", UNDEFINED) + frame(ITEM) * 9 + frame(SEQUENCE_END), 10),
    "elements of items": (
        header(0x00081140, b"SQ", UNDEFINED)
        + frame(ITEM, 40)
        + NAME * 4
        + frame(ITEM, 40)
        + NAME * 4
        + frame(SEQUENCE_END),
        11,
    ),
    "what comes before and after": (
        NAME * 4 + header(0x00081140, b"SQ", UNDEFINED) + frame(SEQUENCE_END) + NAME * 5,
        10,
    ),
}


@pytest.mark.parametrize(("data", "count"), COUNTED.values(), ids=COUNTED)
def test_what_is_looked_at_is_bounded(data: bytes, count: int) -> None:
    Reader(data, count).level(0, len(data))
    with pytest.raises(InvalidDataSet, match=f"more than {count - 1} elements"):
        Reader(data, count - 1).level(0, len(data))


def test_a_reader_that_has_had_enough_stays_so() -> None:
    data = NAME * 3
    reader = Reader(data, 2)
    for _ in range(2):
        with pytest.raises(InvalidDataSet, match="more than 2 elements"):
            reader.level(0, 30)
        with pytest.raises(InvalidDataSet, match="more than 2 elements"):
            reader.level(0, 10)


@given(data=st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    with contextlib.suppress(InvalidDataSet):
        reader = Reader(data)
        for one in reader.level(0, len(data)):
            assert one.start < one.value <= one.end <= len(data)


PIECES = st.sampled_from(
    [
        NAME,
        b"\0\0",
        *(frame(ITEM, size) for size in (0, 20, len(NAME), UNDEFINED)),
        frame(ITEM_END),
        frame(SEQUENCE_END),
        header(0x00081140, b"SQ", UNDEFINED),
        header(0x00081140, b"SQ", 18),
        header(0x7FE00010, b"OB", UNDEFINED),
        header(0x00091001, b"UN", UNDEFINED),
        header(0x00091001, b"UN", 10),
    ]
)


@given(pieces=st.lists(PIECES, max_size=14))
def test_what_the_reader_takes_the_walk_takes_alike(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    try:
        reader = Reader(data)
        found = list(whole(reader, reader.level(0, len(data))))
    except InvalidDataSet:
        return
    walked = [p.tag for p in walk(data, EXPLICIT_LITTLE) if p.tag >> 16 != 0xFFFE and p.vr]
    assert [tag for tag, _, _ in found] == walked
