"""The tables of PS3.15 2024e Annex C and of the PS3.3 Digital Signatures Macro, as data.

`signature_tables.json` beside this module holds what C.2 to C.4 want signed, module by module;
`.ci/make_signature_tables.py` made it. The small tables are typed by hand in the order of the
printed text. Tags are integers, ``0xGGGGEEEE``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

Section = Literal["C.2", "C.3", "C.4", "C.4-verified"]
"""A row of the tables; the last one is C.4 where Verification Flag is VERIFIED."""

X509_CERTIFICATE_TYPE = "X509_1993_SIG"
CERTIFIED_TIMESTAMP_TYPE = "CMS_TSP"


class Purpose(NamedTuple):
    """A Digital Signature Purpose Code (0400,0401); the meaning is never compared."""

    code: str
    scheme: str


ASTM_SIGPURPOSE = "ASTM-sigpurpose"
VERIFICATION = Purpose("5", ASTM_SIGPURPOSE)


@dataclass(frozen=True, slots=True)
class MacAlgorithm:
    """One term of MAC Algorithm (0400,0015).

    Attributes
    ----------
    term : str
        As PS3.3 C.12.1.1.3 prints it.
    hashlib : str
        Name `hashlib.new` takes.
    size : int
        Of the hash value, in bytes.
    digest_info : bytes
        DER that stands before the hash value in an RSASSA-PKCS1-v1_5 signature (RFC 8017 9.2).
    base : bool
        One of the six of PS3.15 C.1, which every validator has to handle.
    weak : bool
        Collisions can be had, or nobody has looked for them for long: not for new signatures.
    """

    term: str
    hashlib: str
    size: int
    digest_info: bytes
    base: bool = False
    weak: bool = False


# fmt: off
MAC_ALGORITHMS: Mapping[str, MacAlgorithm] = MappingProxyType({row.term: row for row in (
    MacAlgorithm("RIPEMD160", "ripemd160", 20, bytes.fromhex("3021300906052b2403020105000414"), base=True, weak=True),  # noqa: E501
    MacAlgorithm("MD5", "md5", 16, bytes.fromhex("3020300c06082a864886f70d020505000410"), base=True, weak=True),  # noqa: E501
    MacAlgorithm("SHA1", "sha1", 20, bytes.fromhex("3021300906052b0e03021a05000414"), base=True, weak=True),  # noqa: E501
    MacAlgorithm("SHA256", "sha256", 32, bytes.fromhex("3031300d060960864801650304020105000420"), base=True),  # noqa: E501
    MacAlgorithm("SHA384", "sha384", 48, bytes.fromhex("3041300d060960864801650304020205000430"), base=True),  # noqa: E501
    MacAlgorithm("SHA512", "sha512", 64, bytes.fromhex("3051300d060960864801650304020305000440"), base=True),  # noqa: E501
    MacAlgorithm("SHA224", "sha224", 28, bytes.fromhex("302d300d06096086480165030402040500041c")),
    MacAlgorithm("SHA512_224", "sha512_224", 28, bytes.fromhex("302d300d06096086480165030402050500041c")),  # noqa: E501
    MacAlgorithm("SHA512_256", "sha512_256", 32, bytes.fromhex("3031300d060960864801650304020605000420")),  # noqa: E501
    MacAlgorithm("SHA3_224", "sha3_224", 28, bytes.fromhex("302d300d06096086480165030402070500041c")),  # noqa: E501
    MacAlgorithm("SHA3_256", "sha3_256", 32, bytes.fromhex("3031300d060960864801650304020805000420")),  # noqa: E501
    MacAlgorithm("SHA3_384", "sha3_384", 48, bytes.fromhex("3041300d060960864801650304020905000430")),  # noqa: E501
    MacAlgorithm("SHA3_512", "sha3_512", 64, bytes.fromhex("3051300d060960864801650304020a05000440")),  # noqa: E501
)})

# CID 7007, a baseline group: other codes may occur. Codes are the last arcs of ASTM E2084's
# identifiers below 1.2.840.10065.1.12; PS3.16 prints no meanings, these are DCMTK's.
PURPOSES: Mapping[str, str] = MappingProxyType({
    "1": "Author's Signature",
    "2": "Coauthor's Signature",
    "3": "Co-participant's Signature",
    "4": "Transcriptionist/Recorder Signature",
    "5": "Verification Signature",
    "6": "Validation Signature",
    "7": "Consent Signature",
    "8": "Signature Witness Signature",
    "9": "Event Witness Signature",
    "10": "Identity Witness Signature",
    "11": "Consent Witness Signature",
    "12": "Interpreter Signature",
    "13": "Review Signature",
    "14": "Source Signature",
    "15": "Addendum Signature",
    "16": "Modification Signature",
    "17": "Administrative (Error/Edit) Signature",
    "18": "Timestamp Signature",
})


class NeverSigned(NamedTuple):
    """Tags no signature covers at any depth: those with ``tag & mask == value``."""

    name: str
    mask: int
    value: int


# PS3.3 C.12.1.1.3.1.1. Its two other rules ask for the VR: an element of VR UN is never signed,
# nor is a sequence that holds one at any depth.
NEVER_SIGNED = (
    NeverSigned("Length to End", 0xFFFFFFFF, 0x00080001),
    NeverSigned("a group length", 0x0000FFFF, 0x00000000),
    NeverSigned("an element of a group below 0008", 0xFFF80000, 0x00000000),
    NeverSigned("an element of group FFFA, digital signatures", 0xFFFF0000, 0xFFFA0000),
    NeverSigned("MAC Parameters Sequence", 0xFFFFFFFF, 0x4FFE0001),
    NeverSigned("Data Set Trailing Padding", 0xFFFFFFFF, 0xFFFCFFFC),
    NeverSigned("an item or delimiter", 0xFFFF0000, 0xFFFE0000),
)

# PS3.3 C.12.1.1.3.1.2: the only elements of the signature's own item that stay outside the MAC.
OUTSIDE_MAC = frozenset({0x04000115, 0x04000120, 0x04000305, 0x04000310})

# C.2 names two series modules since 2024b, so that Modality and Series Number would have to be
# signed in every instance. They are signed everywhere and demanded only in instances of these
# SOP Classes.
WIDE_CLASSES: Mapping[str, frozenset[str]] = MappingProxyType({
    "Encapsulated Document Series Module": frozenset({
        "1.2.840.10008.5.1.4.1.1.104.1",  # PDF
        "1.2.840.10008.5.1.4.1.1.104.2",  # CDA
        "1.2.840.10008.5.1.4.1.1.104.3",  # STL
        "1.2.840.10008.5.1.4.1.1.104.4",  # OBJ
        "1.2.840.10008.5.1.4.1.1.104.5",  # MTL
    }),
    "Tractography Results Series Module": frozenset({"1.2.840.10008.5.1.4.1.1.66.6"}),
})
# fmt: on

# The data of an instance with the Raw Data Module are private elements, which no table names.
RAW_DATA_STORAGE = "1.2.840.10008.5.1.4.1.1.66"
CREATOR_VERSION_UID = 0x00089123  # type 1 in the Raw Data Module

# SR documents and Key Object Selection: every SOP Class of PS3.3 A.35.
SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."  # prefix


def never_signed(tag: int) -> str | None:
    """Return what a tag is that no signature covers; None for one that may be signed."""
    for rule in NEVER_SIGNED:
        if tag & rule.mask == rule.value:
            return rule.name
    return None


@dataclass(frozen=True)
class MinimumList:
    """What a profile wants signed, where it is present at the top level.

    Everything inside a sequence is signed with it, so no nested tag is listed.

    Attributes
    ----------
    title : str
        Of the profile.
    modules : mapping
        Module, or other entry of the printed list, to its tags.
    of_tag : mapping
        Tag to the modules that hold it, in the order of the printed list.
    unconditional : tuple of int
        Tags that have to be present.
    wide : mapping
        Series module (see `WIDE_CLASSES`) to the tags no other module of the list has.
    purpose_required : bool
        The signature has to state its purpose.
    purpose : Purpose or None
        The only one that will do; None for any.
    """

    title: str
    modules: Mapping[str, tuple[int, ...]]
    of_tag: Mapping[int, tuple[str, ...]]
    unconditional: tuple[int, ...]
    wide: Mapping[str, frozenset[int]]
    purpose_required: bool
    purpose: Purpose | None

    @cached_property
    def tags(self) -> frozenset[int]:
        """Return every tag of the list, those of the wide reading included."""
        return frozenset(self.of_tag)


@cache
def tables() -> Mapping[str, Any]:
    """Return the machine tables of Annex C, read once."""
    text = (files(__package__) / "signature_tables.json").read_text("utf-8")
    return MappingProxyType(json.loads(text))


@cache
def modules() -> Mapping[str, tuple[int, ...]]:
    """Return the tags of every module, ascending, repeating groups written out."""
    return MappingProxyType(
        {
            name: tuple(sorted(tag for text in row["tags"] for tag in _tags(text)))
            for name, row in tables()["modules"].items()
        }
    )


@cache
def minimum(section: Section) -> MinimumList:
    """Return what the profile of `section` wants signed."""
    row = tables()["profiles"][section]
    named = {name: modules()[name] for name in row["modules"]}
    of_tag: dict[int, tuple[str, ...]] = {}
    for name, tags in named.items():
        for tag in tags:
            of_tag[tag] = (*of_tag.get(tag, ()), name)
    wide = set(row["wide"])
    purpose = row["purpose"]
    return MinimumList(
        title=row["title"],
        modules=MappingProxyType(named),
        of_tag=MappingProxyType(of_tag),
        unconditional=tuple(tag for text in row["unconditional"] for tag in _tags(text)),
        wide=MappingProxyType(
            {name: frozenset(t for t in named[name] if wide.issuperset(of_tag[t])) for name in wide}
        ),
        purpose_required=purpose is not None,
        purpose=Purpose(*purpose) if isinstance(purpose, list) else None,
    )


@cache
def recommended() -> frozenset[int]:
    """Return tags no profile demands and a signer does well to add.

    Some were demanded by earlier editions, and checkers in the field still do; others say whose
    data they are and how the text is to be read.
    """
    return frozenset(tag for name in tables()["recommended"] for tag in modules()[name])


def _tags(text: str) -> tuple[int, ...]:
    """Return the tags written ``(GGGG,EEEE)``; sixteen where the group ends in ``xx``."""
    digits = text[1:5] + text[6:10]
    if "xx" not in digits:
        return (int(digits, 16),)
    return tuple(int(digits.replace("xx", f"{n:02X}"), 16) for n in range(0, 0x20, 2))
