"""What breaks a signature, what does not, and that nothing else is touched by signing."""

from __future__ import annotations

import re
import string
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_secure_node.elements.explicit import Reader
from dicom_secure_node.elements.walk import SHORT_VRS
from dicom_secure_node.signatures.mac import may_be_signed
from dicom_secure_node.signatures.profiles import BASE, CREATOR
from dicom_secure_node.signatures.sign import Order
from dicom_secure_node.spec.signatures import ASTM_SIGPURPOSE, Purpose
from tests.signatures.making import (
    ALL,
    CODES,
    FILES,
    ITEM_END,
    NAME,
    PATIENT_ID,
    PIXELS,
    SERIES,
    SOP_CLASS,
    SOP_INSTANCE,
    STUDY,
    UNDEFINED,
    assert_valid,
    body,
    code,
    der,
    element,
    encapsulated,
    item,
    meta,
    only,
    refused,
    report_of,
    sequence,
    signed,
    signed_file,
    signer,
    verifier,
)

PLAIN = b"".join(ALL)
SOME = sequence(
    0x00400275, item(element(0x00400007, "LO", b"step"), undefined=True), undefined=True
)
COMPRESSED = b"".join(ALL[:-1]) + SOME + encapsulated(b"", b"\xff\xd8\xff\xd9")


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return data with one part of it replaced; it is there once."""
    assert data.count(old) == 1, data.count(old)
    return data.replace(old, new)


# -- every byte ----------------------------------------------------------------------------


@pytest.mark.parametrize("data", [PLAIN, COMPRESSED], ids=["native", "compressed"])
def test_no_byte_of_a_covered_element_can_be_changed(data: bytes) -> None:
    whole = signed(data, Order(BASE, purpose=Purpose("5", ASTM_SIGPURPOSE)))
    assert_valid(whole)
    reader = Reader(whole)
    covered = [one for one in reader.level(0, len(whole)) if may_be_signed(reader, one)]
    assert sum(one.end - one.start for one in covered) == len(data)
    for one in covered:
        for at in range(one.start, one.end):
            for bit in (0x01, 0x20, 0x80):  # the second one turns a VR into small letters
                spoilt = bytearray(whole)
                spoilt[at] ^= bit
                assert not valid(bytes(spoilt)), (hex(one.tag), at - one.start)


def test_no_byte_of_the_signatures_own_item_can_be_changed() -> None:
    """The certificate aside, which its issuer's signature protects (`pki.paths`)."""
    whole = signed(PLAIN, Order(BASE, purpose=Purpose("5", ASTM_SIGPURPOSE)))
    start = whole.index(b"\xfa\xff\xfa\xffSQ")
    certificate = whole.index(der(signer().certificate))
    after = certificate + len(der(signer().certificate))
    for at in (*range(start, certificate), *range(after, len(whole))):
        spoilt = bytearray(whole)
        spoilt[at] ^= 0x01
        assert not valid(bytes(spoilt)), at - start


def valid(data: bytes) -> bool:
    """Tell whether any signature of a data set is valid."""
    return any(one.valid for one in report_of(data).signatures)


@pytest.mark.parametrize("name", ["CT_small.dcm", "test-SR.dcm", "JPEG2000.dcm", "rtplan.dcm"])
@settings(max_examples=60)
@given(place=st.integers(0, 1 << 30), bit=st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]))
def test_no_byte_of_a_real_file_can_be_changed(name: str, place: int, bit: int) -> None:
    whole, spans = SIGNED_FILES[name]
    start, end = spans[place % len(spans)]
    spoilt = bytearray(whole)
    spoilt[start + place % (end - start)] ^= bit
    assert not valid(bytes(spoilt))


def _signed_spans(name: str) -> tuple[bytes, list[tuple[int, int]]]:
    """Return a signed data set and where its covered elements are."""
    file = signed_file(FILES / name)
    whole = file[file_offset(file) :]
    assert_valid(whole)
    reader = Reader(whole)
    covered = [one for one in reader.level(0, len(whole)) if may_be_signed(reader, one)]
    return whole, [(one.start, one.end) for one in covered]


def file_offset(file: bytes) -> int:
    return 144 + int.from_bytes(file[140:144], "little")


SIGNED_FILES = {
    name: _signed_spans(name)
    for name in ("CT_small.dcm", "test-SR.dcm", "JPEG2000.dcm", "rtplan.dcm")
}

# -- changes that break it -----------------------------------------------------------------

BREAKS: dict[str, Callable[[bytes], bytes]] = {
    "a value": lambda data: changed(data, NAME, element(0x00100010, "PN", b"E^E ")),
    "a value, and its length": lambda data: changed(
        data, NAME, element(0x00100010, "PN", b"A^BC^D")
    ),
    "a VR": lambda data: changed(data, PATIENT_ID, element(0x00100020, "SH", b"A1")),
    "a VR to UN": lambda data: changed(data, PATIENT_ID, element(0x00100020, "UN", b"A1")),
    "OW to OB": lambda data: changed(data, PIXELS, element(0x7FE00010, "OB", PIXELS[12:])),
    "a tag": lambda data: changed(data, PATIENT_ID, element(0x00100021, "LO", b"A1")),
    "an element removed": lambda data: changed(data, PATIENT_ID, b""),
    "an element twice": lambda data: changed(data, PATIENT_ID, PATIENT_ID * 2),
    "an element twice, the other one first": lambda data: changed(
        data, PATIENT_ID, element(0x00100020, "LO", b"B2") + PATIENT_ID
    ),
    "an element twice, the other one at the end": lambda data: (
        data + element(0x00100020, "LO", b"B2")
    ),
    "two elements in the other order": lambda data: changed(
        data, NAME + PATIENT_ID, PATIENT_ID + NAME
    ),
    "an element moved into an item": lambda data: changed(
        data, NAME + PATIENT_ID, sequence(0x00081140, item(NAME + PATIENT_ID))
    ),
    "items in the other order": lambda data: changed(
        data, code("A1") + code("B2", "Other"), code("B2", "Other") + code("A1")
    ),
    "an item twice": lambda data: changed(
        data, CODES, sequence(0x00082218, code("A1"), code("A1"), code("B2", "Other"))
    ),
    "an item removed": lambda data: changed(data, CODES, sequence(0x00082218, code("A1"))),
    "two items made one": lambda data: changed(
        data, CODES, sequence(0x00082218, item(code("A1")[8:], code("B2", "Other")[8:]))
    ),
    "an element added to an item": lambda data: changed(
        data, CODES, sequence(0x00082218, code("A1"), item(code("B2", "Other")[8:], STUDY))
    ),
    "an element of VR UN added to an item": lambda data: changed(
        data,
        CODES,
        sequence(
            0x00082218,
            code("A1"),
            item(code("B2", "Other")[8:], element(0x00091001, "UN", b"ab")),
        ),
    ),
    "a sequence made empty": lambda data: changed(data, CODES, sequence(0x00082218)),
    "the MAC ID of the signature": lambda data: changed(
        data, MAC_ID + SIGNATURE_UID, element(0x04000005, "US", b"\1\0") + SIGNATURE_UID
    ),
    "the MAC ID of the MAC": lambda data: changed(
        data, MAC_ID + MAC_SYNTAX, element(0x04000005, "US", b"\1\0") + MAC_SYNTAX
    ),
    "the MAC algorithm": lambda data: changed(data, b"\x15\0CS\6\0SHA256", b"\x15\0CS\6\0SHA512"),
    "a tag taken off the list": lambda data: changed(
        data, b"\x10\0\x10\0\x10\0\x20\0", b"\x10\0\x10\0\x10\0\x21\0"
    ),
    "no MAC parameters": lambda data: without(data, b"\xfe\x4f\x01\0SQ"),
    "the signature in front of its level": lambda data: (lambda at: data[at:] + data[:at])(
        data.index(b"\xfa\xff\xfa\xffSQ")
    ),
    "the whole data set twice": lambda data: data * 2,
}
MAC_ID = element(0x04000005, "US", b"\0\0")
SIGNATURE_UID = b"\0\4\0\1UI"
MAC_SYNTAX = b"\0\4\x10\0UI"


def without(data: bytes, header: bytes) -> bytes:
    """Return data without the sequence of defined length with this header."""
    at = data.index(header)
    length = int.from_bytes(data[at + 8 : at + 12], "little")
    return data[:at] + data[at + 12 + length :]


@pytest.mark.parametrize("change", BREAKS.values(), ids=BREAKS)
def test_this_breaks_it(change: Callable[[bytes], bytes]) -> None:
    whole = signed(PLAIN)
    assert_valid(whole)
    refused(report_of(change(whole)))


def test_two_signature_values_exchanged() -> None:
    whole = signed(signed(PLAIN), by=signer("bob"))
    assert [one.valid for one in report_of(whole).signatures] == [True, True]
    found = [one.end() for one in re.finditer(re.escape(b"\0\4\x20\1OB\0\0\0\1\0\0"), whole)]
    one, other = (whole[at : at + 256] for at in found)
    exchanged = whole.replace(one, b"?" * 256).replace(other, one).replace(b"?" * 256, other)
    assert not any(one.genuine for one in report_of(exchanged).signatures)


# -- changes that do not -------------------------------------------------------------------

OPEN_TAG = 0x00102000
OPEN = element(OPEN_TAG, "LO", b"anything")
SURVIVES: dict[str, Callable[[bytes], bytes]] = {
    "group lengths": lambda data: changed(
        data, NAME, element(0x00100000, "UL", b"\1\2\3\4") + NAME
    ),
    "trailing padding": lambda data: data + element(0xFFFCFFFC, "OB", bytes(6)),
    "a sequence without length": lambda data: changed(
        data, CODES, sequence(0x00082218, code("A1"), code("B2", "Other"), undefined=True)
    ),
    "items without length": lambda data: changed(
        data,
        CODES,
        sequence(
            0x00082218,
            item(code("A1")[8:], undefined=True),
            item(code("B2", "Other")[8:], undefined=True),
        ),
    ),
    "neither with length": lambda data: changed(
        data,
        CODES,
        sequence(
            0x00082218,
            item(code("A1")[8:], undefined=True),
            code("B2", "Other"),
            undefined=True,
        ),
    ),
    "a group length in an item": lambda data: changed(
        data,
        CODES,
        sequence(
            0x00082218,
            item(element(0x00080000, "UL", b"\1\2\3\4"), code("A1")[8:]),
            code("B2", "Other"),
        ),
    ),
}


@pytest.mark.parametrize("change", SURVIVES.values(), ids=SURVIVES)
def test_this_does_not_matter(change: Callable[[bytes], bytes]) -> None:
    assert_valid(change(signed(PLAIN)))


UNCOVERED: dict[str, Callable[[bytes], bytes]] = {
    "as it was": lambda data: data,
    "changed": lambda data: changed(data, OPEN, element(OPEN_TAG, "LO", b"anything else")),
    "of another VR": lambda data: changed(data, OPEN, element(OPEN_TAG, "UN", b"\0\1")),
    "a sequence": lambda data: changed(data, OPEN, sequence(OPEN_TAG, item(NAME))),
}


@pytest.mark.parametrize("change", UNCOVERED.values(), ids=UNCOVERED)
def test_an_uncovered_element_may_be_changed_and_is_named(
    change: Callable[[bytes], bytes],
) -> None:
    data = SOP_CLASS + SOP_INSTANCE + NAME + OPEN + STUDY + SERIES
    whole = signed(data, Order(BASE, without=(OPEN_TAG,)))
    one = assert_valid(change(whole))
    assert one.coverage.unsigned == (OPEN_TAG,)
    assert OPEN_TAG not in one.coverage.signed


def test_an_uncovered_element_may_be_removed() -> None:
    data = SOP_CLASS + SOP_INSTANCE + NAME + OPEN + STUDY + SERIES
    whole = signed(data, Order(BASE, without=(OPEN_TAG,)))
    assert assert_valid(changed(whole, OPEN, b"")).coverage.unsigned == ()


@pytest.mark.parametrize(
    "added",
    [OPEN, element(OPEN_TAG, "UN", b"ab"), sequence(OPEN_TAG, item(NAME, STUDY))],
    ids=["a text", "an unknown", "a sequence"],
)
def test_an_added_element_is_named(added: bytes) -> None:
    one = assert_valid(changed(signed(PLAIN), PATIENT_ID, PATIENT_ID + added))
    assert one.coverage.unsigned == (OPEN_TAG,)


def test_an_added_element_that_a_profile_wants_signed_ends_conformity() -> None:
    """Somebody puts an overlay over a signed image: the signature is valid, and not C.2."""
    order = Order(CREATOR)
    overlay = element(0x60000010, "US", b"\4\0") + element(0x60003000, "UN", bytes(2))
    whole = signed(PLAIN, order)
    assert "creator" in assert_valid(whole).profiles
    one = assert_valid(changed(whole, PIXELS, overlay + PIXELS))
    assert "creator" not in one.profiles
    assert "(6000,0010)" in one.shortfalls["creator"][0]
    assert "(6000,3000)" in one.shortfalls["creator"][1]


def test_file_meta_and_preamble_do_not_matter(tmp_path: Path) -> None:
    data = signed(PLAIN)
    path = tmp_path / "one.dcm"
    version = element(0x00020013, "SH", b"OTHER ")
    length = len(meta()) - 144 + len(version)
    path.write_bytes(
        b"\x49\x49\x2a\0" * 32
        + b"DICM"
        + element(0x00020000, "UL", struct.pack("<L", length))
        + meta()[144:]
        + version
        + data
    )
    assert only(verifier().verify_file(path)).valid


def test_another_signature_leaves_the_first_valid() -> None:
    whole = signed(signed(PLAIN), by=signer("bob"))
    whole = signed(whole, Order(BASE, location="(0008,2218)[2]"), by=signer("eve"))
    report = report_of(whole)
    assert [(one.location, one.valid) for one in report.signatures] == [
        ("", True),
        ("", True),
        ("(0008,2218)[2]", True),
    ]
    changed_item = whole.replace(b"Other ", b"Othex ")
    assert not any(one.valid for one in report_of(changed_item).signatures)


def test_a_signature_of_an_item_goes_with_it_only() -> None:
    """A signed item in another place is still what was signed; its location says where it is."""
    whole = signed(SOP_CLASS + SOP_INSTANCE + CODES, Order(BASE, location="(0008,2218)[1]"))
    reader = Reader(whole)
    (holder,) = [one for one in reader.level(0, len(whole)) if one.tag == 0x00082218]
    first, second = (whole[one.start : one.end] for one in reader.items(holder))
    turned = changed(whole, first + second, second + first)
    assert only(report_of(turned)).location == "(0008,2218)[2]"
    assert only(report_of(turned)).valid


# -- everything else is as it was ----------------------------------------------------------


def stripped(data: bytes) -> bytes:
    """Return a data set without the two sequences of its main level."""
    reader = Reader(data)
    return b"".join(
        data[one.start : one.end]
        for one in reader.level(0, len(data))
        if one.tag not in (0x4FFE0001, 0xFFFAFFFA)
    )


@pytest.mark.parametrize("name", ["CT_small.dcm", "JPEG2000.dcm", "rtplan.dcm", "SC_rgb_rle.dcm"])
def test_signing_a_file_changes_nothing_else(name: str) -> None:
    before = (FILES / name).read_bytes()
    once = signed_file(FILES / name)
    at = file_offset(once)
    if name == "rtplan.dcm":  # implicit VR: converted, so the header says so
        assert once[at:] != before[at:]
        before = once[:at] + stripped(once[at:])
    assert once[:at] == before[:at]
    assert stripped(once[at:]) == before[at:]
    twice = signed(once[at:], by=signer("bob"))
    assert stripped(twice) == before[at:]


# -- random data sets ----------------------------------------------------------------------

LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SV", "UC", "UN", "UR", "UT", "UV")
VRS = [*SHORT_VRS.values(), *LONG]
LETTERS = string.ascii_letters.encode()


@st.composite
def levels(draw: st.DrawFn, depth: int = 3) -> bytes:
    """Draw the elements of one level: any VR, private groups, sequences in both styles."""
    tags = st.integers(0x00080002, 0x7FDFFFFF).filter(
        lambda tag: tag & 0xFFFF and tag not in (0x4FFE0001, 0x04000561)
    )
    content = b""
    for tag in sorted(draw(st.sets(tags, max_size=5))):
        if depth and draw(st.integers(0, 2)) == 0:
            items = draw(st.lists(levels(depth - 1), max_size=3))
            encoded = [item(one, undefined=draw(st.booleans())) for one in items]
            content += sequence(tag, *encoded, undefined=draw(st.booleans()))
        elif draw(st.integers(0, 9)) == 0:
            inside = item(struct.pack("<HHL", 9, 0x1001, 2) + b"ab")  # implicit VR
            content += element(tag, "UN", length=UNDEFINED) + inside + ITEM_END[:2] + b"\xdd\xe0"
            content += bytes(4)
        else:
            value = draw(st.lists(st.sampled_from(LETTERS), max_size=8).map(bytes))
            content += element(tag, draw(st.sampled_from(VRS)), value + b"x" * (len(value) % 2))
    return content


@settings(max_examples=80)
@given(more=levels(), undefined=st.booleans(), twice=st.booleans())
def test_what_was_signed_verifies_whatever_it_is(more: bytes, undefined: bool, twice: bool) -> None:
    data = element(0x00080001, "UL", bytes(4)) + more + PIXELS
    whole = signed(data)
    one = assert_valid(whole)
    assert not one.coverage.missing
    assert not one.remarks or "(0008,0005)" in one.remarks[0]
    assert stripped(whole) == data
    if twice:
        both = signed(whole, by=signer("bob"))
        assert [one.valid for one in report_of(both).signatures] == [True, True]
        assert stripped(both) == data


@settings(max_examples=60)
@given(more=levels(2), place=st.integers(0, 1 << 30), bit=st.integers(0, 7))
def test_no_bit_of_what_was_signed_can_be_turned(more: bytes, place: int, bit: int) -> None:
    whole = signed(more + PIXELS)
    reader = Reader(whole)
    covered = [one for one in reader.level(0, len(whole)) if may_be_signed(reader, one)]
    one = covered[place % len(covered)]
    at = one.start + place % (one.end - one.start)
    spoilt = bytearray(whole)
    spoilt[at] ^= 1 << bit
    assert not valid(bytes(spoilt))


def test_a_body_is_what_comes_after_the_header() -> None:
    assert body(meta() + PLAIN) == PLAIN
