"""The walk over encoded elements, against pydicom and against bytes nobody should send."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from dicom_secure_node.elements.part10 import TRANSFER_SYNTAX, read_header
from dicom_secure_node.elements.syntax import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Encoding,
    encoding_of,
    inflate,
)
from dicom_secure_node.elements.walk import (
    ITEM,
    ITEM_DELIMITER,
    SEQUENCE_DELIMITER,
    UNDEFINED,
    Position,
    Truncated,
    find,
    walk,
)
from dicom_secure_node.errors import InvalidDataSet

FILES = Path(pydicom.data.__file__).parent / "test_files"
ENCODINGS = {
    "implicit little": IMPLICIT_LITTLE,
    "explicit little": EXPLICIT_LITTLE,
    "explicit big": EXPLICIT_BIG,
}
FRAME = (ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER)
BROKEN = {  # files of pydicom that are meant to be
    "MR_truncated.dcm",
    "rtplan_truncated.dcm",
    "SC_rgb_jpeg.dcm",  # says explicit, is implicit
    "DICOMDIR-nooffset",  # its last item is longer than the sequence around it
    "meta_missing_tsyntax.dcm",  # says nothing, is implicit
}


def long(tag: int, vr: str, length: int) -> bytes:
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length)


def short(tag: int, vr: str, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def frame(tag: int, length: int = 0) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length)


def implicit(tag: int, value: bytes) -> bytes:
    return frame(tag, len(value)) + value


def outline(positions: list[Position]) -> list[tuple[int, str, int]]:
    return [(p.tag, p.vr, p.depth) for p in positions]


def encode(ds: Dataset, encoding: Encoding) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = encoding.little
    buffer.is_implicit_VR = not encoding.explicit
    write_dataset(buffer, ds)
    return buffer.getvalue()


def real_files() -> list[Path]:
    found = []
    for path in sorted(FILES.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                file.seek(128)
                if file.read(4) == b"DICM" and path.name not in BROKEN:
                    found.append(path)
    return found


def opened(path: Path) -> tuple[bytes, Encoding]:
    with path.open("rb") as file:
        encoding = encoding_of(read_header(file).text(TRANSFER_SYNTAX))
        data = file.read()
    return (inflate(data, 1 << 24).data if encoding.deflated else data), encoding


@pytest.mark.parametrize("path", real_files(), ids=lambda p: str(p.relative_to(FILES)))
def test_real_files_are_walked_to_their_end_and_agree_with_pydicom(path: Path) -> None:
    data, encoding = opened(path)
    top = [p for p in walk(data, encoding) if p.depth == 0 and p.tag not in FRAME]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's opinions on the values
        ds = pydicom.dcmread(path)
        assert sorted(p.tag for p in top) == sorted(ds.keys())
        for position in top:
            if position.length == UNDEFINED or position.vr == "SQ":
                continue
            raw = ds.get_item(position.tag)
            if isinstance(raw, pydicom.dataelem.RawDataElement):
                assert raw.value_tell > 0
                value = data[position.value : position.end]
                assert value == (raw.value or b""), hex(position.tag)


@pytest.mark.parametrize("path", real_files(), ids=lambda p: str(p.relative_to(FILES)))
def test_find_agrees_with_the_walk_on_any_prefix_that_suffices(path: Path) -> None:
    data, encoding = opened(path)
    tags = {0x00080016, 0x00080018, 0x00100010, 0x0020000D}
    wanted = {
        p.tag: data[p.value : p.end] for p in walk(data, encoding) if p.depth == 0 and p.tag in tags
    }
    assert find(data, tags, encoding) == wanted
    assert find(data, tags, encoding, to_end=True) == wanted
    assert find(memoryview(data), tags, encoding, to_end=True) == wanted
    for length in (0, 8, 100, 300, 1000, len(data) // 2):
        try:
            found = find(data[:length], tags, encoding, size=len(data))
        except Truncated:
            continue
        assert found == wanted


IMPLICIT_SEQUENCE = implicit(0x00081140, frame(ITEM, 10) + implicit(0x00081155, b"1\0")) + implicit(
    0x00100010, b""
)
UNDEFINED_SEQUENCE = (
    long(0x00081140, "SQ", UNDEFINED)
    + frame(ITEM, UNDEFINED)
    + short(0x00081155, "UI", b"1\0")
    + frame(ITEM_DELIMITER)
    + frame(ITEM, 10)
    + short(0x00081155, "UI", b"2\0")
    + frame(SEQUENCE_DELIMITER)
    + short(0x00100010, "PN", b"")
)
FRAGMENTS = (
    long(0x7FE00010, "OB", UNDEFINED)
    + frame(ITEM, 0)
    # fragments are not looked into, whatever they look like
    + frame(ITEM, 8)
    + frame(SEQUENCE_DELIMITER)
    + frame(SEQUENCE_DELIMITER)
    + long(0xFFFCFFFC, "OB", 0)
)
UNKNOWN_SEQUENCE = (
    long(0x00091001, "UN", UNDEFINED)
    + frame(ITEM, UNDEFINED)
    + implicit(0x00081155, b"1\0")
    + frame(ITEM_DELIMITER)
    + frame(SEQUENCE_DELIMITER)
    + short(0x00100010, "PN", b"")
)

SHAPES = {
    "PS3.5 7.5.1 items with lengths and without": (
        UNDEFINED_SEQUENCE,
        EXPLICIT_LITTLE,
        [
            (0x00081140, "SQ", 0),
            (ITEM, "", 1),
            (0x00081155, "UI", 1),
            (ITEM_DELIMITER, "", 1),
            (ITEM, "", 1),
            (0x00081155, "UI", 1),
            (SEQUENCE_DELIMITER, "", 0),
            (0x00100010, "PN", 0),
        ],
    ),
    "an implicit sequence is known from the dictionary": (
        IMPLICIT_SEQUENCE,
        IMPLICIT_LITTLE,
        [(0x00081140, "SQ", 0), (ITEM, "", 1), (0x00081155, "", 1), (0x00100010, "", 0)],
    ),
    "PS3.5 A.4 fragments": (
        FRAGMENTS,
        EXPLICIT_LITTLE,
        [
            (0x7FE00010, "OB", 0),
            (ITEM, "", 1),
            (ITEM, "", 1),
            (SEQUENCE_DELIMITER, "", 0),
            (0xFFFCFFFC, "OB", 0),
        ],
    ),
    "PS3.5 6.2.2 a UN without length is an implicit sequence": (
        UNKNOWN_SEQUENCE,
        EXPLICIT_LITTLE,
        [
            (0x00091001, "UN", 0),
            (ITEM, "", 1),
            (0x00081155, "", 1),
            (ITEM_DELIMITER, "", 1),
            (SEQUENCE_DELIMITER, "", 0),
            (0x00100010, "PN", 0),
        ],
    ),
    "a VR of the future has a 32-bit length": (
        long(0x00091001, "ZZ", 2) + b"ab" + short(0x00100010, "PN", b""),
        EXPLICIT_LITTLE,
        [(0x00091001, "ZZ", 0), (0x00100010, "PN", 0)],
    ),
    "odd lengths pass": (
        short(0x00080005, "CS", b"abc") + short(0x00100010, "PN", b""),
        EXPLICIT_LITTLE,
        [(0x00080005, "CS", 0), (0x00100010, "PN", 0)],
    ),
    "lengths in delimiters are ignored": (
        long(0x00081140, "SQ", UNDEFINED) + frame(SEQUENCE_DELIMITER, 77),
        EXPLICIT_LITTLE,
        [(0x00081140, "SQ", 0), (SEQUENCE_DELIMITER, "", 0)],
    ),
    "a fragment whose length looks like a VR": (
        long(0x7FE00010, "OB", UNDEFINED)
        + frame(ITEM, int.from_bytes(b"DA", "little"))  # 16708 bytes, a small JPEG frame
        + frame(SEQUENCE_DELIMITER)
        + bytes(16700)
        + frame(SEQUENCE_DELIMITER),
        EXPLICIT_LITTLE,
        [(0x7FE00010, "OB", 0), (ITEM, "", 1), (SEQUENCE_DELIMITER, "", 0)],
    ),
    "an empty sequence": (long(0x00081140, "SQ", 0), EXPLICIT_LITTLE, [(0x00081140, "SQ", 0)]),
    "nothing": (b"", EXPLICIT_LITTLE, []),
}


@pytest.mark.parametrize(("data", "encoding", "wanted"), SHAPES.values(), ids=SHAPES)
def test_shapes(data: bytes, encoding: Encoding, wanted: list[tuple[int, str, int]]) -> None:
    positions = list(walk(data, encoding))
    assert outline(positions) == wanted
    assert find(data, {0xFFFFFFFF}, encoding, to_end=True) == {}


MALFORMED = {
    "a length beyond the end": short(0x00080018, "UI", b"1\0")[:-1],
    "half a header": short(0x00080018, "UI", b"1\0") + b"\x10\0\x10",
    "a VR of no letters": b"\x08\0\x18\0\0\0\2\0" + b"1\0",
    "a VR of small letters": b"\x08\0\x18\0ui\2\0" + b"1\0",
    "a sequence that never ends": long(0x00081140, "SQ", UNDEFINED),
    "an item that never ends": long(0x00081140, "SQ", UNDEFINED) + frame(ITEM, UNDEFINED),
    "fragments that never end": long(0x7FE00010, "OB", UNDEFINED) + frame(ITEM, 0),
    "a fragment without length": long(0x7FE00010, "OB", UNDEFINED) + frame(ITEM, UNDEFINED),
    "an element where an item must be": (
        long(0x00081140, "SQ", UNDEFINED) + short(0x00081155, "UI", b"") + frame(SEQUENCE_DELIMITER)
    ),
    "an item where an element must be": frame(ITEM, 0),
    "a delimiter of nothing": frame(SEQUENCE_DELIMITER),
    "the wrong delimiter": (
        long(0x00081140, "SQ", UNDEFINED) + frame(ITEM, UNDEFINED) + frame(SEQUENCE_DELIMITER)
    ),
    "an item longer than its sequence": (
        long(0x00081140, "SQ", 10) + frame(ITEM, 100) + bytes(200)
    ),
    "an element longer than its item": (
        long(0x00081140, "SQ", 18) + frame(ITEM, 10) + b"\x08\0\x55\x11UI\x40\0" + bytes(100)
    ),
    "a string without length": long(0x00081140, "UT", UNDEFINED) + frame(SEQUENCE_DELIMITER),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_is_refused_with_its_place(data: bytes) -> None:
    with pytest.raises(InvalidDataSet) as caught:
        list(walk(data, EXPLICIT_LITTLE))
    assert "byte" in caught.value.where
    assert "found" in str(caught.value)


def test_find_reads_to_the_end_only_when_asked() -> None:
    data = short(0x00080018, "UI", b"1\0") + MALFORMED["the wrong delimiter"]
    assert find(data, {0x00080018}, EXPLICIT_LITTLE) == {0x00080018: b"1\0"}
    with pytest.raises(InvalidDataSet):
        find(data, {0x00080018}, EXPLICIT_LITTLE, to_end=True)


def test_a_wanted_element_that_occurs_twice_is_refused() -> None:
    """Two readers could take different ones: the gate the first, the viewer the last."""
    data = short(0x00080018, "UI", b"1\0") + short(0x00080018, "UI", b"2\0")
    with pytest.raises(InvalidDataSet, match="twice"):
        find(data, {0x00080018}, EXPLICIT_LITTLE)


def test_elements_in_items_do_not_count_as_found() -> None:
    assert find(UNDEFINED_SEQUENCE, {0x00081155}, EXPLICIT_LITTLE) == {}
    assert find(IMPLICIT_SEQUENCE, {0x00081155}, IMPLICIT_LITTLE) == {}


def test_a_wanted_value_is_copied_only_up_to_a_limit() -> None:
    data = implicit(0x00100010, b"x" * 70_000)
    with pytest.raises(InvalidDataSet, match="70000 bytes"):
        find(data, {0x00100010}, IMPLICIT_LITTLE)
    assert find(data, {0x00100010}, IMPLICIT_LITTLE, max_value=70_000)


def test_values_beyond_a_prefix_are_skipped() -> None:
    head = short(0x00080018, "UI", b"1\0") + long(0x7FE00010, "OW", 1 << 30)
    size = len(head) + (1 << 30)
    assert find(head, {0x00080018}, EXPLICIT_LITTLE, size=size, to_end=True)
    with pytest.raises(Truncated):
        find(head, {0x00080018}, EXPLICIT_LITTLE, size=size + 8, to_end=True)
    with pytest.raises(InvalidDataSet):
        find(head, {0x00080018}, EXPLICIT_LITTLE, size=size - 1, to_end=True)


def nested(depth: int) -> bytes:
    opening = long(0x00081140, "SQ", UNDEFINED) + frame(ITEM, UNDEFINED)
    return opening * depth + (frame(ITEM_DELIMITER) + frame(SEQUENCE_DELIMITER)) * depth


def test_nesting_is_bounded() -> None:
    assert max(p.depth for p in walk(nested(128), EXPLICIT_LITTLE)) == 128
    with pytest.raises(InvalidDataSet, match="128 nested"):
        list(walk(nested(129), EXPLICIT_LITTLE))
    with pytest.raises(InvalidDataSet, match="128 nested"):
        find(nested(100_000), {0xFFFFFFFF}, EXPLICIT_LITTLE, to_end=True)


def test_the_number_of_elements_is_bounded() -> None:
    data = short(0x00100010, "PN", b"") * 11
    assert len(list(walk(data, EXPLICIT_LITTLE, max_elements=11))) == 11
    with pytest.raises(InvalidDataSet, match="more than 10 elements"):
        list(walk(data, EXPLICIT_LITTLE, max_elements=10))


# (group, element) -> VR, legal in any data set; sequences are nested with the others.
LEAVES = {0x00080005: "CS", 0x00080018: "UI", 0x00100010: "PN", 0x00280010: "US", 0x0040A160: "UT"}
SEQUENCES = (0x00081140, 0x00400275)
VALUES = {
    "CS": st.just("ISO_IR 192"),
    "UI": st.from_regex(r"1(\.[1-9][0-9]{0,4}){1,6}", fullmatch=True),
    "PN": st.text(st.characters(codec="ascii", categories=["Lu"]), max_size=12),
    "US": st.integers(0, 65535),
    "UT": st.text(st.characters(codec="ascii", categories=["Ll"]), max_size=300),
}


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 3) -> Dataset:
    ds = Dataset()
    for tag in draw(st.sets(st.sampled_from(sorted(LEAVES)))):
        ds.add_new(tag, LEAVES[tag], draw(VALUES[LEAVES[tag]]))
    if depth:
        for tag in draw(st.sets(st.sampled_from(SEQUENCES))):
            items = draw(st.lists(data_sets(depth - 1), max_size=2))
            ds.add_new(tag, "SQ", Sequence(items))
            ds[tag].is_undefined_length = draw(st.booleans())
            for item in ds[tag].value:
                item.is_undefined_length_sequence_item = draw(st.booleans())
    return ds


def expected(ds: Dataset, depth: int = 0) -> list[tuple[int, int]]:
    """Return tag and depth of each element, as pydicom has them."""
    found: list[tuple[int, int]] = []
    for item in ds:
        found.append((int(item.tag), depth))
        if item.VR == "SQ":
            for inner in item.value:
                found += expected(inner, depth + 1)
    return found


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
@given(ds=data_sets())
def test_any_data_set_is_walked_as_pydicom_reads_it(encoding: Encoding, ds: Dataset) -> None:
    data = encode(ds, encoding)
    positions = list(walk(data, encoding))
    assert [(p.tag, p.depth) for p in positions if p.tag not in FRAME] == expected(ds)
    assert [p.tag for p in positions].count(ITEM) == sum(
        len(e.value) for e in ds.iterall() if e.VR == "SQ"
    )
    wanted = {tag for tag in LEAVES if tag in ds}
    assert set(find(data, set(LEAVES), encoding, to_end=True)) == wanted


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
@given(data=st.binary(max_size=300), size=st.none() | st.integers(0, 1 << 40))
def test_random_bytes_raise_invalid_data_set_and_nothing_else(
    encoding: Encoding, data: bytes, size: int | None
) -> None:
    for attempt in (
        lambda: list(walk(data, encoding, size=size)),
        lambda: find(data, {0x00080018}, encoding, size=size, to_end=True),
    ):
        with contextlib.suppress(InvalidDataSet):
            attempt()


MUTATED = [FILES / n for n in ("CT_small.dcm", "JPEG2000.dcm", "test-SR.dcm", "UN_sequence.dcm")]
MUTATED += [FILES / n for n in ("rtplan.dcm", "MR_small_bigendian.dcm", "reportsi.dcm")]


@pytest.mark.parametrize("path", MUTATED, ids=lambda p: p.name)
@given(changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=6))
def test_real_files_with_changed_bytes_raise_nothing_else(
    path: Path, changes: list[tuple[int, int]]
) -> None:
    whole, encoding = opened(path)
    data = bytearray(whole[:6000])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        for position in walk(data, encoding, size=len(whole)):
            assert 0 <= position.start < position.value
    except InvalidDataSet:
        pass


def test_inflate_stops_at_the_limit() -> None:
    bomb = zlib.compressobj(wbits=-15)
    data = bomb.compress(bytes(50_000_000)) + bomb.flush()
    assert inflate(data, 1000) == (bytes(1000), False)


def test_inflate_tells_the_end() -> None:
    stream = zlib.compressobj(wbits=-15)
    data = stream.compress(b"abc") + stream.flush()
    assert inflate(data, 1000) == (b"abc", True)
    assert inflate(data[:-2], 1000).whole is False


def test_inflate_refuses_what_was_not_deflated() -> None:
    with pytest.raises(InvalidDataSet, match=r"PS3\.5 A\.5"):
        inflate(b"\xff" * 100, 1000)


def test_encodings_by_uid() -> None:
    assert encoding_of("1.2.840.10008.1.2") == IMPLICIT_LITTLE
    assert encoding_of("1.2.840.10008.1.2.2") == EXPLICIT_BIG
    assert encoding_of("1.2.840.10008.1.2.4.50") == EXPLICIT_LITTLE
    assert encoding_of(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).deflated
    assert encoding_of("1.2.3.private") == EXPLICIT_LITTLE
    for uid, entry in pydicom._uid_dict.UID_dictionary.items():
        if entry[1] == "Transfer Syntax" and not entry[3]:
            syntax = pydicom.uid.UID(uid)
            ours = encoding_of(uid)
            assert ours.explicit != syntax.is_implicit_VR, uid
            assert ours.little == syntax.is_little_endian, uid


def test_a_walk_over_a_file_in_memory_needs_no_copy() -> None:
    data = io.BytesIO(short(0x00100010, "PN", b"ab")).getbuffer()
    (position,) = walk(data, EXPLICIT_LITTLE)
    assert bytes(data[position.value : position.end]) == b"ab"
