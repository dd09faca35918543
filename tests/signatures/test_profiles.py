"""What a signature of each profile should cover."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.signatures.profiles import (
    AUTHORIZATION,
    BASE,
    CREATOR,
    DISPLAYED,
    PROFILES,
    SR,
    SR_VERIFICATION,
    Profile,
    demanded,
    named,
    tags_to_sign,
)
from dicom_secure_node.spec.sections import SECTIONS
from dicom_secure_node.spec.signatures import (
    CREATOR_VERSION_UID,
    RAW_DATA_STORAGE,
    minimum,
    never_signed,
    recommended,
)

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
TRACTOGRAPHY = "1.2.840.10008.5.1.4.1.1.66.6"

# A small CT: identifiers, one element each of several lists, and elements of none.
CHARSET, CREATED, SOP_CLASS, SOP_INSTANCE = 0x00080005, 0x00080012, 0x00080016, 0x00080018
ACQUIRED, MODALITY, MANUFACTURER, NAME = 0x00080022, 0x00080060, 0x00080070, 0x00100010
WEIGHT, KVP, SERIAL, STUDY, SERIES = 0x00101030, 0x00180060, 0x00181000, 0x0020000D, 0x0020000E
NUMBER, ROWS, OVERLAY, PIXELS = 0x00200013, 0x00280010, 0x60023000, 0x7FE00010
OWNER, PRIVATE, OTHER_OWNER, OTHER = 0x00290010, 0x00291010, 0x00290011, 0x00291110
CT = (
    *(CHARSET, CREATED, SOP_CLASS, SOP_INSTANCE, ACQUIRED, MODALITY, MANUFACTURER, NAME),
    *(WEIGHT, SERIAL, STUDY, SERIES, NUMBER, ROWS),
    *(OWNER, OTHER_OWNER, PRIVATE, OTHER, OVERLAY, PIXELS),
)
# What C.4 and the recommendations find in it, were it a report.
REPORT = {CHARSET, SOP_CLASS, ACQUIRED, MANUFACTURER, NAME, SERIAL, STUDY, SERIES, ROWS}


def test_profiles_bear_the_titles_of_the_standard() -> None:
    titles = {section.number: section.title for section in SECTIONS}
    assert {p.name: p.title for p in PROFILES.values()} == {
        p.name: titles[p.section] for p in PROFILES.values()
    }
    assert list(PROFILES) == ["base", "creator", "authorization", "sr", "sr-verification"]
    assert str(CREATOR) == "PS3.15 C.2"


SELECTIONS: dict[str, tuple[Profile, dict[str, object], set[int]]] = {
    "base covers everything": (BASE, {}, set(CT)),
    "base without a selection": (BASE, {"without": (WEIGHT, PRIVATE)}, {*CT} - {WEIGHT, PRIVATE}),
    "the creator covers its machine, the image and whose it is": (
        CREATOR,
        {},
        {*CT} - {WEIGHT, OWNER, OTHER_OWNER, PRIVATE, OTHER},
    ),
    "the creator adds what it likes": (
        CREATOR,
        {"extra": (WEIGHT,)},
        {*CT} - {OWNER, OTHER_OWNER, PRIVATE, OTHER},
    ),
    "a private element brings its owner's name": (
        CREATOR,
        {"extra": (PRIVATE,)},
        {*CT} - {WEIGHT, OTHER_OWNER, OTHER},
    ),
    "an extra that is absent is no matter": (
        CREATOR,
        {"extra": (KVP,)},
        {*CT} - {WEIGHT, OWNER, OTHER_OWNER, PRIVATE, OTHER},
    ),
    "the creator may leave out what is only recommended": (
        CREATOR,
        {"without": (NAME, ACQUIRED)},
        {*CT} - {NAME, ACQUIRED, WEIGHT, OWNER, OTHER_OWNER, PRIVATE, OTHER},
    ),
    "the creator of raw data covers every private element": (
        CREATOR,
        {"sop_class": RAW_DATA_STORAGE},
        {*CT} - {WEIGHT},
    ),
    "who approves covers what is displayed, not the machine": (
        AUTHORIZATION,
        {},
        {*CT} - {CREATED, SERIAL, WEIGHT, OWNER, OTHER_OWNER, PRIVATE, OTHER},
    ),
    "who approves can name what is displayed": (
        AUTHORIZATION,
        {"displayed": (WEIGHT,)},
        {*CT} - {CREATED, MODALITY, SERIAL, OWNER, OTHER_OWNER, PRIVATE, OTHER},
    ),
    "an unverified report leaves its UID open": (
        SR,
        {},
        REPORT,
    ),
    "a verified report does not": (
        SR_VERIFICATION,
        {},
        {*REPORT, SOP_INSTANCE},
    ),
}


@pytest.mark.parametrize(("profile", "choice", "want"), SELECTIONS.values(), ids=SELECTIONS)
def test_selection(profile: Profile, choice: dict[str, object], want: set[int]) -> None:
    found = tags_to_sign(profile, CT, **choice)  # type: ignore[arg-type]
    assert [named(tag) for tag in found] == [named(tag) for tag in sorted(want)]


def test_raw_data_is_told_by_its_creator_version_as_well() -> None:
    private_class = "1.2.826.0.1.3680043.2.1"
    present = {*CT, CREATOR_VERSION_UID}
    found = set(tags_to_sign(CREATOR, present, sop_class=private_class))
    assert found >= {OWNER, PRIVATE, OTHER_OWNER, OTHER, CREATOR_VERSION_UID}


def test_what_is_never_signed_is_left_out_although_present() -> None:
    never = {0x00080001, 0x00100000, 0x4FFE0001, 0xFFFAFFFA, 0xFFFCFFFC}
    assert tags_to_sign(BASE, {*never, ROWS}) == (ROWS,)


REFUSED: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "an extra nobody can sign": (
        {"extra": (0xFFFAFFFA,)},
        r"\(FFFA,FFFA\) Digital Signatures Sequence is an element of group FFFA, digital "
        r"signatures and cannot be signed \(PS3.3 C.12.1.1.3.1.1\)",
    ),
    "leaving out what the profile demands": (
        {"without": (ROWS,)},
        r"\(0028,0010\) Rows cannot be left out: PS3.15 C.2 demands it",
    ),
}


@pytest.mark.parametrize(("choice", "want"), REFUSED.values(), ids=REFUSED)
def test_a_selection_that_cannot_be(choice: dict[str, tuple[int, ...]], want: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{want}$"):
        tags_to_sign(CREATOR, CT, sop_class=CT_IMAGE, **choice)  # type: ignore[arg-type]


DEMANDS = {
    "Modality of a CT is not demanded": (CREATOR, CT_IMAGE, MODALITY, False),
    "of an encapsulated document it is": (CREATOR, ENCAPSULATED_PDF, MODALITY, True),
    "and of tractography": (CREATOR, TRACTOGRAPHY, MODALITY, True),
    "Series Description of a document": (CREATOR, ENCAPSULATED_PDF, 0x0008103E, True),
    "Series Description of tractography is in no list": (CREATOR, TRACTOGRAPHY, 0x0008103E, False),
    "Series Number of a document, which both lists have": (
        CREATOR,
        ENCAPSULATED_PDF,
        0x00200011,
        True,
    ),
    "who approves a document need not sign Modality": (
        AUTHORIZATION,
        ENCAPSULATED_PDF,
        MODALITY,
        False,
    ),
    "the encapsulated document itself, always": (CREATOR, CT_IMAGE, 0x00420011, True),
    "base demands nothing by name": (BASE, CT_IMAGE, SOP_CLASS, False),
    "an acquisition date is no longer demanded": (CREATOR, CT_IMAGE, ACQUIRED, False),
}


@pytest.mark.parametrize(("profile", "sop_class", "tag", "want"), DEMANDS.values(), ids=DEMANDS)
def test_demanded(profile: Profile, sop_class: str, tag: int, want: bool) -> None:
    assert (tag in demanded(profile, sop_class)) is want


LISTED = sorted(minimum("C.2").tags | minimum("C.3").tags | recommended() | {*DISPLAYED, *CT})


@given(
    profile=st.sampled_from(list(PROFILES.values())),
    present=st.sets(st.sampled_from(LISTED) | st.integers(0, 0xFFFFFFFF)),
    sop_class=st.sampled_from(["", CT_IMAGE, ENCAPSULATED_PDF, TRACTOGRAPHY, RAW_DATA_STORAGE]),
)
def test_a_selection_holds_the_minimum_and_only_what_is_there(
    profile: Profile, present: set[int], sop_class: str
) -> None:
    found = tags_to_sign(profile, present, sop_class=sop_class)
    assert list(found) == sorted(set(found))
    assert demanded(profile, sop_class) & present <= set(found) <= present
    assert not any(map(never_signed, found))
