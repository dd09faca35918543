"""Names and descriptions of certificates, ordinary and hostile."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from dicom_secure_node.errors import InvalidCertificate
from dicom_secure_node.pki.describe import describe, usable_for
from dicom_secure_node.pki.names import common_name, fingerprint, subject_alternatives
from tests.certs import DAY, Ca, make_key, now
from tests.pki.openssl import openssl


def _certificate(
    subject: list[x509.NameAttribute[str]], extension: x509.ExtensionType | None = None
) -> x509.Certificate:
    """Return a self-signed certificate with hardly anything in it."""
    key = make_key()
    name = x509.Name(subject)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now(), now() + DAY)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


def test_each_kind_of_name_is_kept_apart() -> None:
    hosts = ("a.example", "192.0.2.7", "2001:db8::7", "urn:dicom:ae:CT1", "b.example")
    names = subject_alternatives(Ca().certify("node", make_key(), hosts=hosts))
    assert names.dns == ("a.example", "b.example")
    assert names.addresses == (ip_address("192.0.2.7"), ip_address("2001:db8::7"))
    assert names.uris == ("urn:dicom:ae:CT1",)


def test_no_names_are_no_error() -> None:
    bare = _certificate([])
    assert subject_alternatives(bare) == ((), (), ())
    assert common_name(bare) is None
    assert usable_for(bare) == ("any",)


def test_the_last_common_name_is_the_most_specific() -> None:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, text) for text in ("Radiology", "ct1")]
    assert common_name(_certificate(names)) == "ct1"


def test_an_extension_that_cannot_be_decoded_is_invalid() -> None:
    oid = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    broken = _certificate([], x509.UnrecognizedExtension(oid, b"\x30\x05junk"))
    for read in (subject_alternatives, usable_for, lambda c: describe(c, now())):
        with pytest.raises(InvalidCertificate, match="broken extensions"):
            read(broken)


def test_openssl_counts_the_same_fingerprint(tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "node")
    shown = openssl("x509", "-in", leaf.crt, "-noout", "-fingerprint", "-sha256").stdout
    assert shown.split("=")[1].strip().replace(":", "").lower() == fingerprint(leaf.certificate)


USES = {
    "both": ("server", "client"),
    "server": ("server",),
    "client": ("client",),
    "mail": ("mail",),
    "time": ("time stamps",),
    "none": ("any",),
}


@pytest.mark.parametrize("usage", USES)
def test_usable_for(usage: str) -> None:
    assert usable_for(Ca().certify("node", make_key(), usage=usage)) == USES[usage]


def test_an_authority_is_called_one() -> None:
    assert usable_for(Ca().certificate) == ("CA",)


@pytest.mark.parametrize(
    ("kind", "words"), [("rsa", "RSA 2048"), ("ec", "EC 256 secp256r1"), ("ec384", "EC 384")]
)
def test_the_key_is_named_with_its_size(kind: str, words: str) -> None:
    certificate = Ca().certify("node", make_key(kind, "node"))
    assert describe(certificate, now()).key.startswith(words)


def test_days_left_are_whole_and_negative_when_over() -> None:
    end = now() + 10 * DAY
    certificate = Ca().certify("node", make_key(), end=end)
    second = datetime.timedelta(seconds=1)
    assert describe(certificate, end - 10 * DAY).days_left == 10
    assert describe(certificate, end - DAY + second).days_left == 0
    assert describe(certificate, end + second).days_left == -1


def test_a_bad_signature_does_not_keep_it_from_being_described() -> None:
    certificate = Ca().certify("node", make_key(), bad_signature=True)
    again = x509.load_der_x509_certificate(certificate.public_bytes(Encoding.DER))
    assert describe(again, now()).subject == "CN=node,O=Test Hospital"
