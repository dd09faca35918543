"""Whether a signature meets a profile, and why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from dicom_secure_node.signatures.conformity import (
    MAX_REASONS,
    SignedFacts,
    missing_for,
    missing_for_document,
    profiles_met,
    remarks_for,
)
from dicom_secure_node.signatures.profiles import (
    AUTHORIZATION,
    BASE,
    CREATOR,
    PROFILES,
    SR,
    SR_VERIFICATION,
    Profile,
)
from dicom_secure_node.spec.signatures import RAW_DATA_STORAGE, VERIFICATION, minimum

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"

CHARSET, SOP_CLASS, SOP_INSTANCE, MODALITY = 0x00080005, 0x00080016, 0x00080018, 0x00080060
STUDY, SERIES, ROWS, PIXELS = 0x0020000D, 0x0020000E, 0x00280010, 0x7FE00010
MANUFACTURER, PRIVATE, CONTENT = 0x00080070, 0x00291010, 0x0040A730
FLAG, OBSERVERS = 0x0040A493, 0x0040A073

_IMAGE = frozenset(
    {CHARSET, SOP_CLASS, SOP_INSTANCE, MODALITY, MANUFACTURER, STUDY, SERIES, ROWS, PIXELS}
)
_REPORT = frozenset(
    {CHARSET, SOP_CLASS, SOP_INSTANCE, STUDY, SERIES, CONTENT, FLAG, OBSERVERS, MANUFACTURER}
)

# Everything present is signed, and everything about the signature is in order.
IMAGE = SignedFacts(
    signed=_IMAGE,
    present=_IMAGE,
    at_top_level=True,
    algorithm="SHA256",
    transfer_syntax="1.2.840.10008.1.2.1",
    certificate_type="X509_1993_SIG",
    key_is_rsa=True,
    purpose=None,
    sop_class=CT_IMAGE,
    verification_flag="",
    verifying_observers=0,
    reference_algorithms=frozenset(),
)
VERIFIED = dataclasses.replace(
    IMAGE,
    signed=_REPORT,
    present=_REPORT,
    purpose=("5", "ASTM-sigpurpose"),
    sop_class=BASIC_TEXT_SR,
    verification_flag="VERIFIED",
    verifying_observers=1,
    reference_algorithms=frozenset({"SHA256", "MD5"}),
)
# As C.4 has it: what the verification may still change is left open.
UNVERIFIED = dataclasses.replace(
    VERIFIED,
    signed=_REPORT - {SOP_INSTANCE, FLAG, OBSERVERS},
    purpose=("1", "ASTM-sigpurpose"),
    verification_flag="UNVERIFIED",
    verifying_observers=0,
)


def unsigned(facts: SignedFacts, *tags: int) -> dict[str, Any]:
    """Return the change that takes `tags` out of the signature."""
    return {"signed": facts.signed.difference(tags)}


ALL_IMAGE = ("base", "creator", "authorization")
ALL_SR = ("base", "creator", "authorization", "sr", "sr-verification")

MET: dict[str, tuple[SignedFacts, dict[str, Any], tuple[str, ...]]] = {
    "a whole image is signed": (IMAGE, {}, ALL_IMAGE),
    "a purpose changes nothing": (IMAGE, {"purpose": VERIFICATION}, ALL_IMAGE),
    "pixels are left open": (IMAGE, unsigned(IMAGE, PIXELS), ("base",)),
    "the equipment is left open, which nobody approves": (
        IMAGE,
        {"present": _IMAGE | {0x00181000}},
        ("base", "authorization"),
    ),
    "Modality is left open in an image": (IMAGE, unsigned(IMAGE, MODALITY), ALL_IMAGE),
    "Modality is left open in a document": (
        IMAGE,
        {**unsigned(IMAGE, MODALITY), "sop_class": ENCAPSULATED_PDF},
        ("base", "authorization"),
    ),
    "pixels are of VR UN": (
        IMAGE,
        {**unsigned(IMAGE, PIXELS), "unsignable": frozenset({PIXELS})},
        ("base",),
    ),
    "the instance has no Series Instance UID": (
        IMAGE,
        {"present": _IMAGE - {SERIES}, **unsigned(IMAGE, SERIES)},
        ("base",),
    ),
    "only one element is signed": (IMAGE, {"signed": frozenset({ROWS})}, ("base",)),
    "nothing is signed that is there": (IMAGE, {"signed": frozenset()}, ()),
    "the signature stands in an item": (IMAGE, {"at_top_level": False}, ("base",)),
    "MD5 is one of the six": (IMAGE, {"algorithm": "MD5"}, ALL_IMAGE),
    "RIPEMD160 is one of the six": (IMAGE, {"algorithm": "RIPEMD160"}, ALL_IMAGE),
    "SHA3_256 is not": (IMAGE, {"algorithm": "SHA3_256"}, ()),
    "nor is an unknown hash": (IMAGE, {"algorithm": "sha256"}, ()),
    "the key is of an elliptic curve": (IMAGE, {"key_is_rsa": False}, ()),
    "another certificate type": (IMAGE, {"certificate_type": "PGP"}, ()),
    "the MAC is of Implicit VR": (IMAGE, {"transfer_syntax": "1.2.840.10008.1.2"}, ()),
    "the MAC is of big endian": (IMAGE, {"transfer_syntax": "1.2.840.10008.1.2.2"}, ()),
    "the MAC is of JPEG": (IMAGE, {"transfer_syntax": "1.2.840.10008.1.2.4.50"}, ALL_IMAGE),
    "the MAC is of no syntax": (IMAGE, {"transfer_syntax": ""}, ()),
    "a verified report": (VERIFIED, {}, ALL_SR),
    "a verified report, signed by its author": (
        VERIFIED,
        {"purpose": ("1", "ASTM-sigpurpose")},
        ALL_SR[:4],
    ),
    "purpose 5 of another scheme": (VERIFIED, {"purpose": ("5", "99LOCAL")}, ALL_SR[:4]),
    "no purpose": (VERIFIED, {"purpose": None}, ALL_SR[:3]),
    "the flag says UNVERIFIED": (VERIFIED, {"verification_flag": "UNVERIFIED"}, ALL_SR[:4]),
    "who verified is left open": (VERIFIED, unsigned(VERIFIED, OBSERVERS), ("base", "sr")),
    "the report's UID is left open": (VERIFIED, unsigned(VERIFIED, SOP_INSTANCE), ("base", "sr")),
    "the content is left open": (VERIFIED, unsigned(VERIFIED, CONTENT), ("base",)),
    "two Verifying Observers": (VERIFIED, {"verifying_observers": 2}, ALL_SR[:3]),
    "a reference by a hash outside the six": (
        VERIFIED,
        {"reference_algorithms": frozenset({"SHA224"})},
        ALL_SR[:3],
    ),
    "an image with every attribute of a report": (
        VERIFIED,
        {"sop_class": CT_IMAGE},
        ALL_SR[:3],
    ),
    "a report signed in an item": (VERIFIED, {"at_top_level": False}, ("base",)),
    "an unverified report": (UNVERIFIED, {}, ("base", "sr")),
}


@pytest.mark.parametrize(("facts", "change", "want"), MET.values(), ids=MET)
def test_profiles_met(facts: SignedFacts, change: dict[str, Any], want: tuple[str, ...]) -> None:
    changed = dataclasses.replace(facts, **change)
    assert profiles_met(changed) == want
    assert tuple(name for name, p in PROFILES.items() if not missing_for(p, changed)) == want


REASONS: dict[str, tuple[Profile, SignedFacts, dict[str, Any], str]] = {
    "an element is open": (
        CREATOR,
        IMAGE,
        unsigned(IMAGE, PIXELS),
        "(7FE0,0010) Pixel Data is present and not signed (Image Pixel, PS3.15 C.2)",
    ),
    "an element of two modules is open": (
        AUTHORIZATION,
        IMAGE,
        unsigned(IMAGE, ROWS),
        "(0028,0010) Rows is present and not signed (Image Pixel/MR Spectroscopy Data, PS3.15 C.3)",
    ),
    "an element of several modules is open": (
        CREATOR,
        IMAGE,
        {"present": _IMAGE | {0x00280002}},
        "(0028,0002) Samples per Pixel is present and not signed "
        "(Image Pixel/Enhanced MR Image/..., PS3.15 C.2)",
    ),
    "an element of an overlay is open": (
        CREATOR,
        IMAGE,
        {"present": _IMAGE | {0x60023000}},
        "(6002,3000) Overlay Data is present and not signed (Overlay Plane, PS3.15 C.2)",
    ),
    "an element cannot be signed": (
        SR,
        UNVERIFIED,
        {**unsigned(UNVERIFIED, CONTENT), "unsignable": frozenset({CONTENT})},
        "(0040,A730) Content Sequence cannot be signed, being or holding an element of VR UN "
        "(SR Document Content, PS3.15 C.4)",
    ),
    "an element is absent": (
        CREATOR,
        IMAGE,
        {"present": _IMAGE - {SERIES}, **unsigned(IMAGE, SERIES)},
        "(0020,000E) Series Instance UID is absent (PS3.15 C.2)",
    ),
    "the place is wrong": (
        CREATOR,
        IMAGE,
        {"at_top_level": False, "signed": frozenset({ROWS}), "present": frozenset({ROWS, PIXELS})},
        "the signature stands in a sequence item, not in the main data set (PS3.15 C.2)",
    ),
    "the hash is outside": (
        BASE,
        IMAGE,
        {"algorithm": "SHA224"},
        "MAC Algorithm is 'SHA224', want one of RIPEMD160 MD5 SHA1 SHA256 SHA384 SHA512 "
        "(PS3.15 C.1)",
    ),
    "the syntax is implicit": (
        BASE,
        IMAGE,
        {"transfer_syntax": "1.2.840.10008.1.2"},
        "MAC Calculation Transfer Syntax UID is '1.2.840.10008.1.2', want one of Explicit VR "
        "Little Endian (PS3.3 C.12.1.1.3)",
    ),
    "the certificate type is foreign, long and unprintable": (
        BASE,
        IMAGE,
        {"certificate_type": "\x1b" + "A" * 9000},
        f"Certificate Type is '\\x1b{'A' * 63}'..., want X509_1993_SIG (PS3.15 C.1)",
    ),
    "the key is no RSA key": (
        BASE,
        IMAGE,
        {"key_is_rsa": False},
        "the signer's key is no RSA key (PS3.15 C.1)",
    ),
    "nothing is signed": (
        BASE,
        IMAGE,
        {"signed": frozenset()},
        "nothing that is present is signed (PS3.3 C.12.1.1.3)",
    ),
    "there is no purpose": (
        SR_VERIFICATION,
        VERIFIED,
        {"purpose": None},
        "the signature states no purpose (PS3.15 C.4)",
    ),
    "the purpose is another": (
        SR_VERIFICATION,
        VERIFIED,
        {"purpose": ("1", "ASTM-sigpurpose")},
        "the signature's purpose is ('1', 'ASTM-sigpurpose'), want ('5', 'ASTM-sigpurpose') "
        "(PS3.15 C.4)",
    ),
    "the flag is another": (
        SR_VERIFICATION,
        VERIFIED,
        {"verification_flag": ""},
        "Verification Flag is '', want VERIFIED (PS3.15 C.4)",
    ),
    "it is no document": (
        SR,
        UNVERIFIED,
        {"sop_class": CT_IMAGE},
        "neither an SR document nor a Key Object Selection (PS3.15 C.4)",
    ),
    "two verified it": (
        SR,
        UNVERIFIED,
        {"verifying_observers": 2},
        "2 Verifying Observers, want at most one (PS3.15 C.4)",
    ),
    "a reference has another hash": (
        SR,
        UNVERIFIED,
        {"reference_algorithms": frozenset({"SHA3_256", "SHA1"})},
        "the MAC of a referenced instance is by 'SHA3_256' (PS3.15 C.4)",
    ),
}


@pytest.mark.parametrize(("profile", "facts", "change", "want"), REASONS.values(), ids=REASONS)
def test_the_only_reason(
    profile: Profile, facts: SignedFacts, change: dict[str, Any], want: str
) -> None:
    assert missing_for(profile, dataclasses.replace(facts, **change)) == (want,)


def test_reasons_are_bounded_and_the_rest_is_counted() -> None:
    facts = dataclasses.replace(IMAGE, present=minimum("C.2").tags, signed=frozenset({ROWS}))
    found = missing_for(CREATOR, facts)
    assert len(found) == MAX_REASONS + 1
    # 821 tags, less the 18 series attributes of the wide reading and Rows.
    assert found[-1] == f"... and {821 - 18 - 1 - MAX_REASONS} more"


DOCUMENTS: dict[str, tuple[Sequence[SignedFacts], tuple[str, ...]]] = {
    "an unverified report with its author's signature": ((UNVERIFIED,), ()),
    "a verified report with a verification signature": ((VERIFIED,), ()),
    "a creator's signature beside it does no harm": (
        (dataclasses.replace(VERIFIED, purpose=None), VERIFIED),
        (),
    ),
    "no signature": ((), ("the document has no digital signature (PS3.15 C.4)",)),
    "a verified report with its author's signature only": (
        (dataclasses.replace(VERIFIED, purpose=("1", "ASTM-sigpurpose")),),
        (
            "the signature's purpose is ('1', 'ASTM-sigpurpose'), "
            "want ('5', 'ASTM-sigpurpose') (PS3.15 C.4)",
        ),
    ),
    "the signature that comes closest is explained": (
        (
            dataclasses.replace(VERIFIED, signed=frozenset({CONTENT}), purpose=None),
            dataclasses.replace(VERIFIED, signed=_REPORT - {OBSERVERS}),
        ),
        (
            "(0040,A073) Verifying Observer Sequence is present and not signed "
            "(Verifying Observer Sequence, PS3.15 C.4)",
        ),
    ),
    "the only signature stands in an item": (
        (dataclasses.replace(UNVERIFIED, at_top_level=False),),
        ("the signature stands in a sequence item, not in the main data set (PS3.15 C.4)",),
    ),
}


@pytest.mark.parametrize(("signatures", "want"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_documents(signatures: Sequence[SignedFacts], want: tuple[str, ...]) -> None:
    assert missing_for_document(signatures) == want


REMARKS: dict[str, tuple[Profile, dict[str, Any], tuple[str, ...]]] = {
    "nothing to remark": (CREATOR, {}, ()),
    "a weak hash": (BASE, {"algorithm": "SHA1"}, ("SHA1 is too weak for new signatures",)),
    "a series attribute of an image": (
        CREATOR,
        unsigned(IMAGE, MODALITY),
        (
            "(0008,0060) Modality is not signed; PS3.15 C.2, read to the letter, wants it in "
            "every instance (Encapsulated Document Series/Tractography Results Series)",
        ),
    ),
    "which is no matter to the base profile": (BASE, unsigned(IMAGE, MODALITY), ()),
    "nor to who approves": (AUTHORIZATION, unsigned(IMAGE, MODALITY), ()),
    "the character set is open": (
        BASE,
        unsigned(IMAGE, CHARSET),
        (
            "(0008,0005) Specific Character Set is not signed: signed text can change its "
            "meaning",
        ),
    ),
    "raw data are open": (
        CREATOR,
        {"present": _IMAGE | {PRIVATE}, "sop_class": RAW_DATA_STORAGE},
        ("1 private elements are not signed, and they may be the raw data",),
    ),
    "private elements of an image are open": (CREATOR, {"present": _IMAGE | {PRIVATE}}, ()),
    "an item's own text": (BASE, {**unsigned(IMAGE, CHARSET), "at_top_level": False}, ()),
}  # fmt: skip


@pytest.mark.parametrize(("profile", "change", "want"), REMARKS.values(), ids=REMARKS)
def test_remarks(profile: Profile, change: dict[str, Any], want: tuple[str, ...]) -> None:
    facts = dataclasses.replace(IMAGE, **change)
    assert remarks_for(profile, facts) == want
    assert missing_for(profile, facts) == ()
