"""From any encoding to Explicit VR Little Endian, against pydicom and dcmconv."""

from __future__ import annotations

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
from pydicom.filereader import read_dataset

from dicom_secure_node.elements.convert import is_tidy, tidied, to_explicit_little
from dicom_secure_node.elements.part10 import TRANSFER_SYNTAX, read_header
from dicom_secure_node.elements.syntax import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Encoding,
    encoding_of,
)
from dicom_secure_node.elements.walk import UNDEFINED, walk
from dicom_secure_node.errors import InvalidDataSet
from tests.parts import run

FILES = Path(pydicom.data.__file__).parent / "test_files"
DEFLATED = Encoding(explicit=True, little=True, deflated=True)
CONVERTED = [
    "rtplan.dcm",
    "MR_small_implicit.dcm",
    "priv_SQ.dcm",
    "UN_sequence.dcm",
    "empty_charset_LEI.dcm",
    "ExplVR_BigEnd.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_expb.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "liver_expb_1frame.dcm",
    "rtdose_expb_1frame.dcm",
    "image_dfl.dcm",
    "test-SR.dcm",
    "JPEG2000.dcm",
]


def converted(data: bytes, encoding: Encoding, *, tidy: bool = False) -> bytes:
    out = io.BytesIO()
    to_explicit_little(memoryview(data), encoding, out, tidy=tidy)
    return out.getvalue()


def opened(path: Path) -> tuple[bytes, Encoding]:
    with path.open("rb") as file:
        encoding = encoding_of(read_header(file).text(TRANSFER_SYNTAX))
        return file.read(), encoding


@pytest.mark.parametrize("name", CONVERTED)
def test_pydicom_reads_the_same_from_a_converted_file(name: str) -> None:
    data, encoding = opened(FILES / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's opinions on the values
        before = pydicom.dcmread(FILES / name)
        after = read_dataset(io.BytesIO(converted(data, encoding)), False, True)
        for one in (before, after):
            one.walk(lambda ds, element: None)  # decode everything
        kept = {tag for tag in before.keys() if tag.element}  # noqa: SIM118 - a Dataset is no dict
        assert set(after.keys()) == kept
        for tag in kept:
            if before[tag].VR not in ("OB", "OW", "UN"):
                assert after[tag].value == before[tag].value, tag


@pytest.mark.parametrize("name", [name for name in CONVERTED if name != "UN_sequence.dcm"])
def test_dcmconv_writes_the_same_values(name: str, tmp_path: Path) -> None:
    """dcmconv pads anew, and gives private elements without VR none of ours."""
    out = tmp_path / "explicit.dcm"
    if name == "JPEG2000.dcm":
        out.write_bytes((FILES / name).read_bytes())  # there is nothing to convert
    else:
        run(["dcmconv", "+te", "-e", FILES / name, out], check=True)
    ours = converted(*opened(FILES / name))
    theirs, _ = opened(out)

    def values(data: bytes) -> list[tuple[int, str, bytes]]:
        return [
            (p.tag, p.vr, bytes(data[p.value : p.end]).rstrip(b" \0"))
            for p in walk(data, EXPLICIT_LITTLE)
            if p.length != UNDEFINED and p.tag >> 16 != 0xFFFE and p.tag & 0xFFFF
        ]

    assert values(ours) == values(theirs)


@pytest.mark.parametrize("name", ["test-SR.dcm", "CT_small.dcm", "JPEG2000.dcm"])
def test_what_is_explicit_stays_as_it_is_but_for_lengths(name: str) -> None:
    data, encoding = opened(FILES / name)
    once = converted(data, encoding)
    assert converted(once, EXPLICIT_LITTLE) == once


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, size) + value


def explicit(tag: int, vr: bytes, value: bytes, order: str = "<") -> bytes:
    head = struct.pack(f"{order}HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"OB", b"OW", b"OD", b"OV", b"SQ", b"UN", b"UT", b"UC", b"SV"):
        return head + struct.pack(f"{order}HL", 0, len(value)) + value
    return head + struct.pack(f"{order}H", len(value)) + value


VRS = {
    "a text": (implicit(0x00100010, b"A "), explicit(0x00100010, b"PN", b"A ")),
    "a private creator": (implicit(0x00090010, b"X "), explicit(0x00090010, b"LO", b"X ")),
    "a private element": (implicit(0x00091010, b"X "), explicit(0x00091010, b"UN", b"X ")),
    "a standard one of the future": (
        implicit(0x00089999, b"X "),
        explicit(0x00089999, b"UN", b"X "),
    ),
    "a group length, left out": (implicit(0x00080000, b"\1\0\0\0"), b""),
    "pixels": (implicit(0x7FE00010, b"ab"), explicit(0x7FE00010, b"OW", b"ab")),
    "a number of unsigned pixels": (
        implicit(0x00280103, b"\0\0") + implicit(0x00280106, b"\1\0"),
        explicit(0x00280103, b"US", b"\0\0") + explicit(0x00280106, b"US", b"\1\0"),
    ),
    "a number of signed pixels": (
        implicit(0x00280103, b"\1\0") + implicit(0x00280106, b"\1\0"),
        explicit(0x00280103, b"US", b"\1\0") + explicit(0x00280106, b"SS", b"\1\0"),
    ),
    "a text too long for its VR": (
        implicit(0x00100010, bytes(70_000)),
        explicit(0x00100010, b"UN", bytes(70_000)),
    ),
}


@pytest.mark.parametrize(("before", "after"), VRS.values(), ids=VRS)
def test_a_vr_comes_from_the_dictionary(before: bytes, after: bytes) -> None:
    assert converted(before, IMPLICIT_LITTLE) == after


WORDS = {
    b"US": (b"\1\2\3\4", b"\2\1\4\3"),
    b"OW": (b"\1\2\3\4", b"\2\1\4\3"),
    b"AT": (b"\1\2\3\4", b"\2\1\4\3"),
    b"UL": (b"\1\2\3\4", b"\4\3\2\1"),
    b"FD": (b"\1\2\3\4\5\6\7\x08", b"\x08\7\6\5\4\3\2\1"),
    b"OV": (b"\1\2\3\4\5\6\7\x08", b"\x08\7\6\5\4\3\2\1"),
    b"OB": (b"\1\2\3\4", b"\1\2\3\4"),
    b"UN": (b"\1\2\3\4", b"\1\2\3\4"),
    b"LO": (b"ABCD", b"ABCD"),
}


@pytest.mark.parametrize("vr", WORDS, ids=bytes.decode)
def test_big_endian_words_are_turned(vr: bytes) -> None:
    before, after = WORDS[vr]
    data = explicit(0x00091010, vr, before, ">")
    assert converted(data, EXPLICIT_BIG) == explicit(0x00091010, vr, after)


def test_an_odd_number_of_bytes_is_turned_as_far_as_it_goes() -> None:
    data = explicit(0x00091010, b"US", b"\1\2\3", ">")
    assert converted(data, EXPLICIT_BIG) == explicit(0x00091010, b"US", b"\2\1\3")


def test_large_values_are_turned_in_pieces() -> None:
    value = bytes(range(256)) * 10_000
    turned = converted(explicit(0x7FE00010, b"OW", value, ">"), EXPLICIT_BIG)[12:]
    assert turned[0::2] == value[1::2]
    assert turned[1::2] == value[0::2]


# -- deflated ------------------------------------------------------------------------------


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@given(data=st.binary(max_size=5000), more=st.integers(0, 3))
def test_what_was_deflated_comes_back(data: bytes, more: int) -> None:
    assert converted(deflated(data * 10**more) + b"\0", DEFLATED) == data * 10**more


def test_a_long_run_comes_back_whole() -> None:
    assert converted(deflated(bytes(5 << 20)), DEFLATED) == bytes(5 << 20)


BAD = {
    "nothing": b"",
    "half a stream": deflated(bytes(range(256)))[:-5],
    "no stream": b"\xff" * 100,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_does_not_inflate_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidDataSet, match=r"PS3\.5 A\.5"):
        converted(data, DEFLATED)


# -- tidying -------------------------------------------------------------------------------

TIDY = {
    "one pad byte stays": (b"PN", b"A ", b"A "),
    "three become one": (b"PN", b"A   ", b"A "),
    "two go": (b"PN", b"AB  ", b"AB"),
    "nothing but pad bytes goes": (b"LO", b"    ", b""),
    "zeros pad a UID": (b"UI", b"1.2\0\0\0", b"1.2\0"),
    "spaces do not": (b"UI", b"1.2   ", b"1.2   "),
    "zeros do not pad a text": (b"LO", b"AB\0\0", b"AB\0\0"),
    "an odd one gets its pad byte": (b"LO", b"ABC", b"ABC "),
    "bytes stay as they are": (b"OB", b"    ", b"    "),
    "numbers too": (b"US", b"    ", b"    "),
}


@pytest.mark.parametrize(("vr", "before", "after"), TIDY.values(), ids=TIDY)
def test_tidied(vr: bytes, before: bytes, after: bytes) -> None:
    assert bytes(tidied(memoryview(before), vr.decode())) == after
    data = explicit(0x00091010, vr, before)
    if len(before) % 2 == 0:
        assert is_tidy(memoryview(data)) is (before == after)
        assert converted(data, EXPLICIT_LITTLE, tidy=True) == explicit(0x00091010, vr, after)
    assert converted(data, EXPLICIT_LITTLE) == data


def test_a_long_text_is_tidied_without_a_copy() -> None:
    value = memoryview(b"A" + b" " * (5 << 20))
    assert bytes(tidied(value, "UT")) == b"A "
    assert tidied(value, "UT").obj is value.obj


def test_encapsulated_pixels_become_ob_when_tidied() -> None:
    frames = struct.pack("<HHL", 0xFFFE, 0xE000, 2) + b"ab"
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    data = struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, UNDEFINED) + frames + end
    assert not is_tidy(memoryview(data))
    assert converted(data, EXPLICIT_LITTLE, tidy=True) == data.replace(b"OW", b"OB")
    assert converted(data, EXPLICIT_LITTLE) == data
    with pytest.raises(InvalidDataSet, match="wanted native"):
        converted(struct.pack("<HHL", 0x7FE0, 0x10, UNDEFINED) + frames + end, IMPLICIT_LITTLE)
