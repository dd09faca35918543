"""Signing keys in a token (SoftHSM): made there, never out of it, and used with care."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from pkcs11 import Attribute, AttributeSensitive, ObjectClass

from dicom_secure_node.errors import (
    ConfigurationError,
    InvalidCertificate,
    InvalidInput,
    SecureNodeError,
    ServiceUnavailable,
)
from dicom_secure_node.pki.signers import Signer, TokenSigner, load_signer
from dicom_secure_node.pki.token_uri import parse_token_uri
from tests import softhsm
from tests.certs import Ca, make_key
from tests.pki.secrets_shown import everything_said
from tests.pki.signing import (
    PREFIXES,
    certificate_of,
    digest_info,
    openssl_verifies,
)

CONTENT = b"an instance"
KEY, ID = "signing", b"\x01"


class Pin:
    """Gives the PIN and counts how often it was asked for."""

    def __init__(self, text: str = softhsm.PIN) -> None:
        self.text = text
        self.asked = 0

    def __call__(self) -> bytes:
        self.asked += 1
        return self.text.encode()


@pytest.fixture(scope="module")
def ca() -> Ca:
    return Ca().intermediate()


@pytest.fixture(scope="module")
def lab(ca: Ca) -> softhsm.Token:
    """A token with one good key and its certificate and chain; no test changes it."""
    token = softhsm.token("lab")
    certificate = certificate_of(ca, token.generate(KEY, ID), "content_commitment")
    token.put_certificate(certificate, KEY, ID)
    token.put_certificate(ca.certificate, "intermediate", b"\x70")
    stranger = certificate_of(Ca("Stranger"), rsa_key("stranger"), name="stranger")
    token.put_certificate(stranger, "stranger", b"\x71")
    return token


@pytest.fixture
def signer(lab: softhsm.Token) -> Iterator[Signer]:
    with closing(load_signer(lab.uri(KEY), None, Pin())) as signer:
        yield signer


def rsa_key(name: str) -> rsa.RSAPublicKey:
    key = make_key("rsa", name)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.public_key()


def _signs(signer: Signer, folder: Path, name: str = "sha256") -> bool:
    signature = signer.sign_digest_info(digest_info(name, folder, CONTENT))
    key: Any = signer.certificate.public_key()
    return openssl_verifies(name, signature, key, folder, CONTENT)


def test_the_key_of_these_tests_stays_in_the_token(lab: softhsm.Token) -> None:
    with lab.session() as session:
        key: Any
        (key,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        assert key[Attribute.SENSITIVE]
        assert not key[Attribute.EXTRACTABLE]
        with pytest.raises(AttributeSensitive):
            key[Attribute.PRIVATE_EXPONENT]


@pytest.mark.parametrize("name", PREFIXES)
def test_openssl_verifies_each_hash_a_token_signed(
    name: str, signer: Signer, tmp_path: Path
) -> None:
    assert _signs(signer, tmp_path, name)


@pytest.mark.parametrize("named", [(KEY, None), (None, ID), (KEY, ID)], ids=["label", "id", "both"])
def test_a_key_is_found_by_label_and_by_id(
    named: tuple[str | None, bytes | None], lab: softhsm.Token, tmp_path: Path
) -> None:
    with closing(load_signer(lab.uri(*named), None, Pin())) as signer:
        assert signer.subject == "CN=signer"
        assert _signs(signer, tmp_path)


def test_the_chain_is_taken_from_the_token(signer: Signer, ca: Ca) -> None:
    assert signer.chain == (ca.certificate,)


def test_the_certificate_may_be_in_a_file(ca: Ca, tmp_path: Path) -> None:
    token = softhsm.token("no certificate")
    certificate = certificate_of(ca, token.generate(KEY, ID), "digital_signature")
    file = tmp_path / "signer.crt"
    members = (certificate, ca.certificate)
    file.write_bytes(b"".join(member.public_bytes(Encoding.PEM) for member in members))
    with closing(load_signer(token.uri(KEY), file, Pin())) as signer:
        assert (signer.certificate, signer.chain) == (certificate, (ca.certificate,))
        assert _signs(signer, tmp_path)


def test_the_certificate_may_have_the_label_of_the_key_only(ca: Ca, tmp_path: Path) -> None:
    token = softhsm.token("by label")
    certificate = certificate_of(ca, token.generate(KEY, ID), "digital_signature")
    token.put_certificate(certificate, KEY, b"\x99")
    with closing(load_signer(token.uri(key_id=ID), None, Pin())) as signer:
        assert signer.certificate == certificate


def test_a_token_may_be_named_by_its_serial_number(lab: softhsm.Token, tmp_path: Path) -> None:
    found = pkcs11.lib(str(softhsm.MODULE)).get_token(token_label=lab.label)
    uri = f"pkcs11:serial={found.serial.decode()};object={KEY}?module-path={softhsm.MODULE}"
    with closing(load_signer(uri, None, Pin())) as signer:
        assert _signs(signer, tmp_path)


def test_the_pin_may_be_in_a_file(lab: softhsm.Token, tmp_path: Path) -> None:
    file = tmp_path / "the pin"
    file.write_text(f"{softhsm.PIN}\n")
    uri = lab.uri(KEY, query=f"&pin-source=file:{str(file).replace(' ', '%20')}")
    pin = Pin("not asked")
    with closing(load_signer(uri, None, pin)) as signer:
        assert _signs(signer, tmp_path)
    assert pin.asked == 0


def test_a_key_that_wants_the_pin_each_time_gets_it(ca: Ca, tmp_path: Path) -> None:
    token = softhsm.token("each time")
    key = token.generate(KEY, ID, ALWAYS_AUTHENTICATE=True)
    token.put_certificate(certificate_of(ca, key, "content_commitment"), KEY, ID)
    pin = Pin()
    with closing(load_signer(token.uri(KEY), None, pin)) as signer:
        before = pin.asked
        assert _signs(signer, tmp_path)
        assert pin.asked == before + 1
        pin.text = "planted-wrong"
        for _ in range(3):
            with pytest.raises(ConfigurationError, match="refused the PIN") as caught:
                _signs(signer, tmp_path)
            assert "planted" not in everything_said(caught.value)
        assert pin.asked == before + 2


def test_eight_threads_share_a_signer(signer: Signer, tmp_path: Path) -> None:
    octets = digest_info("sha512", tmp_path, CONTENT)
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(signer.sign_digest_info, [octets] * 64))
    (signature,) = made  # PKCS #1 v1.5 is deterministic
    key: Any = signer.certificate.public_key()
    assert openssl_verifies("sha512", signature, key, tmp_path, CONTENT)


def test_two_signers_share_a_token_and_one_may_go(lab: softhsm.Token, tmp_path: Path) -> None:
    octets = digest_info("sha256", tmp_path, CONTENT)
    pins = Pin(), Pin()
    first, second = (load_signer(lab.uri(KEY), None, pin) for pin in pins)
    with closing(second), ThreadPoolExecutor(8) as threads:
        wanted = [threads.submit(second.sign_digest_info, octets) for _ in range(64)]
        first.close()  # which ends the login of both
        assert len({one.result() for one in wanted}) == 1
        assert _signs(second, tmp_path)
    assert pins[1].asked <= 2


def test_nobody_waits_for_ever_for_a_token_that_is_busy(lab: softhsm.Token, tmp_path: Path) -> None:
    octets = digest_info("sha256", tmp_path, CONTENT)
    asked, answer = threading.Event(), threading.Event()

    def slowly() -> bytes:
        asked.set()
        answer.wait(60)
        return softhsm.PIN.encode()

    address = parse_token_uri(lab.uri(KEY))
    with (
        closing(TokenSigner(address, Pin(), seconds=0.01)) as signer,
        ThreadPoolExecutor(1) as thread,
    ):
        other = thread.submit(TokenSigner, address, slowly)
        assert asked.wait(60)
        with pytest.raises(ServiceUnavailable, match=r"token 'lab': busy for 0\.01 seconds"):
            signer.sign_digest_info(octets)
        answer.set()
        other.result().close()
        assert _signs(signer, tmp_path)


def test_a_lost_session_is_opened_again(
    lab: softhsm.Token, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pin = Pin()
    with closing(load_signer(lab.uri(KEY), None, pin)) as signer:
        softhsm.lose_sessions()
        with caplog.at_level(logging.DEBUG):
            assert _signs(signer, tmp_path)
        assert pin.asked == 2
    assert "token 'lab': session handle invalid; opening it again" in caplog.text
    assert "planted" not in caplog.text


def test_a_token_that_is_away_is_unavailable_until_it_is_back(ca: Ca, tmp_path: Path) -> None:
    token = softhsm.token("pulled out")
    key = token.generate(KEY, ID)
    token.put_certificate(certificate_of(ca, key, "digital_signature"), KEY, ID)
    pin = Pin()
    with closing(load_signer(token.uri(KEY), None, pin)) as signer:
        with token.away():
            for _ in range(3):
                with pytest.raises(ServiceUnavailable, match="token 'pulled out'") as caught:
                    _signs(signer, tmp_path)
                assert "planted" not in everything_said(caught.value)
        assert pin.asked == 1  # nothing to log in to
        assert _signs(signer, tmp_path)
        assert pin.asked == 2


def test_a_wrong_pin_is_tried_once(
    lab: softhsm.Token, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pin = Pin("planted-wrong")
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError) as caught:
        load_signer(lab.uri(KEY), None, pin)
    assert pin.asked == 1
    assert str(caught.value).startswith("token 'lab': it refused the PIN; it was not tried again")
    assert "planted" not in everything_said(caught.value) + caplog.text


def test_a_pin_that_changed_is_tried_once(
    lab: softhsm.Token, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pin = Pin()
    with caplog.at_level(logging.DEBUG), closing(load_signer(lab.uri(KEY), None, pin)) as signer:
        softhsm.lose_sessions()
        pin.text = "planted-wrong"
        for _ in range(3):
            with pytest.raises(ConfigurationError, match="it refused the PIN") as caught:
                _signs(signer, tmp_path)
            assert "planted" not in everything_said(caught.value)
        assert pin.asked == 2
        assert repr(signer) == "TokenSigner(token 'lab')"
    assert "planted" not in caplog.text


@pytest.mark.parametrize("given", [b"", b"planted\xff"], ids=["empty", "no UTF-8"])
def test_a_pin_that_cannot_be_one_is_not_tried(given: bytes, lab: softhsm.Token) -> None:
    with pytest.raises(ConfigurationError, match="token 'lab': the PIN is") as caught:
        load_signer(lab.uri(KEY), None, lambda: given)
    assert "planted" not in everything_said(caught.value)
    assert "not tried" not in str(caught.value)


def test_a_closed_signer_signs_nothing(lab: softhsm.Token, tmp_path: Path) -> None:
    signer = load_signer(lab.uri(KEY), None, Pin())
    signer.close()
    signer.close()
    with pytest.raises(ServiceUnavailable, match="the signer is closed"):
        _signs(signer, tmp_path)


def test_a_bare_hash_is_not_signed(signer: Signer) -> None:
    with pytest.raises(InvalidInput, match="32 bytes that are no DigestInfo"):
        signer.sign_digest_info(bytes(32))


def test_a_token_exchanged_for_another_of_the_same_names_is_noticed(ca: Ca, tmp_path: Path) -> None:
    token = softhsm.token("exchanged")
    key = token.generate(KEY, ID)
    token.put_certificate(certificate_of(ca, key, "digital_signature"), KEY, ID)
    with closing(load_signer(token.uri(KEY), None, Pin())) as signer:
        softhsm.lose_sessions()
        with token.session() as session:
            for held in list(session.get_objects({Attribute.LABEL: KEY})):
                held.destroy()
        token.generate(KEY, ID)
        with pytest.raises(InvalidCertificate, match="does not belong to the certificate"):
            _signs(signer, tmp_path)


def _own(token: softhsm.Token, *uses: str, key: rsa.RSAPublicKey | None = None) -> None:
    made = token.generate(KEY, ID)
    token.put_certificate(certificate_of(Ca(), key or made, *uses), KEY, ID)


def _ec(token: softhsm.Token) -> None:
    key = token.generate_ec(KEY, ID)
    token.put_certificate(certificate_of(Ca(), key, "digital_signature"), KEY, ID)


def _short(token: softhsm.Token) -> None:
    key = token.generate(KEY, ID, 1024)
    token.put_certificate(certificate_of(Ca(), key, "digital_signature"), KEY, ID)


def _two_keys(token: softhsm.Token) -> None:
    token.generate(KEY, ID)
    token.generate(KEY, ID)


def _two_certificates(token: softhsm.Token) -> None:
    key = token.generate(KEY, ID)
    for _ in range(2):
        token.put_certificate(certificate_of(Ca(), key, "digital_signature"), KEY, ID)


def _not_for_signing(token: softhsm.Token) -> None:
    key = token.generate(KEY, ID, SIGN=False)
    token.put_certificate(certificate_of(Ca(), key, "digital_signature"), KEY, ID)


WRONG: dict[str, tuple[Callable[[softhsm.Token], None], type[SecureNodeError], str]] = {
    "an EC key": (_ec, InvalidCertificate, r"found an EC key, wanted an RSA key \(PS3.15 C.1\)"),
    "a short key": (_short, InvalidCertificate, "an RSA key of 1024 bits"),
    "no key": (lambda _: None, ConfigurationError, "no private keys with label 'signing'"),
    "two keys": (_two_keys, ConfigurationError, "found 2 private keys"),
    "no certificate": (
        lambda token: token.generate(KEY, ID) and None,
        ConfigurationError,
        "found no certificates",
    ),
    "two certificates": (_two_certificates, ConfigurationError, "found 2 certificates"),
    "another's certificate": (
        lambda token: _own(token, "digital_signature", key=rsa_key("another")),
        InvalidCertificate,
        "does not belong to the certificate",
    ),
    "a certificate for encipherment": (
        lambda token: _own(token, "key_encipherment"),
        InvalidCertificate,
        "not for signatures",
    ),
    "a key that may not sign": (_not_for_signing, ConfigurationError, "may not sign"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_sign_is_refused_when_the_signer_is_made(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill, error, words = WRONG[case]
    token = softhsm.token(f"wrong: {case}"[:32])
    fill(token)
    with caplog.at_level(logging.DEBUG), pytest.raises(error, match=words) as caught:
        load_signer(token.uri(KEY), None, Pin())
    assert "planted" not in everything_said(caught.value) + caplog.text


def test_a_wrong_certificate_file_is_seen_before_the_pin_is_asked_for(
    lab: softhsm.Token, tmp_path: Path
) -> None:
    leaf = Ca().write(tmp_path, "ec")
    pin = Pin()
    with pytest.raises(InvalidCertificate, match="found an EC key"):
        load_signer(lab.uri(KEY), leaf.crt, pin)
    assert pin.asked == 0


def test_a_certificate_file_of_another_key_is_refused(lab: softhsm.Token, tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "another", key="rsa")
    with pytest.raises(InvalidCertificate, match="does not belong to the certificate"):
        load_signer(lab.uri(KEY), leaf.crt, Pin())


def test_a_token_that_is_not_there_is_said_to_be_away(lab: softhsm.Token) -> None:
    pin = Pin()
    uri = f"pkcs11:token=nobody;object={KEY}?module-path={softhsm.MODULE}"
    with pytest.raises(ServiceUnavailable, match=r"token 'nobody': it is not there; .*'lab'"):
        load_signer(uri, None, pin)
    assert pin.asked == 0


def test_two_tokens_of_one_name_need_the_serial_number() -> None:
    for _ in range(2):
        softhsm.token("twin")
    pin = Pin()
    uri = f"pkcs11:token=twin;object={KEY}?module-path={softhsm.MODULE}"
    with pytest.raises(ConfigurationError, match="found 2 of them, wanted one: name its serial"):
        load_signer(uri, None, pin)
    assert pin.asked == 0


LIBRARIES = {"none": "/nowhere/x.so", "no PKCS#11": "/lib/x86_64-linux-gnu/libc.so.6"}


@pytest.mark.parametrize("path", LIBRARIES.values(), ids=LIBRARIES)
def test_a_library_that_is_none_is_a_wrong_setting(path: str) -> None:
    with pytest.raises(ConfigurationError, match="does not load as a PKCS#11 library"):
        load_signer(f"pkcs11:token=lab;object=a?module-path={path}", None, Pin())


def test_broken_certificates_in_a_token_are_passed_over(ca: Ca, tmp_path: Path) -> None:
    token = softhsm.token("broken")
    key = token.generate(KEY, ID)
    with token.session() as session:
        for number in range(3):
            session.create_object(
                {
                    Attribute.CLASS: ObjectClass.CERTIFICATE,
                    Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
                    Attribute.TOKEN: True,
                    Attribute.SUBJECT: b"x",
                    Attribute.VALUE: b"no certificate %d" % number,
                }
            )
    certificate: x509.Certificate = certificate_of(ca, key, "digital_signature")
    token.put_certificate(certificate, KEY, ID)
    with closing(load_signer(token.uri(KEY), None, Pin())) as signer:
        assert (signer.certificate, signer.chain) == (certificate, ())
