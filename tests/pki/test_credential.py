"""Credentials: what loads, what each wrong file is called, and that no secret escapes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.pki.credential import load_credential, load_credential_base
from dicom_secure_node.pki.files import read_certificates, read_crls, read_key
from tests.certs import Ca, Leaf
from tests.pki.openssl import openssl

SECRET = b"correct horse"


@pytest.mark.parametrize(("key", "kind"), [("rsa", "RSA"), ("ec", "EC"), ("ec384", "EC")])
def test_a_pair_loads(key: str, kind: str, tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "node", key=key)
    credential = load_credential(leaf.crt, leaf.key)
    assert credential.certificate == leaf.certificate
    assert credential.chain == ()
    assert credential.key_kind == kind
    assert credential.subject == "CN=node,O=Test Hospital"


def test_a_base_may_hold_dots(tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "ct.radiology")
    assert load_credential_base(tmp_path / "ct.radiology").certificate == leaf.certificate


def test_one_file_may_hold_all(tmp_path: Path) -> None:
    leaf = Ca().intermediate().write(tmp_path, "node")
    both = tmp_path / "both.pem"
    both.write_bytes(b"a comment\n" + leaf.key.read_bytes() + leaf.crt.read_bytes())
    assert load_credential(both, both).chain == leaf.chain


def test_der_loads(tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "node")
    for words in (("x509", "-in", leaf.crt), ("pkey", "-in", leaf.key)):
        out = tmp_path / f"{words[0]}.der"
        assert openssl(*words, "-outform", "DER", "-out", out).returncode == 0
    credential = load_credential(tmp_path / "x509.der", tmp_path / "pkey.der")
    assert credential.certificate == leaf.certificate


@pytest.mark.parametrize("words", [("rsa", "-traditional"), ("ec",)])
def test_keys_as_older_openssl_writes_them_load(words: tuple[str, ...], tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "node", key=words[0])
    old = tmp_path / "old.key"
    assert openssl(words[0], "-in", leaf.key, *words[1:], "-out", old).returncode == 0
    assert b"PRIVATE KEY" in old.read_bytes()
    assert load_credential(leaf.crt, old).certificate == leaf.certificate


def test_the_chain_is_put_in_order_and_the_root_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Ca()
    lower = root.intermediate("Upper").intermediate("Lower")
    leaf = lower.write(tmp_path, "node")
    stranger = root.intermediate("Stranger")
    members = [leaf.certificate, root.certificate, *reversed(leaf.chain), stranger.certificate]
    leaf.crt.write_bytes(b"".join(member.public_bytes(Encoding.PEM) for member in members))
    with caplog.at_level(logging.WARNING):
        credential = load_credential(leaf.crt, leaf.key)
    assert credential.chain == leaf.chain
    assert "1 certificates do not lead upwards" in caplog.text


def test_two_authorities_that_vouch_for_each_other_do_not_hang(tmp_path: Path) -> None:
    first, second = Ca("First"), Ca("Second")
    crossed = [Ca("First", issuer=second), Ca("Second", issuer=first)]
    leaf = first.write(tmp_path, "node")
    members = [leaf.certificate, *(ca.certificate for ca in crossed)]
    leaf.crt.write_bytes(b"".join(member.public_bytes(Encoding.PEM) for member in members))
    assert len(load_credential(leaf.crt, leaf.key).chain) == 2


def test_the_passphrase_is_asked_for_an_encrypted_key_only(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask() -> bytes:
        asked.append("asked")
        return SECRET

    ca = Ca()
    plain = ca.write(tmp_path, "plain")
    load_credential(plain.crt, plain.key, ask)
    assert asked == []
    locked = ca.write(tmp_path, "locked", passphrase=SECRET)
    load_credential(locked.crt, locked.key, ask)
    assert asked == ["asked"]


def test_no_repr_shows_the_key(tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "node")
    credential = load_credential(leaf.crt, leaf.key)
    assert "key" not in repr(credential).lower()


def _request(leaf: Leaf) -> bytes:
    done = openssl("req", "-new", "-key", leaf.key, "-subj", "/CN=x")
    return done.stdout.encode()


def _p12(leaf: Leaf) -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"x", leaf.private_key, leaf.certificate, None, BestAvailableEncryption(SECRET)
    )


def _ed25519(_: Leaf) -> bytes:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(leaf: Leaf) -> bytes:
    return openssl("pkey", "-in", leaf.key, "-pubout").stdout.encode()


def _without_end(leaf: Leaf) -> bytes:
    return leaf.crt.read_bytes()[:200]


def _broken_pem(leaf: Leaf) -> bytes:
    lines = leaf.crt.read_bytes().splitlines(keepends=True)
    return b"".join([lines[0], *lines[3:]])


def _broken_key(leaf: Leaf) -> bytes:
    lines = leaf.key.read_bytes().splitlines(keepends=True)
    return b"".join([lines[0], *lines[2:]])


def _der(leaf: Leaf) -> bytes:
    return leaf.certificate.public_bytes(Encoding.DER)


WRONG_CERTIFICATES: dict[str, tuple[Callable[[Leaf], bytes], str]] = {
    "nothing": (lambda _: b"", "an empty file"),
    "blanks": (lambda _: b" \n\n", "an empty file"),
    "a request": (_request, "a certificate request"),
    "a key": (lambda leaf: leaf.key.read_bytes(), "PEM of kind private key"),
    "an encrypted PKCS#12 file": (_p12, "a PKCS#12 file"),
    "garbage": (lambda _: b"\x30\x82\x01\x00garbage", "bytes that are neither PEM nor DER"),
    "text": (lambda _: b"see the other folder", "bytes that are neither PEM nor DER"),
    "half a certificate": (_without_end, "a PEM block without its end"),
    "a certificate with a hole": (_broken_pem, "a broken certificate"),
    "half a DER certificate": (
        lambda leaf: _der(leaf)[:-7],
        "bytes that are neither PEM nor DER",
    ),
    "a huge file": (lambda _: bytes(9 * 1024 * 1024), "more than 8388608 bytes"),
}

WRONG_KEYS: dict[str, tuple[Callable[[Leaf], bytes], str]] = {
    "nothing": (lambda _: b"", "an empty file"),
    "the certificate": (lambda leaf: leaf.crt.read_bytes(), "PEM of kind certificate"),
    "the certificate in DER": (_der, "a certificate"),
    "the public half": (_public, "a public key without its private half"),
    "an Ed25519 key": (_ed25519, "a key of kind Ed25519"),
    "a key with a hole": (_broken_key, "a broken private key"),
    "garbage": (lambda _: b"\x00\xff" * 40, "bytes that are neither PEM nor DER"),
    "another's key": (
        lambda leaf: Ca().write(leaf.key.parent, "other").key.read_bytes(),
        "a key that does not belong to the certificate",
    ),
}


@pytest.mark.parametrize("case", WRONG_CERTIFICATES)
def test_a_certificate_file_with(case: str, tmp_path: Path) -> None:
    make, found = WRONG_CERTIFICATES[case]
    leaf = Ca().write(tmp_path, "node")
    wrong = tmp_path / "wrong.crt"
    wrong.write_bytes(make(leaf))
    with pytest.raises(InvalidCertificate) as caught:
        load_credential(wrong, leaf.key)
    assert caught.value.found == found
    assert str(caught.value).startswith(f"{wrong}: found ")


@pytest.mark.parametrize("case", WRONG_KEYS)
def test_a_key_file_with(case: str, tmp_path: Path) -> None:
    make, found = WRONG_KEYS[case]
    leaf = Ca().write(tmp_path, "node")
    wrong = tmp_path / "wrong.key"
    wrong.write_bytes(make(leaf))
    with pytest.raises(InvalidCertificate) as caught:
        load_credential(leaf.crt, wrong)
    assert caught.value.found == found
    assert caught.value.where == str(wrong)


def test_a_chain_upside_down_is_told_apart_from_a_foreign_key(tmp_path: Path) -> None:
    leaf = Ca().intermediate().write(tmp_path, "node")
    members = [*leaf.chain, leaf.certificate]
    leaf.crt.write_bytes(b"".join(member.public_bytes(Encoding.PEM) for member in members))
    with pytest.raises(InvalidCertificate, match="belongs to certificate 2, not to the first"):
        load_credential(leaf.crt, leaf.key)


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_an_encrypted_key_without_or_with_a_wrong_passphrase(form: str, tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "node", passphrase=SECRET)
    if form == "DER":
        encoded = leaf.private_key.private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET)
        )
        leaf.key.write_bytes(encoded)
    with pytest.raises(InvalidCertificate) as caught:
        load_credential(leaf.crt, leaf.key)
    assert caught.value.found == "an encrypted key and no passphrase given"
    for wrong in (b"hunter2 hunter2", b""):
        with pytest.raises(InvalidCertificate) as caught:
            load_credential(leaf.crt, leaf.key, lambda wrong=wrong: wrong)
        assert caught.value.found == "an encrypted key that the passphrase does not open"
        assert "hunter2" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize("read", [read_certificates, read_crls, read_key])
def test_a_missing_file_or_a_folder_is_a_wrong_setting(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="no such file or directory"):
        read(tmp_path / "absent.pem")
    with pytest.raises(ConfigurationError, match="is a directory"):
        read(tmp_path)
