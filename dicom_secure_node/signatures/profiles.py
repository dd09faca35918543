"""The Digital Signature Profiles of PS3.15 Annex C, and what a signature of each should cover.

Pure functions over tags; no data set is read here.

`tags_to_sign` and `demanded` lean different ways on purpose. A signer covers more than the
minimum, so that checkers of older editions agree. A checker, `conformity`, demands the minimum of
2024e and not more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from pydicom.datadict import dictionary_description

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.spec.signatures import (
    CREATOR_VERSION_UID,
    RAW_DATA_STORAGE,
    WIDE_CLASSES,
    Section,
    minimum,
    never_signed,
    recommended,
)

ProfileName = Literal["base", "creator", "authorization", "sr", "sr-verification"]


@dataclass(frozen=True)
class Profile:
    """One Digital Signature Profile.

    Attributes
    ----------
    name : str
        In configuration files and on the command line.
    section : str
        Of PS3.15, e.g. ``"C.2"``.
    title : str
        As the standard prints it.
    list_of : str or None
        Which minimum list of `spec.signatures`; None for C.1, which has none.
    raw_data : bool
        Private elements count as well where the instance has the Raw Data Module.
    person_approves : bool
        What the approving person could see is signed too.
    documents_only : bool
        For SR documents and Key Object Selection only.
    verified : bool
        Verification Flag (0040,A493) has to be VERIFIED.
    """

    name: ProfileName
    section: str
    title: str
    list_of: Section | None = None
    raw_data: bool = False
    person_approves: bool = False
    documents_only: bool = False
    verified: bool = False

    def __str__(self) -> str:
        return f"PS3.15 {self.section}"


# fmt: off
BASE = Profile("base", "C.1", "Base RSA Digital Signature Profile")
CREATOR = Profile(
    "creator", "C.2", "Creator RSA Digital Signature Profile", "C.2",
    raw_data=True,
)
AUTHORIZATION = Profile(
    "authorization", "C.3", "Authorization RSA Digital Signature Profile", "C.3",
    raw_data=True, person_approves=True,
)
SR = Profile(
    "sr", "C.4", "Structured Report RSA Digital Signature Profile", "C.4",
    documents_only=True,
)
SR_VERIFICATION = Profile(
    "sr-verification", "C.4", "Structured Report RSA Digital Signature Profile", "C.4-verified",
    documents_only=True, verified=True,
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {profile.name: profile for profile in (BASE, CREATOR, AUTHORIZATION, SR, SR_VERIFICATION)}
)

# C.3 leaves it to the application which attributes the approving person can verify. These are
# what a viewer usually shows beside the image.
DISPLAYED = (
    0x00080020,  # Study Date
    0x00080021,  # Series Date
    0x00080030,  # Study Time
    0x00080031,  # Series Time
    0x00080050,  # Accession Number
    0x00080060,  # Modality
    0x00080080,  # Institution Name
    0x00081030,  # Study Description
    0x0008103E,  # Series Description
    0x00100010,  # Patient's Name
    0x00100020,  # Patient ID
    0x00100030,  # Patient's Birth Date
    0x00100040,  # Patient's Sex
    0x00101010,  # Patient's Age
    0x00180015,  # Body Part Examined
    0x00185100,  # Patient Position
    0x00185101,  # View Position
    0x00200010,  # Study ID
    0x00200011,  # Series Number
    0x00200020,  # Patient Orientation
    0x00200060,  # Laterality
    0x00200062,  # Image Laterality
)
# fmt: on


def tags_to_sign(
    profile: Profile,
    present: Collection[int],
    *,
    sop_class: str = "",
    extra: Collection[int] = (),
    without: Collection[int] = (),
    displayed: Collection[int] = DISPLAYED,
) -> tuple[int, ...]:
    """Return what a signature of `profile` should list as Data Elements Signed (0400,0020).

    Parameters
    ----------
    profile : Profile
        C.1 has no list of its own: every element is signed.
    present : collection of int
        Tags of the main data set that are present and whose VR may be signed. Whether the
        minimum is complete is for `conformity.missing_for` to say.
    sop_class : str
        UID of the instance.
    extra : collection of int
        Tags to sign as well, where they are present.
    without : collection of int
        Tags to leave alone.
    displayed : collection of int
        Tags the approving person can see the value of (C.3 only).

    Returns
    -------
    tuple of int
        Ascending.

    Raises
    ------
    ConfigurationError
        `extra` names what no signature covers, or `without` what the profile demands.

    References
    ----------
    PS3.15 C.1 to C.4; PS3.3 C.12.1.1.3.1.1
    """
    for tag in sorted(extra):
        if what := never_signed(tag):
            raise ConfigurationError(
                f"{named(tag)} is {what} and cannot be signed (PS3.3 C.12.1.1.3.1.1)"
            )
    for tag in sorted(demanded(profile, sop_class).intersection(without)):
        raise ConfigurationError(f"{named(tag)} cannot be left out: {profile} demands it")
    there = {tag for tag in present if never_signed(tag) is None}
    chosen = there & _wanted(profile, there, sop_class, displayed) | there.intersection(extra)
    # A private element means nothing without the name of the block's owner (PS3.5 7.8.1).
    chosen |= there.intersection(_private_creator(tag) for tag in chosen if is_private(tag))
    return tuple(sorted(chosen.difference(without)))


@lru_cache(maxsize=256)
def demanded(profile: Profile, sop_class: str) -> frozenset[int]:
    """Return the tags a checker wants signed, where they are present.

    The series attributes of C.2 are left out except where C.2 can only mean them
    (`spec.signatures.WIDE_CLASSES`).
    """
    if profile.list_of is None:
        return frozenset()
    listed = minimum(profile.list_of)
    meant = {name for name in listed.wide if sop_class in WIDE_CLASSES[name]}
    waived = (listed.wide[name] for name in listed.wide.keys() - meant)
    return listed.tags.difference(*waived).union(*(listed.wide[name] for name in meant))


def has_raw_data(sop_class: str, present: Collection[int]) -> bool:
    """Tell whether the instance has the Raw Data Module."""
    return sop_class == RAW_DATA_STORAGE or CREATOR_VERSION_UID in present


def is_private(tag: int) -> bool:
    """Tell whether the group is odd (PS3.5 7.8)."""
    return bool(tag >> 16 & 1)


def named(tag: int) -> str:
    """Return ``(GGGG,EEEE) Name``; the number alone where the dictionary has no name."""
    number = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    try:
        return f"{number} {dictionary_description(tag)}"
    except KeyError:
        return number


def _wanted(
    profile: Profile, there: set[int], sop_class: str, displayed: Collection[int]
) -> frozenset[int]:
    """Return what `profile` calls for, and what a careful signer adds."""
    if profile.list_of is None:
        return frozenset(there)
    wanted = minimum(profile.list_of).tags | recommended()
    if profile.person_approves:
        wanted |= frozenset(displayed)
    if profile.raw_data and has_raw_data(sop_class, there):
        wanted |= frozenset(filter(is_private, there))
    return wanted


def _private_creator(tag: int) -> int:
    """Return the tag of the block's owner; (gggg,1000) to (gggg,10FF) belong to (gggg,0010)."""
    return tag & 0xFFFF0000 | (tag & 0xFFFF) >> 8
