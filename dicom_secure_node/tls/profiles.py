"""The Secure Transport Connection Profiles of PS3.15 2024e Annex B, as data.

A profile says what may be negotiated. Nothing here acts: `context` turns a profile into a TLS
context and `facts` judges a connection by it.
"""

from __future__ import annotations

import difflib
import ssl
from dataclasses import dataclass
from typing import Literal

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.spec.tls_suites import (
    B1_TLS12,
    B3_TLS12,
    B10_TLS12,
    B11_TLS12_OPTIONAL,
    B12_TLS12,
    B12_TLS13,
    B13_TLS12,
    B13_TLS12_OPTIONAL,
    B13_TLS13,
    Suite,
)

_V10, _V11, _V12, _V13 = (
    ssl.TLSVersion.TLSv1,
    ssl.TLSVersion.TLSv1_1,
    ssl.TLSVersion.TLSv1_2,
    ssl.TLSVersion.TLSv1_3,
)

# Groups by their TLS names. X25519 is left out of B.13, which asks for 256 bits (OpenSSL
# counts 253), and no profile offers the hybrid groups OpenSSL would offer by itself.
_NIST_GROUPS = ("secp256r1", "secp384r1", "secp521r1")
_GROUPS = ("x25519", *_NIST_GROUPS)
# Negotiated by a peer's server these satisfy RFC 9325 4.3 as well; we do not offer them.
_OTHER_GROUPS = ("x448", "secp256k1", "ffdhe2048", "ffdhe3072", "ffdhe4096", "X25519MLKEM768")

_SHA2_SIGNATURES = (
    "ecdsa_secp256r1_sha256",
    "ecdsa_secp384r1_sha384",
    "rsa_pss_rsae_sha256",
    "rsa_pss_rsae_sha384",
    "rsa_pss_pss_sha256",
    "rsa_pss_pss_sha384",
    "rsa_pkcs1_sha256",
    "rsa_pkcs1_sha384",
)
_SHA512_SIGNATURES = (
    "ecdsa_secp521r1_sha512",
    "rsa_pss_rsae_sha512",
    "rsa_pss_pss_sha512",
    "rsa_pkcs1_sha512",
)
_SHA1_SIGNATURES = ("ecdsa_sha1", "rsa_pkcs1_sha1")

# ECDHE is as good as DHE and a good deal faster, so it goes first.
_B10_ORDERED = tuple(sorted(B10_TLS12, key=lambda suite: suite.ephemeral_dh))


@dataclass(frozen=True)
class TLSProfile:
    """One Secure Transport Connection Profile.

    Attributes
    ----------
    section : str
        Of PS3.15, e.g. ``"B.12"``.
    title : str
        As the standard prints it.
    short : str
        Name in configuration files and on the command line; DCMTK's where it has one.
    status : str
        ``current``, ``retired`` (needs `allow_retired`) or ``unspeakable`` (nobody can).
    why : str
        Why a retired profile was replaced, or why this one cannot be spoken.
    minimum, maximum : ssl.TLSVersion
        Protocol versions, both included.
    tls12_suites, tls13_suites : tuple of Suite
        To offer, in order of preference; the former serve every version before TLS 1.3.
    also_suites : tuple of Suite
        Not offered by us, and yet within the profile when a peer's choice.
    groups, also_groups : tuple of str
        Key-exchange groups to offer, in order; and others within the profile.
    signature_algorithms : tuple of str
        Of the handshake, by TLS name, in order of preference.
    min_rsa_bits, min_ec_bits, min_dh_bits : int
        Smallest keys; the first two hold for every certificate of a chain.
    sha1_allowed : bool
        Whether a certificate may be signed with SHA-1.
    both_server_keys : bool
        A server has to have an RSA and an EC credential to serve every required suite.
    alpn : bytes
        Application protocol: ``dicom`` (IANA, 2023).
    notes : str
        For the conformance statement.
    """

    section: str
    title: str
    short: str
    status: Literal["current", "retired", "unspeakable"] = "current"
    why: str = ""
    minimum: ssl.TLSVersion = _V12
    maximum: ssl.TLSVersion = _V13
    tls12_suites: tuple[Suite, ...] = ()
    tls13_suites: tuple[Suite, ...] = ()
    also_suites: tuple[Suite, ...] = ()
    groups: tuple[str, ...] = _GROUPS
    also_groups: tuple[str, ...] = ()
    signature_algorithms: tuple[str, ...] = _SHA2_SIGNATURES
    min_rsa_bits: int = 2048
    min_ec_bits: int = 256
    min_dh_bits: int = 2048
    sha1_allowed: bool = False
    both_server_keys: bool = False
    alpn: bytes = b"dicom"
    notes: str = ""

    @property
    def suites(self) -> tuple[Suite, ...]:
        """Return every suite to offer, those of TLS 1.3 first."""
        return self.tls13_suites + self.tls12_suites

    @property
    def security_level(self) -> int:
        """Return OpenSSL's security level: the highest at which the profile can be spoken.

        Level 2 refuses keys below 112 bits of strength and SHA-1, but also the CCM_8 suites
        (B.13) and TLS 1.0 and 1.1. Where 0 is needed, `weakness.weaknesses` stands in for it.
        """
        short_tags = any("_CCM_8" in suite.name for suite in self.suites)
        return 0 if short_tags or self.minimum < _V12 else 2

    def __str__(self) -> str:
        return f"PS3.15 {self.section} {self.title}"


_SUCCESSOR = "use B.12 (8996) or B.13 (8996-mod)"

BASIC_TLS = TLSProfile(
    section="B.1",
    title="Basic TLS Secure Transport Connection Profile",
    short="basic",
    status="unspeakable",
    why=f"its only suite is Triple-DES, which this OpenSSL is built without; {_SUCCESSOR}",
    minimum=_V10,
    maximum=_V12,
    tls12_suites=B1_TLS12,
    min_rsa_bits=1024,
    sha1_allowed=True,
)

ISCL = TLSProfile(
    section="B.2",
    title="ISCL Secure Transport Connection Profile",
    short="iscl",
    status="unspeakable",
    why=f"ISCL is no TLS, rests on DES and MD5, and no library speaks it; {_SUCCESSOR}",
)

AES_TLS = TLSProfile(
    section="B.3",
    title="AES TLS Secure Transport Connection Profile",
    short="aes",
    status="retired",
    why=f"retired in 2018: TLS 1.0, static RSA and CBC; {_SUCCESSOR}",
    minimum=_V10,
    maximum=_V12,
    tls12_suites=B3_TLS12,
    signature_algorithms=_SHA2_SIGNATURES + _SHA512_SIGNATURES + _SHA1_SIGNATURES,
    min_rsa_bits=1024,
    sha1_allowed=True,
    notes="The Triple-DES fall-back is not offered: this OpenSSL is built without it.",
)

BCP195 = TLSProfile(
    section="B.9",
    title="BCP 195 TLS Secure Transport Connection Profile",
    short="bcp195",
    status="retired",
    why=f"retired in 2022: it falls back to TLS 1.0 (RFC 8996 forbids that); {_SUCCESSOR}",
    minimum=_V10,
    tls12_suites=(*_B10_ORDERED, B3_TLS12[0]),
    tls13_suites=B12_TLS13,
    also_suites=B13_TLS12 + B13_TLS13,
    also_groups=_OTHER_GROUPS,
    min_ec_bits=224,  # RFC 9325 4.3
    signature_algorithms=_SHA2_SIGNATURES + _SHA512_SIGNATURES + _SHA1_SIGNATURES,
    notes="TLS_RSA_WITH_AES_128_CBC_SHA is the fall-back for peers of B.3.",
)

NON_DOWNGRADING_BCP195 = TLSProfile(
    section="B.10",
    title="Non-Downgrading BCP 195 TLS Secure Transport Connection Profile",
    short="bcp195-nd",
    status="retired",
    why=f"retired in 2022 with RFC 7525; {_SUCCESSOR}",
    tls12_suites=_B10_ORDERED,
    tls13_suites=B12_TLS13,
    also_suites=B13_TLS12 + B13_TLS13,
    also_groups=_OTHER_GROUPS,
    min_ec_bits=224,  # RFC 9325 4.3
    signature_algorithms=_SHA2_SIGNATURES + _SHA512_SIGNATURES,
)

EXTENDED_BCP195 = TLSProfile(
    section="B.11",
    title="Extended BCP 195 TLS Profile Secure Transport Connection Profile",
    short="bcp195-ex",
    status="retired",
    why=f"retired in 2022: TLS 1.2 only; {_SUCCESSOR}",
    maximum=_V12,
    tls12_suites=_B10_ORDERED + B11_TLS12_OPTIONAL,
    groups=_NIST_GROUPS,
    signature_algorithms=_SHA2_SIGNATURES + _SHA512_SIGNATURES,
    notes="The Camellia suites are not offered: OpenSSL has none with GCM.",
)

BCP195_RFC8996_9325 = TLSProfile(
    section="B.12",
    title="BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile",
    short="8996",
    tls12_suites=B12_TLS12,
    tls13_suites=B12_TLS13,
    # AEAD with ephemeral ECDH and full-length tags: RFC 9325 4.1 and 4.2.1 allow them.
    also_suites=tuple(s for s in B13_TLS12 + B13_TLS13 if "_CCM_8" not in s.name),
    also_groups=_OTHER_GROUPS,
    min_ec_bits=224,  # RFC 9325 4.3
    signature_algorithms=_SHA2_SIGNATURES + _SHA512_SIGNATURES,
    notes="Finite-field DHE is not offered in TLS 1.2 (RFC 9325 4.1).",
)

MODIFIED_BCP195_RFC8996_9325 = TLSProfile(
    section="B.13",
    title="Modified BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile",
    short="8996-mod",
    tls12_suites=B13_TLS12,
    tls13_suites=B13_TLS13,
    also_suites=B13_TLS12_OPTIONAL,
    groups=_NIST_GROUPS,
    # ffdhe groups are DHE of 2048 bits and more; hybrids are outside the closed list.
    also_groups=("secp256k1", "ffdhe2048", "ffdhe3072", "ffdhe4096"),
    both_server_keys=True,
    notes=(
        "The optional suites (Camellia GCM, finite-field DHE) are not offered: OpenSSL has no "
        "Camellia GCM, and RFC 9325 4.1 advises against DHE in TLS 1.2."
    ),
)

PROFILES = (
    BASIC_TLS,
    ISCL,
    AES_TLS,
    BCP195,
    NON_DOWNGRADING_BCP195,
    EXTENDED_BCP195,
    BCP195_RFC8996_9325,
    MODIFIED_BCP195_RFC8996_9325,
)


def profile_named(name: str, allow_retired: bool = False) -> TLSProfile:
    """Return the profile called `name`.

    Parameters
    ----------
    name : str
        Section (``B.12``) or short name (``8996``), in any case.
    allow_retired : bool
        Whether a profile the standard has withdrawn may be used.

    Raises
    ------
    ConfigurationError
        There is no such profile, it cannot be spoken, or it is retired.
    """
    known = {p.section.lower(): p for p in PROFILES} | {p.short: p for p in PROFILES}
    wanted = name.strip().lower()
    profile = known.get(wanted)
    if profile is None:
        near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5) or ["b.12", "b.13"]
        names = sorted({f"{known[n].section} ({known[n].short})" for n in near})
        raise ConfigurationError(
            f"found no TLS profile {name!r}, wanted one like {', '.join(names)}"
        )
    if profile.status == "unspeakable":
        raise ConfigurationError(f"{profile} cannot be spoken: {profile.why}")
    if profile.status == "retired" and not allow_retired:
        raise ConfigurationError(
            f"{profile} is retired and needs allow_retired = true; {profile.why}"
        )
    return profile
