"""Signing keys in files: what loads, what is refused, and that openssl takes the signatures."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from dicom_secure_node.errors import (
    ConfigurationError,
    InvalidCertificate,
    InvalidInput,
    MissingExtra,
)
from dicom_secure_node.pki.credential import Credential, load_credential
from dicom_secure_node.pki.signers import FileSigner, load_signer
from tests.certs import Ca, Leaf, make_key
from tests.pki.openssl import SECRET, export, openssl
from tests.pki.secrets_shown import everything_said
from tests.pki.signing import (
    PREFIXES,
    certificate_of,
    digest_info,
    openssl_verifies,
)

CONTENT = b"an instance"


def _ask() -> bytes:
    return SECRET


def _never() -> bytes:
    pytest.fail("nothing is encrypted, so nobody is to be asked")


def _signs(signer: Any, folder: Path) -> bool:
    signature = signer.sign_digest_info(digest_info("sha256", folder, CONTENT))
    key = signer.certificate.public_key()
    return openssl_verifies("sha256", signature, key, folder, CONTENT)


@pytest.mark.parametrize("name", PREFIXES)
@pytest.mark.parametrize("kind", ["rsa", "rsa3072"])
def test_openssl_verifies_each_hash_of_c_1(name: str, kind: Any, tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "signer", key=kind)
    signer = load_signer(leaf.key, leaf.crt)
    signature = signer.sign_digest_info(digest_info(name, tmp_path, CONTENT))
    key = leaf.private_key.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert len(signature) == key.key_size // 8
    assert openssl_verifies(name, signature, key, tmp_path, CONTENT)
    assert not openssl_verifies(name, signature, key, tmp_path, CONTENT + b"!")


def _der(leaf: Leaf) -> tuple[Path, Path]:
    out = leaf.key.with_suffix(".der"), leaf.crt.with_suffix(".cer")
    assert openssl("pkey", "-in", leaf.key, "-outform", "DER", "-out", out[0]).returncode == 0
    out[1].write_bytes(leaf.certificate.public_bytes(Encoding.DER))
    return out


def _one_file(leaf: Leaf) -> tuple[Path, None]:
    leaf.key.write_bytes(leaf.key.read_bytes() + leaf.crt.read_bytes())
    return leaf.key, None


SHAPES: dict[str, tuple[Callable[[Leaf], tuple[Any, Path | None]], bytes | None]] = {
    "plain PEM": (lambda leaf: (leaf.key, leaf.crt), None),
    "plain PEM, named by a text": (lambda leaf: (str(leaf.key), leaf.crt), None),
    "encrypted PEM": (lambda leaf: (leaf.key, leaf.crt), SECRET),
    "DER": (_der, None),
    "key and certificate in one file": (_one_file, None),
}


@pytest.mark.parametrize(("shape", "secret"), SHAPES.values(), ids=SHAPES)
def test_each_shape_of_key_file_signs(
    shape: Callable[[Leaf], tuple[Any, Path | None]], secret: bytes | None, tmp_path: Path
) -> None:
    leaf = Ca().write(tmp_path, "signer", key="rsa", passphrase=secret)
    key, certificate = shape(leaf)
    signer = load_signer(key, certificate, _ask if secret else _never)
    assert signer.certificate == leaf.certificate
    assert signer.subject == "CN=signer,O=Test Hospital"
    assert _signs(signer, tmp_path)
    signer.close()


@pytest.mark.parametrize("suffix", [".p12", ".PFX"])
def test_a_pkcs12_file_signs(suffix: str, tmp_path: Path) -> None:
    leaf = Ca().intermediate().write(tmp_path, "signer", key="rsa")
    signer = load_signer(export(leaf, suffix=suffix), None, _ask)
    assert (signer.certificate, signer.chain) == (leaf.certificate, leaf.chain)
    assert _signs(signer, tmp_path)


def test_a_pkcs12_file_holds_its_own_certificate(tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "signer", key="rsa")
    with pytest.raises(ConfigurationError, match="beside a PKCS#12 file"):
        load_signer(export(leaf), leaf.crt, _ask)


@pytest.mark.parametrize("secret", [SECRET, None], ids=["encrypted", "plain"])
def test_no_secret_is_shown(
    secret: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leaf = Ca().write(tmp_path, "signer", key="rsa", passphrase=secret)
    with caplog.at_level(logging.DEBUG):
        signer = load_signer(leaf.key, leaf.crt, _ask)
        with pytest.raises(InvalidInput) as caught:
            signer.sign_digest_info(b"planted hash, no DigestInfo")
    assert repr(signer) == str(signer) == "FileSigner('CN=signer,O=Test Hospital')"
    assert "planted" not in repr(signer) + caplog.text + str(caught.value)


def test_a_wrong_passphrase_is_in_no_traceback(tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "signer", key="rsa", passphrase=SECRET)
    with pytest.raises(InvalidCertificate, match="passphrase does not open") as caught:
        load_signer(leaf.key, leaf.crt, lambda: b"planted pony")
    assert "planted" not in everything_said(caught.value)


USES: dict[str, tuple[tuple[str, ...], bool, bool]] = {
    # uses, whether there is the extension, whether we sign
    "digitalSignature": (("digital_signature",), True, True),
    "nonRepudiation": (("content_commitment",), True, True),
    "both and more": (("digital_signature", "content_commitment", "data_encipherment"), True, True),
    "no extension": ((), False, True),
    "encipherment only": (("key_encipherment", "data_encipherment"), True, False),
    "issuing only": (("key_cert_sign", "crl_sign"), True, False),
}


@pytest.mark.parametrize(("uses", "extension", "good"), USES.values(), ids=USES)
def test_the_key_usage_has_to_allow_signatures(
    uses: tuple[str, ...], extension: bool, good: bool, tmp_path: Path
) -> None:
    key = make_key("rsa", "uses")
    assert isinstance(key, rsa.RSAPrivateKey)
    certificate = certificate_of(Ca(), key.public_key(), *uses, extension=extension)
    credential = Credential(certificate, (), key)
    if good:
        assert _signs(FileSigner(credential), tmp_path)
        return
    with pytest.raises(InvalidCertificate) as caught:
        FileSigner(credential, where="signer.crt")
    assert str(caught.value).startswith("signer.crt: found a certificate that is not for signature")
    assert caught.value.clause == "RFC 5280 4.2.1.3"


def test_an_ec_key_is_refused(tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "signer")
    with pytest.raises(InvalidCertificate) as caught:
        load_signer(leaf.key, leaf.crt)
    found = caught.value
    assert (found.found, found.wanted, found.clause) == (
        "an EC key",
        "an RSA key",
        "PS3.15 C.1",
    )
    assert found.where == str(leaf.crt)


def test_a_short_key_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "signer", key="rsa1024")
    with pytest.raises(InvalidCertificate, match="found an RSA key of 1024 bits, wanted 2048 to 8"):
        load_signer(leaf.key, leaf.crt)
    assert _signs(load_signer(leaf.key, leaf.crt, min_bits=1024), tmp_path)


def test_a_very_long_key_is_refused() -> None:
    key = make_key("rsa", "long")
    assert isinstance(key, rsa.RSAPrivateKey)
    modulus = (1 << 8200) + 1  # nobody has to find its factors
    certificate = certificate_of(
        Ca(), rsa.RSAPublicNumbers(65537, modulus).public_key(), "digital_signature"
    )
    with pytest.raises(InvalidCertificate, match="found an RSA key of 8201 bits"):
        FileSigner(Credential(certificate, (), key))


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_credential_put_together_wrongly_is_refused(kind: Any, tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "signer", key="rsa")
    with pytest.raises(InvalidCertificate, match="does not belong to the certificate"):
        FileSigner(Credential(leaf.certificate, (), make_key(kind, "another")))


def test_a_certificate_with_broken_extensions_is_refused() -> None:
    key = make_key("rsa", "broken")
    assert isinstance(key, rsa.RSAPrivateKey)
    der = certificate_of(Ca(), key.public_key(), "digital_signature").public_bytes(Encoding.DER)
    # keyUsage 2.5.29.15, critical, OCTET STRING { BIT STRING }: the BIT STRING becomes an INTEGER
    broken = der.replace(
        bytes.fromhex("0603551d0f0101ff0404 03"), bytes.fromhex("0603551d0f0101ff0404 02")
    )
    assert broken != der
    certificate = x509.load_der_x509_certificate(broken)
    with pytest.raises(InvalidCertificate, match="extensions cannot be read"):
        FileSigner(Credential(certificate, (), key))


NO_DIGEST_INFO: dict[str, bytes] = {
    "nothing": b"",
    "a bare hash": bytes(32),
    "a hash that begins like one": b"\x30\x1e" + bytes(30),
    "one cut short": bytes.fromhex(PREFIXES["sha256"]) + bytes(31),
    "one with more after it": bytes.fromhex(PREFIXES["sha256"]) + bytes(33),
    "one without its hash": bytes.fromhex("30 0d 30 09 06 05 2b 0e 03 02 1a 05 00 04 00"),
    "one that is too long": b"\x30\x81\x86" + bytes(134),
    "inner length beyond the end": b"\x30\x04\x30\xff\x04\x00",
}


@pytest.mark.parametrize("octets", NO_DIGEST_INFO.values(), ids=NO_DIGEST_INFO)
def test_only_a_digest_info_is_signed(octets: bytes, tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "signer", key="rsa")
    signer = FileSigner(load_credential(leaf.crt, leaf.key))
    with pytest.raises(InvalidInput, match="are no DigestInfo"):
        signer.sign_digest_info(octets)


def test_without_the_extra_a_token_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dicom_secure_node.pki.token", None)  # cannot be imported
    with pytest.raises(MissingExtra, match=r'"dicom-secure-node\[hsm\]"'):
        load_signer("pkcs11:token=a;object=b?module-path=/usr/lib/x.so", None, _ask)
