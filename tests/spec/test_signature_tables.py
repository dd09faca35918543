"""The tables of PS3.15 Annex C: their size, a few rows, and who else says the same."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag

from dicom_secure_node.spec import sections, signatures
from dicom_secure_node.spec.signatures import (
    ASTM_SIGPURPOSE,
    CREATOR_VERSION_UID,
    MAC_ALGORITHMS,
    OUTSIDE_MAC,
    PURPOSES,
    RAW_DATA_STORAGE,
    SR_CLASSES,
    VERIFICATION,
    WIDE_CLASSES,
    MacAlgorithm,
    Section,
    minimum,
    modules,
    never_signed,
    recommended,
    tables,
)
from tests.certs import key_pem, make_key
from tests.parts import run

# Entries of the printed list, tags written by them, different tags with repeating groups as masks,
# and different tags with those groups written out.
COUNTS: dict[Section, tuple[int, int, int, int]] = {
    "C.2": (43, 667, 386, 821),
    "C.3": (39, 623, 366, 801),
    "C.4": (8, 53, 52, 52),
    "C.4-verified": (11, 56, 55, 55),
}


def _written(section: Section) -> list[str]:
    names = tables()["profiles"][section]["modules"]
    return [tag for name in names for tag in tables()["modules"][name]["tags"]]


def test_the_file_says_where_it_is_from() -> None:
    assert (tables()["standard"], tables()["edition"]) == ("DICOM PS3.15", "2024e")
    assert tables()["section"] == "Annex C"
    assert tables()["command"].startswith(".ci/make_signature_tables.py ")
    assert (Path(__file__).parents[2] / ".ci/make_signature_tables.py").exists()


@pytest.mark.parametrize("section", COUNTS)
def test_every_row_is_there(section: Section) -> None:
    written, listed = _written(section), minimum(section)
    found = (len(listed.modules), len(written), len(set(written)), len(listed.tags))
    assert found == COUNTS[section]


@pytest.mark.parametrize("section", COUNTS)
def test_what_has_to_be_present_is_in_the_list(section: Section) -> None:
    unconditional = minimum(section).unconditional
    assert minimum(section).tags.issuperset(unconditional)
    assert len(unconditional) == len(tables()["profiles"][section]["unconditional"])


def test_every_tag_has_keyword_and_VR_and_none_is_left_over() -> None:
    tags = {tag for row in tables()["modules"].values() for tag in row["tags"]}
    assert tags == set(tables()["attributes"])
    assert len(tags) == 421
    assert len(tables()["modules"]) == 57


def test_tags_are_what_pydicom_says_they_are() -> None:
    found = [
        (text, keyword_for_tag(tag), dictionary_VR(tag))
        for text, row in tables()["attributes"].items()
        for tag in signatures._tags(text)
        if [keyword_for_tag(tag), dictionary_VR(tag)] != row
    ]
    # pydicom tells this retired one from (0008,1130).
    assert set(found) == {("(50xx,2600)", "CurveReferencedOverlaySequence", "SQ")}


def test_tags_of_a_module_ascend_and_stand_once() -> None:
    for tags in modules().values():
        assert list(tags) == sorted(set(tags))


def test_no_listed_tag_is_one_that_is_never_signed() -> None:
    listed = frozenset[int]().union(*(minimum(section).tags for section in COUNTS))
    assert [hex(tag) for tag in listed | recommended() if never_signed(tag)] == []
    assert [hex(tag) for tag in listed | recommended() if tag >> 16 & 1] == []


ROWS = {
    "Pixel Data is an attribute of one module": ("C.2", 0x7FE00010, ("Image Pixel Module",)),
    "Content Date is one of many": ("C.2", 0x00080023, 8),
    "the last overlay group counts": ("C.2", 0x601E3000, ("Overlay Plane Module",)),
    "an odd overlay group does not": ("C.2", 0x60013000, None),
    "nor one above 601E": ("C.3", 0x60203000, None),
    "a curve's data": ("C.3", 0x501E3000, ("Curve Module (retired)",)),
    "the creator signs its serial number": ("C.2", 0x00181000, ("General Equipment Module",)),
    "the approving person does not": ("C.3", 0x00181000, None),
    "spectroscopy data by C.3": ("C.3", 0x56000020, ("MR Spectroscopy Data Module",)),
    "spectroscopy data not by C.2": ("C.2", 0x56000020, None),
    "an unverified report leaves its UID open": ("C.4", 0x00080018, None),
    "a verified one does not": ("C.4-verified", 0x00080018, ("SOP Instance UID",)),
    "who verified": ("C.4-verified", 0x0040A073, ("Verifying Observer Sequence",)),
    "Verification DateTime is nested": ("C.4-verified", 0x0040A030, None),
    "observation time stands twice": (
        "C.4",
        0x0040A032,
        ("Observation DateTime", "SR Document Content Module"),
    ),
}


@pytest.mark.parametrize(("section", "tag", "want"), ROWS.values(), ids=ROWS)
def test_a_row(section: Section, tag: int, want: tuple[str, ...] | int | None) -> None:
    found = minimum(section).of_tag.get(tag)
    assert (len(found or ()) if isinstance(want, int) else found) == want


def test_purposes_that_are_demanded() -> None:
    found = {s: (minimum(s).purpose_required, minimum(s).purpose) for s in COUNTS}
    assert found == {
        "C.2": (False, None),
        "C.3": (False, None),
        "C.4": (True, None),
        "C.4-verified": (True, VERIFICATION),
    }


def test_the_wide_reading_is_of_series_attributes_no_other_module_has() -> None:
    wide = minimum("C.2").wide
    assert set(wide) == set(WIDE_CLASSES)
    assert wide["Tractography Results Series Module"] == {0x00080060, 0x00081111, 0x00200011}
    encapsulated = wide["Encapsulated Document Series Module"]
    assert len(encapsulated) == 18
    assert 0x0020000E not in encapsulated  # Series Instance UID: demanded of everybody
    assert all(minimum(section).wide == {} for section in COUNTS if section != "C.2")


def test_what_is_recommended() -> None:
    assert len(recommended()) == 40
    later = {0x00080022, 0x0008002A, 0x00200012}  # dcmsign's lists of 2019 demand these
    assert later | {0x00100020, 0x00080005, 0x7FE00008} <= recommended()


def test_titles_are_those_of_the_list_of_sections() -> None:
    titles = {section.number: section.title for section in sections.SECTIONS}
    for number in ("C.2", "C.3", "C.4"):
        assert minimum(number).title == titles[number]


NEVER = {
    "Length to End": (0x00080001, "Length to End"),
    "a group length": (0x00100000, "a group length"),
    "a group length of pixel data": (0x7FE00000, "a group length"),
    "a command element": (0x00000002, "an element of a group below 0008"),
    "a file meta element": (0x00020010, "an element of a group below 0008"),
    "a directory element": (0x00041430, "an element of a group below 0008"),
    "a private group below 0008": (0x00070010, "an element of a group below 0008"),
    "Digital Signatures Sequence": (0xFFFAFFFA, "an element of group FFFA, digital signatures"),
    "anything else of its group": (0xFFFA0010, "an element of group FFFA, digital signatures"),
    "MAC Parameters Sequence": (0x4FFE0001, "MAC Parameters Sequence"),
    "Data Set Trailing Padding": (0xFFFCFFFC, "Data Set Trailing Padding"),
    "an item": (0xFFFEE000, "an item or delimiter"),
    "an item's end": (0xFFFEE00D, "an item or delimiter"),
    "a sequence's end": (0xFFFEE0DD, "an item or delimiter"),
    "the first tag that may be signed": (0x00080005, None),
    "a private element": (0x00091010, None),
    "a neighbour of MAC Parameters": (0x4FFE0002, None),
    "a neighbour of the padding": (0xFFFC0010, None),
}


@pytest.mark.parametrize(("tag", "want"), NEVER.values(), ids=NEVER)
def test_what_is_never_signed(tag: int, want: str | None) -> None:
    assert never_signed(tag) == want


def test_what_stays_outside_the_MAC_of_the_signature_s_own_item() -> None:
    found = {keyword_for_tag(tag) for tag in OUTSIDE_MAC}
    assert found == {
        "CertificateOfSigner",
        "Signature",
        "CertifiedTimestampType",
        "CertifiedTimestamp",
    }


def test_classes_are_those_pydicom_knows() -> None:
    classes = {uid: row[0] for uid, row in UID_dictionary.items() if row[1] == "SOP Class"}
    documents = {
        uid
        for uid, name in classes.items()
        if re.search(r"\bSR Storage|Key Object Selection Document Storage|Procedure Log", name)
    }
    assert documents == {uid for uid in classes if uid.startswith(SR_CLASSES)}
    assert WIDE_CLASSES["Encapsulated Document Series Module"] == {
        uid for uid, name in classes.items() if re.match(r"Encapsulated \w+ Storage", name)
    }
    (tractography,) = WIDE_CLASSES["Tractography Results Series Module"]
    assert classes[tractography] == "Tractography Results Storage"
    assert classes[RAW_DATA_STORAGE] == "Raw Data Storage"
    assert keyword_for_tag(CREATOR_VERSION_UID) == "CreatorVersionUID"


def test_six_algorithms_are_within_C_1_and_three_of_them_weak() -> None:
    assert len(MAC_ALGORITHMS) == 13
    base = [row.term for row in MAC_ALGORITHMS.values() if row.base]
    assert base == ["RIPEMD160", "MD5", "SHA1", "SHA256", "SHA384", "SHA512"]
    assert [row.term for row in MAC_ALGORITHMS.values() if row.weak] == base[:3]


@pytest.mark.parametrize("row", MAC_ALGORITHMS.values(), ids=MAC_ALGORITHMS)
def test_what_openssl_signs_is_the_prefix_and_the_hash(row: MacAlgorithm, tmp_path: Path) -> None:
    key = make_key("rsa")
    assert isinstance(key, RSAPrivateKey)
    pem, message, value = tmp_path / "key.pem", tmp_path / "message", tmp_path / "signature"
    pem.write_bytes(key_pem(key))
    message.write_bytes(b"eleven bytes")
    name = row.hashlib.replace("_", "-")
    run(["openssl", "dgst", f"-{name}", "-sign", pem, "-out", value, message], check=True)
    signed = key.public_key().recover_data_from_signature(
        value.read_bytes(), padding.PKCS1v15(), None
    )
    digest = hashlib.new(row.hashlib, message.read_bytes()).digest()
    assert signed == row.digest_info + digest
    assert len(digest) == row.size


def test_purposes_are_those_of_dcmsign() -> None:
    said = run(["dcmsign", "+lp"]).stdout
    assert dict(re.findall(r"^ +(\d+): (.+)$", said, re.MULTILINE)) == PURPOSES
    assert list(PURPOSES) == [str(code) for code in range(1, 19)]
    assert VERIFICATION == ("5", ASTM_SIGPURPOSE) == ("5", "ASTM-sigpurpose")
