"""What a signature lacks that a profile of PS3.15 Annex C demands.

`missing_for` asks for the minimum of edition 2024e and not more; what else is worth a word is in
`remarks_for`. Each answer is a few lines a person can read. Whether a signature is mathematically
valid, and whom to trust, is not asked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dicom_secure_node.elements.syntax import encoding_of
from dicom_secure_node.signatures.profiles import (
    BASE,
    PROFILES,
    SR,
    SR_VERIFICATION,
    Profile,
    ProfileName,
    demanded,
    has_raw_data,
    is_private,
    named,
)
from dicom_secure_node.spec.signatures import (
    MAC_ALGORITHMS,
    SR_CLASSES,
    X509_CERTIFICATE_TYPE,
    Purpose,
    minimum,
)

MAX_REASONS = 8
MAX_SHOWN = 64  # characters of a foreign value in a reason
SPECIFIC_CHARACTER_SET = 0x00080005


@dataclass(frozen=True, kw_only=True)
class SignedFacts:
    """What is known of one signature and of the level it stands at. Values carry no padding.

    Attributes
    ----------
    signed : frozenset of int
        Tags the signature lists that are present.
    present : frozenset of int
        Every tag at that level.
    unsignable : frozenset of int
        Those of `present` that no signature covers because of their VR: UN, or a sequence
        holding UN.
    at_top_level : bool
        The signature stands in the data set itself, not in a sequence item.
    algorithm : str
        MAC Algorithm (0400,0015).
    transfer_syntax : str
        MAC Calculation Transfer Syntax UID (0400,0010).
    certificate_type : str
        Certificate Type (0400,0110).
    key_is_rsa : bool
        The certificate holds an RSA key.
    purpose : tuple of str or None
        Code Value and Coding Scheme Designator; None where the signature states no purpose.
    sop_class : str
        UID, of the whole instance.
    verification_flag : str
        (0040,A493) of the main data set; empty where it is absent.
    verifying_observers : int
        Items of Verifying Observer Sequence (0040,A073).
    reference_algorithms : frozenset of str
        MAC Algorithm of each Referenced SOP Instance MAC Sequence (0400,0403).
    """

    signed: frozenset[int]
    present: frozenset[int]
    unsignable: frozenset[int] = frozenset()
    at_top_level: bool
    algorithm: str
    transfer_syntax: str
    certificate_type: str
    key_is_rsa: bool
    purpose: tuple[str, str] | None
    sop_class: str
    verification_flag: str
    verifying_observers: int
    reference_algorithms: frozenset[str]


def missing_for(profile: Profile, facts: SignedFacts) -> tuple[str, ...]:
    """Return why a signature does not meet `profile`, one line each; empty when it does.

    At most `MAX_REASONS` lines, and one that counts the rest. Whether the signature is
    mathematically valid, and whom to trust, is not asked here.
    """
    return _bounded(_reasons(profile, facts))


def profiles_met(facts: SignedFacts) -> tuple[ProfileName, ...]:
    """Return the names of the profiles a signature meets, in the order of Annex C."""
    return tuple(p.name for p in PROFILES.values() if next(_reasons(p, facts), None) is None)


def remarks_for(profile: Profile, facts: SignedFacts) -> tuple[str, ...]:
    """Return what a reader should know although the profile is met, one line each."""
    return _bounded(_remarks(profile, facts))


def missing_for_document(signatures: Sequence[SignedFacts]) -> tuple[str, ...]:
    """Return why an SR document or Key Object Selection does not meet C.4; empty when it does.

    C.4 asks for one signature that meets it, whatever others there are. Where Verification Flag
    is VERIFIED that has to be one with purpose 5, covering who verified (`SR_VERIFICATION`).

    Parameters
    ----------
    signatures : sequence of SignedFacts
        Of all signatures of one instance that were found valid.
    """
    if not signatures:
        return (f"the document has no digital signature ({SR})",)
    verified = any(facts.verification_flag == "VERIFIED" for facts in signatures)
    profile = SR_VERIFICATION if verified else SR
    # The signature that comes closest is the one whose faults are worth reading.
    faults = [tuple(_reasons(profile, facts)) for facts in signatures]
    closest = min(faults, key=len)
    return _bounded(closest)


def _reasons(profile: Profile, facts: SignedFacts) -> Iterator[str]:
    yield from _against_base(facts)
    if profile.list_of is None:
        return
    if profile.documents_only:
        yield from _against_document(profile, facts)
    yield from _against_purpose(profile, facts)
    if facts.at_top_level:
        yield from _against_list(profile, facts)
    else:
        # The lists speak of the main data set; an item's elements say nothing about them.
        yield f"the signature stands in a sequence item, not in the main data set ({profile})"


def _against_base(facts: SignedFacts) -> Iterator[str]:
    known = MAC_ALGORITHMS.get(facts.algorithm)
    if known is None or not known.base:
        six = " ".join(row.term for row in MAC_ALGORITHMS.values() if row.base)
        yield f"MAC Algorithm is {_shown(facts.algorithm)}, want one of {six} ({BASE})"
    encoding = encoding_of(facts.transfer_syntax)
    if not (facts.transfer_syntax and encoding.explicit and encoding.little):
        yield (
            f"MAC Calculation Transfer Syntax UID is {_shown(facts.transfer_syntax)}, "
            "want one of Explicit VR Little Endian (PS3.3 C.12.1.1.3)"
        )
    if facts.certificate_type != X509_CERTIFICATE_TYPE:
        yield (
            f"Certificate Type is {_shown(facts.certificate_type)}, "
            f"want {X509_CERTIFICATE_TYPE} ({BASE})"
        )
    if not facts.key_is_rsa:
        yield f"the signer's key is no RSA key ({BASE})"
    if not facts.signed:
        yield "nothing that is present is signed (PS3.3 C.12.1.1.3)"


def _against_document(profile: Profile, facts: SignedFacts) -> Iterator[str]:
    if not facts.sop_class.startswith(SR_CLASSES):
        yield f"neither an SR document nor a Key Object Selection ({profile})"
    if profile.verified and facts.verification_flag != "VERIFIED":
        yield f"Verification Flag is {_shown(facts.verification_flag)}, want VERIFIED ({profile})"
    if facts.verifying_observers > 1:
        yield f"{facts.verifying_observers} Verifying Observers, want at most one ({profile})"
    for term in sorted(facts.reference_algorithms):
        known = MAC_ALGORITHMS.get(term)
        if known is None or not known.base:
            yield f"the MAC of a referenced instance is by {_shown(term)} ({profile})"


def _against_purpose(profile: Profile, facts: SignedFacts) -> Iterator[str]:
    assert profile.list_of is not None
    listed = minimum(profile.list_of)
    if listed.purpose_required and facts.purpose is None:
        yield f"the signature states no purpose ({profile})"
    elif listed.purpose is not None and facts.purpose != listed.purpose:
        found = _purpose(Purpose(*facts.purpose or ("", "")))
        yield f"the signature's purpose is {found}, want {_purpose(listed.purpose)} ({profile})"


def _against_list(profile: Profile, facts: SignedFacts) -> Iterator[str]:
    assert profile.list_of is not None
    listed = minimum(profile.list_of)
    present = facts.present | facts.unsignable
    for tag in listed.unconditional:
        if tag not in present:
            yield f"{named(tag)} is absent ({profile})"
    for tag in sorted(demanded(profile, facts.sop_class) & present - facts.signed):
        if tag in facts.unsignable:
            how = "cannot be signed, being or holding an element of VR UN"
        else:
            how = "is present and not signed"
        yield f"{named(tag)} {how} ({_modules(listed.of_tag[tag])}, {profile})"


def _remarks(profile: Profile, facts: SignedFacts) -> Iterator[str]:
    known = MAC_ALGORITHMS.get(facts.algorithm)
    if known is not None and known.weak:
        yield f"{known.term} is too weak for new signatures"
    if facts.at_top_level and SPECIFIC_CHARACTER_SET in facts.present - facts.signed:
        yield f"{named(SPECIFIC_CHARACTER_SET)} is not signed: signed text can change its meaning"
    if profile.list_of is None or not facts.at_top_level:
        return
    listed = minimum(profile.list_of)
    open_tags = facts.present - facts.signed
    wide = listed.tags - demanded(profile, facts.sop_class)
    for tag in sorted(wide & open_tags):
        yield (
            f"{named(tag)} is not signed; {profile}, read to the letter, wants it in every "
            f"instance ({_modules(listed.of_tag[tag])})"
        )
    if profile.raw_data and has_raw_data(facts.sop_class, facts.present):
        loose = sum(map(is_private, open_tags))
        if loose:
            yield f"{loose} private elements are not signed, and they may be the raw data"


def _bounded(lines: Iterable[str]) -> tuple[str, ...]:
    found = tuple(lines)
    more = len(found) - MAX_REASONS
    return (*found[:MAX_REASONS], f"... and {more} more") if more > 0 else found


def _modules(names: Sequence[str]) -> str:
    """Return ``General Image/Image Pixel``: two names are enough to find the duty."""
    short = "/".join(name.removesuffix(" Module") for name in names[:2])
    return short if len(names) <= 2 else f"{short}/..."


def _purpose(purpose: Purpose) -> str:
    return f"({_shown(purpose.code)}, {_shown(purpose.scheme)})"


def _shown(text: str) -> str:
    """Return a value from outside, short and without control characters."""
    return ascii(text) if len(text) <= MAX_SHOWN else ascii(text[:MAX_SHOWN]) + "..."
