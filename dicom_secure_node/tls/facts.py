"""What is known of a TLS connection once hands are shaken, and which profiles it satisfies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from dicom_secure_node.errors import HandshakeRefused
from dicom_secure_node.tls.profiles import PROFILES, TLSProfile
from dicom_secure_node.tls.weakness import weaknesses

_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_SUITE_NAMES = {
    suite.openssl: suite.name
    for profile in PROFILES
    for suite in profile.suites + profile.also_suites
    if suite.openssl
}
_GROUP_NAMES = {"prime256v1": "secp256r1", "p-256": "secp256r1"} | {
    "p-384": "secp384r1",
    "p-521": "secp521r1",
}


@dataclass(frozen=True)
class TLSFacts:
    """One established TLS connection.

    Attributes
    ----------
    version : str
        ``TLSv1.2``, ``TLSv1.3``.
    suite : str
        IANA name where a profile of Annex B names it, else OpenSSL's.
    group : str or None
        Key-exchange group by its TLS name, e.g. ``secp256r1``; None for static RSA.
    peer_chain : tuple of x509.Certificate
        The peer's certificate, then those above it up to the trust anchor, as verified.
        Empty where the peer sent none or none was asked for.
    alpn : str or None
        Application protocol agreed upon; None where the peer did not offer any.
    resumed : bool
        Always False with our own contexts: a resumed session skips the checks of the peer.
    observed : HandshakeRefused or None
        Why a context that enforces would have refused the peer; see `ServerContext.observe`.
    """

    version: str
    suite: str
    group: str | None
    peer_chain: tuple[x509.Certificate, ...] = ()
    alpn: str | None = None
    resumed: bool = False
    observed: HandshakeRefused | None = None

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """Return the peer's own certificate."""
        return self.peer_chain[0] if self.peer_chain else None

    @cached_property
    def subject(self) -> str | None:
        """Return the peer certificate's subject as RFC 4514 text. It is the peer's text."""
        return self.peer_chain[0].subject.rfc4514_string() if self.peer_chain else None

    @cached_property
    def fingerprint(self) -> str | None:
        """Return the SHA-256 fingerprint of the peer certificate, in hexadecimal."""
        return self.peer_chain[0].fingerprint(hashes.SHA256()).hex() if self.peer_chain else None

    @cached_property
    def unsatisfied(self) -> Mapping[str, tuple[str, ...]]:
        """Return section and reasons, in words, of each profile this connection is outside of."""
        verdicts = {profile.section: judge(profile, self) for profile in PROFILES}
        return MappingProxyType({section: why for section, why in verdicts.items() if why})

    @cached_property
    def satisfied(self) -> tuple[str, ...]:
        """Return the sections of every profile this connection is within."""
        return tuple(p.section for p in PROFILES if p.section not in self.unsatisfied)


def suite_name(openssl: str) -> str:
    """Return the IANA name of a suite OpenSSL names, or that name where we know no other."""
    return _SUITE_NAMES.get(openssl, openssl)


def canonical_group(name: str | None) -> str | None:
    """Return the TLS name of a group OpenSSL names; hybrids keep their capitals."""
    if name is None:
        return None
    known = {group.lower(): group for p in PROFILES for group in p.groups + p.also_groups}
    lower = name.lower()
    return known.get(_GROUP_NAMES.get(lower, lower), name)


def judge(profile: TLSProfile, facts: TLSFacts) -> tuple[str, ...]:
    """Return why a connection is outside `profile`, in words; nothing if it is within it.

    Authentication is not judged: B.12 and B.13 let a server be configured not to ask, and a
    client need not have a certificate.
    """
    return tuple(_reasons(profile, facts))


def _reasons(profile: TLSProfile, facts: TLSFacts) -> Iterator[str]:
    if not profile.suites:
        yield "this profile is no TLS"
        return
    version = _VERSIONS.get(facts.version, 0)
    if not profile.minimum <= version <= profile.maximum:
        yield f"version {facts.version}, want {_range(profile)}"
    if facts.suite not in {suite.name for suite in profile.suites + profile.also_suites}:
        yield f"suite {facts.suite} is not in its list"
    if facts.group is not None and facts.group not in profile.groups + profile.also_groups:
        yield f"key-exchange group {facts.group} is not in its list"
    last = len(facts.peer_chain) - 1
    for position, certificate in enumerate(facts.peer_chain):
        # The last of a verified chain is the anchor; a chain of one is a pinned certificate.
        for weakness in weaknesses(certificate, profile, anchor=position == last):
            yield f"certificate {position + 1} of the peer has {weakness}"


def _range(profile: TLSProfile) -> str:
    names = {number: name for name, number in _VERSIONS.items()}
    low, high = names[profile.minimum], names[profile.maximum]
    return low if low == high else f"{low} to {high}"
