"""Which certificate may use which AE title."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dicom_secure_node.errors import AccessRefused, ConfigurationError
from dicom_secure_node.identity.certificate_binding import (
    Binding,
    CertificateBindings,
    CertificatePattern,
)
from tests.certs import DAY, Ca, now


@pytest.fixture(scope="module")
def ct1(tmp_path_factory: pytest.TempPathFactory) -> x509.Certificate:
    hosts = ("ct1.test", "10.1.2.3", "urn:oid:1.2.3", "urn:uuid:AbC")
    return Ca().write(tmp_path_factory.mktemp("pki"), "ct1", hosts=hosts).certificate


PATTERNS = {
    "whole subject": ("CN=ct1,O=Test Hospital", True),
    "blanks after commas": ("CN=ct1, O=Test Hospital", True),
    "marked as a subject": ("subject:CN=ct1,O=Test Hospital", True),
    "pattern in one part": ("CN=ct?,O=Test *", True),
    "another subject": ("CN=ct2,O=Test Hospital", False),
    "part missing": ("CN=ct1", False),
    "the rest does not matter": ("CN=ct1,*", True),
    "the rest may be nothing": ("CN=ct1,O=Test Hospital,*", True),
    "any subject": ("*", True),
    "order matters": ("O=Test Hospital,CN=ct1", False),
    "case matters": ("cn=ct1,o=Test Hospital", False),
    "dNSName": ("dns:ct1.test", True),
    "dNSName without case": ("DNS:CT1.Test", True),
    "dNSName pattern": ("dns:*.test", True),
    "another dNSName": ("dns:ct2.test", False),
    "address": ("ip:10.1.2.3", True),
    "another address": ("ip:10.1.2.4", False),
    "URI": ("uri:urn:oid:1.2.3", True),
    "URI, case matters": ("uri:urn:uuid:abc", False),
    "fingerprint of another": ("sha256:" + "0" * 64, False),
}


@pytest.mark.parametrize(("text", "matches"), PATTERNS.values(), ids=PATTERNS)
def test_pattern(ct1: x509.Certificate, text: str, matches: bool) -> None:
    assert CertificatePattern(text).matches(ct1) == matches


@pytest.mark.parametrize("separator", ["", ":", " "])
def test_fingerprint(ct1: x509.Certificate, separator: str) -> None:
    digest = ct1.fingerprint(hashes.SHA256()).hex(" ").replace(" ", separator)
    assert CertificatePattern(f"sha256:{digest}").matches(ct1)
    assert CertificatePattern(f"SHA256:{digest.upper()}").matches(ct1)


def named(*attributes: x509.NameAttribute) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(attributes)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now())
        .not_valid_after(now() + DAY)
        .sign(key, hashes.SHA256())
    )


def test_a_star_cannot_reach_over_a_comma_the_holder_chose() -> None:
    sly = named(x509.NameAttribute(NameOID.COMMON_NAME, "x,O=Test Hospital"))
    assert sly.subject.rfc4514_string() == r"CN=x\,O=Test Hospital"
    assert not CertificatePattern("CN=*,O=Test Hospital").matches(sly)
    assert CertificatePattern(r"CN=x\,O=Test Hospital").matches(sly)


def test_empty_subject() -> None:
    assert CertificatePattern("*").matches(named())
    assert not CertificatePattern("CN=*").matches(named())


@pytest.mark.parametrize(
    "text", ["", "  ", "ct1", "sha256:12", "sha256:" + "g" * 64, "CN=a\nb", "dsn:ct1.test"]
)
def test_bad_pattern(text: str) -> None:
    with pytest.raises(ConfigurationError, match="wanted"):
        CertificatePattern(text)


BINDINGS = CertificateBindings(
    (
        Binding.of("CT1", subject="CN=ct1,O=Test Hospital", san="ct1.test"),
        Binding.of("CT1", subject="CN=spare,O=Test Hospital"),
        Binding.of("MR1", san="uri:urn:oid:9"),
    )
)


def test_bound_title(ct1: x509.Certificate, tmp_path: Path) -> None:
    BINDINGS.check("CT1", ct1)
    BINDINGS.check("CT1             ", ct1)
    BINDINGS.check("CT1", Ca().write(tmp_path, "spare").certificate)


def test_title_without_binding_is_not_checked(ct1: x509.Certificate) -> None:
    BINDINGS.check("US1", ct1)
    BINDINGS.check("US1", None)


REFUSED = {
    "another certificate": ("MR1", "another certificate than 'CN=ct1,O=Test Hospital'"),
    "no certificate": ("CT1", "showed none"),
}


@pytest.mark.parametrize(("title", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(ct1: x509.Certificate, title: str, reason: str) -> None:
    with pytest.raises(AccessRefused, match=reason) as refused:
        BINDINGS.check(title, ct1 if title == "MR1" else None)
    assert (refused.value.result, refused.value.source) == (1, 1)


def test_every_name_of_a_binding_has_to_match(ct1: x509.Certificate) -> None:
    both = Binding.of("CT1", subject="CN=ct1,O=Test Hospital", san="other.test")
    with pytest.raises(AccessRefused):
        CertificateBindings((both,)).check("CT1", ct1)


def test_star_is_for_the_rest(ct1: x509.Certificate) -> None:
    bindings = CertificateBindings((*BINDINGS.bindings, Binding.of("*", subject="CN=us1,*")))
    bindings.check("CT1", ct1)
    with pytest.raises(AccessRefused):
        bindings.check("US1", ct1)


def test_fingerprint_key(ct1: x509.Certificate) -> None:
    digest = ct1.fingerprint(hashes.SHA256()).hex()
    CertificateBindings((Binding.of("CT1", fingerprint=digest),)).check("CT1", ct1)


def test_binding_to_nothing() -> None:
    with pytest.raises(ConfigurationError, match="names nothing"):
        Binding.of("CT1")
