"""Key sizes and hashes, certificate by certificate."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from dicom_secure_node.tls.profiles import profile_named
from dicom_secure_node.tls.weakness import weaknesses
from tests.certs import DAY, Ca, make_key, now

CASES: dict[str, tuple[Any, Any, str, str]] = {
    # what: (key, hash, what B.12 says, what B.13 says)
    "RSA 2048, SHA-256": (make_key("rsa"), hashes.SHA256(), "", ""),
    "RSA 1024": (make_key("rsa1024"), hashes.SHA256(), "1024 bits", "1024 bits"),
    "P-224": (ec.generate_private_key(ec.SECP224R1()), hashes.SHA256(), "", "224 bits, want 256"),
    "P-192": (
        ec.generate_private_key(ec.SECP192R1()),
        hashes.SHA256(),
        "192 bits, want 224",
        "192",
    ),
    "P-521, SHA-512": (make_key("ec521"), hashes.SHA512(), "", ""),
    "SHA-224": (make_key("ec"), hashes.SHA224(), "SHA224, want SHA-256", "SHA224"),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate(), None, "want RSA or EC", "want RSA or EC"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_RFC9325_and_B13_item8(case: tuple[Any, Any, str, str]) -> None:
    key, digest, b12, b13 = case
    certificate = _certificate(key, digest)
    for name, words in {"8996": b12, "8996-mod": b13}.items():
        found = "; ".join(weaknesses(certificate, profile_named(name)))
        assert words in found
        assert bool(words) == bool(found)


def test_the_signature_of_an_anchor_is_not_looked_at() -> None:
    certificate = _certificate(make_key("ec"), hashes.SHA224())
    assert weaknesses(certificate, profile_named("8996"), anchor=True) == ()


def test_B3_still_takes_what_its_time_had(tmp_path: Any) -> None:
    retired = profile_named("aes", allow_retired=True)
    old = Ca().write(tmp_path, "old", key="rsa1024", digest="sha1").certificate
    assert weaknesses(old, retired) == ()
    assert len(weaknesses(old, profile_named("8996"))) == 2


def _certificate(key: Any, digest: Any) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now() - DAY)
        .not_valid_after(now() + DAY)
        .sign(key, digest)
    )
