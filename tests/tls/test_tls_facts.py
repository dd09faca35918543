"""Which profiles a connection satisfies, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dicom_secure_node.tls.facts import TLSFacts, canonical_group, judge, suite_name
from dicom_secure_node.tls.profiles import profile_named
from tests.certs import Ca
from tests.tls.conftest import Pki

TLS13 = TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", "secp256r1")
TLS12 = TLSFacts("TLSv1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "secp256r1")


@dataclass(frozen=True)
class Case:
    """A connection, and the sections it is within."""

    facts: TLSFacts
    satisfied: str
    why: dict[str, str] = field(default_factory=dict)


CASES = {
    "TLS 1.3": Case(TLS13, "B.9 B.10 B.12 B.13", {"B.11": "version TLSv1.3, want TLSv1.2"}),
    "TLS 1.2": Case(TLS12, "B.9 B.10 B.11 B.12 B.13", {"B.3": "is not in its list"}),
    "X25519": Case(
        replace(TLS13, group="x25519"), "B.9 B.10 B.12", {"B.13": "group x25519 is not"}
    ),
    "a hybrid group": Case(replace(TLS13, group="X25519MLKEM768"), "B.9 B.10 B.12"),
    "finite-field DHE in TLS 1.2": Case(
        replace(TLS12, suite="TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", group="ffdhe2048"),
        "B.9 B.10 B.13",
        {"B.12": "suite TLS_DHE_RSA_WITH_AES_128_GCM_SHA256 is not in its list"},
    ),
    "CCM_8": Case(
        replace(TLS13, suite="TLS_AES_128_CCM_8_SHA256"), "B.9 B.10 B.13", {"B.12": "CCM_8"}
    ),
    "ChaCha20 in TLS 1.2": Case(
        replace(TLS12, suite="TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"), "B.9 B.10 B.12 B.13"
    ),
    "static RSA": Case(replace(TLS12, suite="TLS_RSA_WITH_AES_128_CBC_SHA", group=None), "B.3 B.9"),
    "TLS 1.0": Case(
        TLSFacts("TLSv1", "TLS_RSA_WITH_AES_128_CBC_SHA", None),
        "B.3 B.9",
        {"B.12": "version TLSv1, want TLSv1.2 to TLSv1.3", "B.2": "no TLS"},
    ),
    "something unheard of": Case(TLSFacts("TLSv1.9", "TLS_NEW", "kyber"), ""),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_satisfied_and_why_not(case: Case) -> None:
    assert case.facts.satisfied == tuple(case.satisfied.split())
    for section, words in case.why.items():
        assert words in " ".join(case.facts.unsatisfied[section])


PEERS: dict[str, tuple[dict[str, Any], bool]] = {
    "P-256": ({}, True),
    "P-521": ({"key": "ec521"}, True),
    "RSA 2048": ({"key": "rsa"}, True),
    "RSA 1024": ({"key": "rsa1024"}, False),
    "SHA-1": ({"digest": "sha1"}, False),
}


@pytest.mark.parametrize(("leaf", "good"), PEERS.values(), ids=PEERS)
@pytest.mark.parametrize("name", ["8996", "8996-mod"])
def test_B13_item8_certificates(
    leaf: dict[str, Any], good: bool, name: str, tmp_path: Any, pki: Pki
) -> None:
    made = pki.ca.write(tmp_path, "leaf", **leaf).certificate
    facts = replace(TLS13, peer_chain=(made, pki.ca.certificate))
    assert (judge(profile_named(name), facts) == ()) == good


def test_B13_item8_the_anchors_key_counts() -> None:
    weak = Ca("Weak", key="rsa1024").certificate
    facts = replace(TLS13, peer_chain=(weak,))
    assert "RSA key of 1024 bits" in judge(profile_named("8996"), facts)[0]


def test_a_connection_without_a_peer_certificate() -> None:
    assert (TLS13.peer_certificate, TLS13.subject, TLS13.fingerprint) == (None, None, None)


def test_names_of_suites_and_groups() -> None:
    assert suite_name("ECDHE-RSA-AES128-GCM-SHA256") == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    assert suite_name("PSK-NEW") == "PSK-NEW"
    names = ["P-256", "prime256v1", "secp256r1", "X25519", "x25519mlkem768", "FFDHE2048", None]
    assert [canonical_group(n) for n in names] == [
        *["secp256r1"] * 3,
        "x25519",
        "X25519MLKEM768",
        "ffdhe2048",
        None,
    ]
