"""PKCS#12 files as openssl writes them, wrong ones, and where passphrases come from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs12

from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.pki.credential import load_pkcs12
from dicom_secure_node.pki.files import passphrase_source
from tests.certs import Ca, Leaf
from tests.pki.openssl import SECRET, export
from tests.pki.secrets_shown import everything_said


def _ask() -> bytes:
    return SECRET


def _never() -> bytes:
    pytest.fail("nothing is encrypted, so nobody is to be asked")


EXPORTS: dict[str, tuple[tuple[str, ...], bytes, Callable[[], bytes]]] = {
    "as openssl 3 writes them": ((), SECRET, _ask),
    "as older programs wrote them": (("-legacy",), SECRET, _ask),
    "without a MAC": (("-nomac",), SECRET, _ask),
    "with certificates in the clear": (("-certpbe", "NONE"), SECRET, _ask),
    "with the empty passphrase": ((), b"", _never),
    "with nothing encrypted": (
        ("-keypbe", "NONE", "-certpbe", "NONE", "-nomac"),
        SECRET,
        _never,
    ),
}


@pytest.mark.parametrize(("words", "secret", "ask"), EXPORTS.values(), ids=EXPORTS)
def test_a_pkcs12_file_loads(
    words: tuple[str, ...], secret: bytes, ask: Callable[[], bytes], tmp_path: Path
) -> None:
    leaf = Ca().intermediate().write(tmp_path, "node", key="rsa")
    credential = load_pkcs12(export(leaf, *words, secret=secret), ask)
    assert (credential.certificate, credential.chain) == (leaf.certificate, leaf.chain)
    assert credential.key.public_key() == leaf.private_key.public_key()


def test_the_chain_of_a_pkcs12_file_is_put_in_order_and_the_root_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Ca()
    leaf = root.intermediate("Upper").intermediate("Lower").write(tmp_path, "signer", key="rsa")
    stranger = root.write(tmp_path, "stranger", key="rsa")
    more = tmp_path / "more.pem"
    members = [stranger.certificate, root.certificate, *reversed(leaf.chain)]
    more.write_bytes(b"".join(member.public_bytes(Encoding.PEM) for member in members))
    # not the leaf's own bundle: the leaf last of all
    alone = tmp_path / "alone.crt"
    alone.write_bytes(leaf.certificate.public_bytes(Encoding.PEM))
    path = export(leaf, "-in", alone, "-certfile", more)
    with caplog.at_level(logging.WARNING):
        credential = load_pkcs12(path, _ask)
    assert credential.certificate == leaf.certificate
    assert credential.chain == leaf.chain
    assert "1 certificates do not lead upwards" in caplog.text


def _garbage(leaf: Leaf) -> Path:
    path = leaf.key.with_suffix(".p12")
    path.write_bytes(b"\x30\x82\x01\x00garbage")
    return path


def _cut(leaf: Leaf) -> Path:
    path = export(leaf)
    path.write_bytes(path.read_bytes()[:-9])
    return path


def _pem(leaf: Leaf) -> Path:
    return leaf.crt.rename(leaf.crt.with_suffix(".p12"))


def _huge(leaf: Leaf) -> Path:
    path = leaf.key.with_suffix(".p12")
    path.write_bytes(bytes(9 * 1024 * 1024))
    return path


def _foreign(leaf: Leaf) -> Path:
    other = Ca().write(leaf.key.parent, "other", key="rsa").certificate
    path = leaf.key.with_suffix(".p12")
    key = leaf.private_key
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(b"x", key, None, [other], NoEncryption())
    )
    return path


WRONG_P12: dict[str, tuple[Callable[[Leaf], Path], Callable[[], bytes] | None, str]] = {
    "wrong passphrase": (export, lambda: b"planted pony", "passphrase does not open"),
    "no passphrase": (export, None, "no passphrase given"),
    "no key": (lambda leaf: export(leaf, "-nokeys"), _ask, "without a private key"),
    "no certificate": (lambda leaf: export(leaf, "-nocerts"), _ask, "no certificate"),
    "another's certificate": (_foreign, None, "1 certificates, none of the key"),
    "garbage": (_garbage, _ask, "neither PEM nor DER"),
    "cut short": (_cut, _ask, "broken"),
    "a certificate": (_pem, _ask, "PEM of kind certificate, wanted a PKCS#12 file"),
    "far too long": (_huge, _ask, "more than 8388608 bytes"),
}


@pytest.mark.parametrize(("make", "ask", "words"), WRONG_P12.values(), ids=WRONG_P12)
def test_a_wrong_pkcs12_file_is_called_what_it_is(
    make: Callable[[Leaf], Path],
    ask: Callable[[], bytes] | None,
    words: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = make(Ca().write(tmp_path, "signer", key="rsa"))
    with caplog.at_level(logging.DEBUG), pytest.raises(InvalidCertificate) as caught:
        load_pkcs12(path, ask)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "planted" not in everything_said(caught.value) + caplog.text


def test_a_passphrase_comes_from_a_file_or_from_somebody(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_bytes(b"first line\r\nsecond line\n")
    from_file = passphrase_source(file, _never)
    assert from_file is not None
    assert from_file() == b"first line"
    file.write_bytes(b"another")
    assert from_file() == b"another"
    assert passphrase_source(None, _ask) is _ask
    assert passphrase_source(None) is None


def test_a_passphrase_file_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    missing = passphrase_source(tmp_path / "missing")
    (tmp_path / "long").write_bytes(b"planted" * 1000)
    long = passphrase_source(tmp_path / "long")
    assert missing is not None
    assert long is not None
    with pytest.raises(ConfigurationError, match="missing: no such file"):
        missing()
    with pytest.raises(InvalidCertificate, match="more than 4096 bytes") as caught:
        long()
    assert "planted" not in str(caught.value)
