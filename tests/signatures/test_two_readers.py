"""Bytes in which another reader finds other elements than we hash.

Whoever wants an altered instance to look valid leaves every covered element where it is, for us,
and sees to it that a viewer finds something else. What readers disagree on is therefore refused.
Each attack is shown to work on a real reader first, DCMTK or pydicom.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from dicom_secure_node.elements.explicit import Reader
from dicom_secure_node.errors import InvalidDataSet
from tests.parts import run
from tests.signatures.making import (
    CODES,
    ITEM_END,
    NAME,
    PATIENT_ID,
    PIXELS,
    SEQUENCE_END,
    SERIES,
    SOP_CLASS,
    SOP_INSTANCE,
    STUDY,
    UNDEFINED,
    assert_valid,
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
    verifier,
)

HEAD = SOP_CLASS + SOP_INSTANCE
TAIL = NAME + PATIENT_ID + STUDY + SERIES + PIXELS
WHOLE = signed(HEAD + TAIL)
SIGNED_TAIL = WHOLE[len(HEAD) :]


def by_pydicom(data: bytes) -> Dataset:
    return read_dataset(io.BytesIO(data), False, True)


def by_dcmtk(data: bytes, folder: Path) -> str:
    path = folder / "one.dcm"
    path.write_bytes(meta() + data)
    return run(["dcmdump", path]).stdout


# A sequence of eight bytes, for who goes by its length; of all that follows up to the patient's
# ID, for who goes by its item's.
OVERRUN = (
    HEAD
    + element(0x00081140, "SQ", length=8)
    + struct.pack("<HHL", 0xFFFE, 0xE000, len(NAME + PATIENT_ID))
    + SIGNED_TAIL
)


def test_an_item_longer_than_its_sequence_hides_what_follows(tmp_path: Path) -> None:
    lines = by_dcmtk(OVERRUN, tmp_path).splitlines()
    assert any(line.startswith("    (0010,0010) PN [A^B]") for line in lines)  # inside the item
    assert not any(line.startswith("(0010,0010)") for line in lines)
    assert f"found length {len(NAME + PATIENT_ID)}, wanted at most 0" in refused(report_of(OVERRUN))


def test_it_is_found_behind_an_unknown_and_deeper_down() -> None:
    bad = element(0x00081140, "SQ", length=8) + struct.pack("<HHL", 0xFFFE, 0xE000, 500)
    unknown = element(0x00091001, "UN", b"ab")
    hidden = sequence(0x00081115, item(unknown), item(sequence(0x00081199, item(bad))))
    assert "found length 500" in refused(report_of(HEAD + hidden + SIGNED_TAIL))


# The length of a VR nobody knows: 32 bits and the four bytes "abcd" for us and DCMTK; for
# pydicom 16 bits, none, so that the next element begins where the length is.
FORGED = element(0x00100010, "PN", b"FORGED") + element(0x00091002, "OB", length=1 << 20)
UNKNOWN_VR = (
    HEAD
    + struct.pack("<HH2sHL", 0x0009, 0x1001, b"ZZ", 0, len(FORGED) - 4)
    + FORGED[4:]
    + SIGNED_TAIL
)


def test_a_vr_nobody_knows_shifts_what_follows() -> None:
    ours = struct.pack("<HH2sHL", 0x0009, 0x1001, b"ZZ", 0, 0x00100010)
    # For pydicom that length is the tag (0010,0010), and the value goes on with VR and length.
    data = ours + element(0x00100010, "PN", b"FORGED")[4:] + bytes(0x00100010)
    found = by_pydicom(data[: len(ours) + 10])
    assert found.get_item(0x00100010).value == b"FORGED"
    assert "found VR b'ZZ', wanted one of PS3.5" in refused(report_of(UNKNOWN_VR))


SHIFTS: dict[str, tuple[bytes, str]] = {
    "reserved bytes that are a length for old readers": (
        HEAD + struct.pack("<HH2sHL", 0x0009, 0x1001, b"OL", 4, 4) + b"abcd" + SIGNED_TAIL,
        "reserved bytes that are used",
    ),
    "reserved bytes of a covered element": (
        WHOLE.replace(PIXELS[:8], PIXELS[:6] + b"\1\0"),
        "reserved bytes that are used",
    ),
    "a VR of small letters": (
        HEAD + struct.pack("<HH2sH", 0x0009, 0x1001, b"lo", 0) + SIGNED_TAIL,
        "found VR b'lo'",
    ),
    "a VR of no letters": (
        HEAD + struct.pack("<HH2sH", 0x0009, 0x1001, b"??", 0) + SIGNED_TAIL,
        "found VR b'??'",
    ),
    "an item at the top level": (HEAD + item(NAME) + SIGNED_TAIL, "an item or delimiter"),
    "an item whose length looks like a VR": (
        HEAD + struct.pack("<HH2sH", 0xFFFE, 0xE000, b"LO", 0) + SIGNED_TAIL,
        "an item or delimiter",
    ),
    "a delimiter at the top level": (HEAD + ITEM_END + SIGNED_TAIL, "an item or delimiter"),
    "the end of a sequence at the top level": (
        HEAD + SEQUENCE_END + SIGNED_TAIL,
        "an item or delimiter",
    ),
    "a delimiter that looks like an element": (
        HEAD + struct.pack("<HH2sH", 0xFFFE, 0xE00D, b"LO", 0) + SIGNED_TAIL,
        "an item or delimiter",
    ),
    "a delimiter with a length": (
        HEAD
        + element(0x00081140, "SQ", length=UNDEFINED)
        + struct.pack("<HHL", 0xFFFE, 0xE0DD, len(NAME))
        + SIGNED_TAIL,
        f"a delimiter of length {len(NAME)}",
    ),
    "the delimiter of an item with a length": (
        HEAD
        + sequence(0x00081140, item(undefined=True)[:8] + struct.pack("<HHL", 0xFFFE, 0xE00D, 40))
        + SIGNED_TAIL,
        "a delimiter of length 40",
    ),
    "the delimiter of fragments with a length": (
        signed(HEAD + NAME + encapsulated(b"", b"abcd")).replace(
            SEQUENCE_END, SEQUENCE_END[:4] + b"\4\0\0\0"
        ),
        "a delimiter of length 4",
    ),
    "a header half outside its item": (
        HEAD
        + sequence(0x00081140, struct.pack("<HHL", 0xFFFE, 0xE000, 4) + NAME[:4])
        + SIGNED_TAIL,
        "found VR",
    ),
    "tags out of order, for who stops behind what he looks for": (
        HEAD + element(0x7FE10010, "LO", b"x ") + SIGNED_TAIL,
        "wanted ascending tags",
    ),
    "pixels behind the trailing padding": (
        WHOLE.replace(PIXELS, element(0xFFFCFFFC, "OB", bytes(8)) + PIXELS),
        "wanted ascending tags",
    ),
    "an element twice, for who takes the last": (
        HEAD + element(0x00100010, "PN", b"FORGED") + SIGNED_TAIL,
        "an element twice",
    ),
    "a transfer syntax inside the data set": (
        element(0x00020010, "UI", b"1.2.840.10008.1.2\0") + WHOLE,
        "found (0002,0010), wanted elements of a data set",
    ),
    "a command inside the data set": (
        element(0x00000100, "US", b"\1\0") + WHOLE,
        "found (0000,0100), wanted elements of a data set",
    ),
}


@pytest.mark.parametrize(("data", "words"), SHIFTS.values(), ids=SHIFTS)
def test_what_two_readers_may_read_differently_is_refused(data: bytes, words: str) -> None:
    assert_valid(WHOLE)
    assert words in refused(report_of(data))


def test_a_second_transfer_syntax_in_the_header_is_refused(tmp_path: Path) -> None:
    """The last one counts for who goes by tags, the first for who goes by the group length."""
    path = tmp_path / "one.dcm"
    path.write_bytes(meta() + element(0x00020010, "UI", b"1.2.840.10008.1.2\0") + WHOLE)
    with path.open("rb") as file:
        file.seek(132)
        length = int.from_bytes(file.read(12)[8:], "little")
        file.seek(144)
        assert b"1.2.840.10008.1.2\0" not in file.read(length)
    with pytest.warns(UserWarning, match="found explicit VR"):
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert "an element twice" in refused(verifier().verify_file(path))


@pytest.mark.parametrize(
    "data",
    [
        HEAD + TAIL + element(0x00091001, "LO", b"x "),
        HEAD + HEAD + TAIL,
        element(0x00020010, "UI", b"1.2.840.10008.1.2\0") + HEAD + TAIL,
        HEAD + CODES.replace(b"SH", b"ZZ", 1) + TAIL,
    ],
    ids=["out of order", "an element twice", "a second transfer syntax", "a VR nobody knows"],
)
def test_such_an_instance_is_not_signed_either(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(meta() + data)
    with pytest.raises(InvalidDataSet):
        signed_file(path)


@pytest.mark.parametrize("code", ["DA", "LO", "PN", "TM"])
def test_a_fragment_is_as_long_as_it_says_even_where_that_looks_like_a_vr(code: str) -> None:
    """16708 bytes are ``DA``: one JPEG frame in some thousand has such a length."""
    size = int.from_bytes(code.encode(), "little")
    # For who takes the length for a VR the fragments end with the first bytes of this one.
    frame = SEQUENCE_END + bytes(size - 8)
    data = HEAD + NAME + encapsulated(b"", frame, b"\xff\xd9")
    one = only(report_of(signed(data)))
    assert one.valid
    assert 0x7FE00010 in one.coverage.signed
    reader = Reader(data)
    (pixels,) = [e for e in reader.level(0, len(data)) if e.tag == 0x7FE00010]
    assert [end - start for start, end in reader.fragments(pixels)] == [0, size, 2]
    assert len(by_pydicom(data).get_item(0x7FE00010).value) == 8 + 8 + size + 8 + 2


CUTS: dict[str, Callable[[], bytes]] = {
    "two made one": lambda: encapsulated(b"", b"\xff\xd8AA" + b"\xfe\xff\0\xe0" + b"\xff\xd8BB"),
    "one in the offset table": lambda: encapsulated(
        b"\xfe\xff\0\xe0" + b"\xff\xd8AA", b"\xff\xd8BB"
    ),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_fragments_cut_elsewhere_are_a_remark(cut: Callable[[], bytes]) -> None:
    """The stream has no lengths of fragments, so the standard's signature cannot tell."""
    fragments = encapsulated(b"", b"\xff\xd8AA", b"\xff\xd8BB")
    whole = signed(HEAD + NAME + fragments)
    assert not any("cut elsewhere" in remark for remark in assert_valid(whole).remarks)
    one = assert_valid(whole.replace(fragments, cut()))
    assert any("(7FE0,0010)" in remark and "cut elsewhere" in remark for remark in one.remarks)
