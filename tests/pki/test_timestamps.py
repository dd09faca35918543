"""Time stamps: openssl and certomancer as authorities, and tokens somebody tampered with."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.errors import (
    ConfigurationError,
    InvalidInput,
    PeerRefused,
    ServiceUnavailable,
)
from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.timestamps import TimestampAuthority, check_token
from dicom_secure_node.pki.trust import TrustStore
from tests.certs import Ca, now
from tests.hospital import REVOKED, START, Hospital
from tests.parts import free_port
from tests.pki.openssl import openssl
from tests.pki.stamping import Stamper, serving

DATA = b"the octets of a signature"
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tsa")


@pytest.fixture(scope="module")
def ca() -> Ca:
    return Ca("Stamping CA")


@pytest.fixture(scope="module")
def stamper(ca: Ca, folder: Path) -> Stamper:
    return Stamper(folder / "good", ca.write(folder, "tsa", usage="time", key="rsa"))


@pytest.fixture(scope="module")
def validator(ca: Ca) -> PathValidator:
    return PathValidator(TrustStore((ca.certificate,)))


@pytest.fixture(scope="module")
def token(stamper: Stamper) -> bytes:
    return stamper.token(DATA)


class TestWithOpenssl:
    @pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
    def test_its_token_is_valid(
        self, digest: str, stamper: Stamper, ca: Ca, validator: PathValidator
    ) -> None:
        before = now()
        verdict = check_token(stamper.token(DATA, digest), DATA, validator)
        assert (verdict.valid, verdict.reason) == (True, "")
        assert verdict.time is not None
        assert before <= verdict.time <= now()
        assert verdict.authority == "CN=tsa,O=Test Hospital"
        assert verdict.policy == "1.2.3.4.1"
        assert verdict.path is not None
        assert verdict.path.chain == (stamper.leaf.certificate, ca.certificate)

    @pytest.mark.parametrize("identifier", ["sha1", "sha256", "sha512"])
    @pytest.mark.parametrize("key", ["rsa", "ec", "ec384"])
    def test_of_every_kind(
        self, key: Any, identifier: str, ca: Ca, tmp_path: Path, validator: PathValidator
    ) -> None:
        """SHA-1 is ESSCertID of RFC 2634, the others ESSCertIDv2 of RFC 5035."""
        leaf = ca.write(tmp_path, "tsa", usage="time", key=key)
        made = Stamper(tmp_path / "tsa", leaf, identifier=identifier).token(DATA)
        assert check_token(made, DATA, validator).reason == ""

    def test_ours_is_good_for_openssl(
        self, stamper: Stamper, ca: Ca, validator: PathValidator, tmp_path: Path
    ) -> None:
        with serving(stamper.answer) as url:
            made = TimestampAuthority(url).stamp(DATA)
        assert check_token(made, DATA, validator).valid
        (tmp_path / "token").write_bytes(made)
        (tmp_path / "data").write_bytes(DATA)
        words = ("-in", tmp_path / "token", "-token_in", "-data", tmp_path / "data")
        anchor = ca.anchor(tmp_path / "ca.crt")
        assert "OK" in openssl("ts", "-verify", *words, "-CAfile", anchor).stdout

    def test_a_whole_response_and_a_pad_byte_are_taken(
        self, stamper: Stamper, token: bytes, validator: PathValidator
    ) -> None:
        whole = (stamper.folder / "whole.tsr").read_bytes()
        assert whole.endswith(token)
        for stored in (token, token + b"\0", whole, whole + b"\0"):
            assert check_token(stored, DATA, validator).valid
        for stored in (token + b"\0\0", token + b"\1", b"\0" + token):
            assert check_token(stored, DATA, validator).reason.startswith("not a time stamp token")

    def test_certificates_in_any_order_are_taken(
        self, ca: Ca, tmp_path: Path, validator: PathValidator
    ) -> None:
        """Openssl writes them as they come; RFC 5652 wants DER's order of a SET OF."""
        between = ca.intermediate()
        leaf = between.write(tmp_path, "tsa", usage="time")
        orders = ((ca.certificate, between.certificate), (between.certificate, ca.certificate))
        for number, more in enumerate(orders):
            made = Stamper(tmp_path / str(number), leaf, more=more).token(DATA)
            verdict = check_token(made, DATA, validator)
            assert verdict.valid, verdict
            assert verdict.path is not None
            assert len(verdict.path.chain) == 3


class TestRefused:
    def test_other_data(self, token: bytes, validator: PathValidator) -> None:
        verdict = check_token(token, DATA + b"!", validator)
        assert (verdict.valid, verdict.reason) == (False, "the token is about other data")

    def test_an_imprint_of_sha1(self, stamper: Stamper, validator: PathValidator) -> None:
        verdict = check_token(stamper.token(DATA, "sha1"), DATA, validator)
        assert verdict.reason == "weak imprint: sha1"

    def test_a_signature_over_sha1(self, ca: Ca, tmp_path: Path, validator: PathValidator) -> None:
        leaf = ca.write(tmp_path, "tsa", usage="time", key="rsa")
        made = Stamper(tmp_path / "tsa", leaf, signature="sha1").token(DATA)
        assert check_token(made, DATA, validator).reason == "weak signature: sha1"

    def test_a_token_without_its_certificate(
        self, stamper: Stamper, validator: PathValidator
    ) -> None:
        verdict = check_token(stamper.token(DATA, "sha256", "-no_nonce"), DATA, validator)
        assert "is not in it" in verdict.reason

    def test_an_authority_of_somebody_else(self, token: bytes) -> None:
        verdict = check_token(token, DATA, PathValidator(TrustStore((Ca("Other").certificate,))))
        assert verdict.reason == "the authority's certificate: unknown issuer"
        assert verdict.time is not None

    def test_a_refusal_stored_as_a_token(self, stamper: Stamper, validator: PathValidator) -> None:
        refused = stamper.answer(b"\x30\x03\x02\x01\x01")
        assert check_token(refused, DATA, validator).reason.startswith(
            "no time stamp token: rejection"
        )

    GARBAGE = (
        b"",
        b"\0",
        b"\x30\x00",
        b"\x30\x80" * 5000,
        b"\x30\x82\xff\xff",
        b"not DER at all",
        b"\x06" * 300,
        bytes(1024 * 1024),
        b"\x30\x83\x10\x00\x00" + bytes(0x100000),
    )

    @pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
    def test_garbage(self, garbage: bytes, validator: PathValidator) -> None:
        verdict = check_token(garbage, DATA, validator)
        assert not verdict.valid
        assert verdict.reason
        assert (verdict.time, verdict.path) == (None, None)

    @given(place=st.integers(0, 10_000), change=st.integers(1, 255))
    def test_a_changed_byte_never_makes_another_statement(
        self, place: int, change: int, token: bytes, validator: PathValidator
    ) -> None:
        """Some bytes are outside the signature: versions, the list of hashes, their parameters."""
        changed = bytearray(token)
        changed[place % len(token)] ^= change
        verdict = check_token(bytes(changed), DATA, validator)
        good = check_token(token, DATA, validator)
        assert not verdict.valid or (verdict.time, verdict.authority, verdict.policy) == (
            good.time,
            good.authority,
            good.policy,
        )


def signed_data(token: bytes) -> cms.SignedData:
    return cms.ContentInfo.load(token)["content"]


def wrapped(signed: cms.SignedData) -> bytes:
    made: bytes = cms.ContentInfo({"content_type": "signed_data", "content": signed}).dump(True)
    return made


def _other_time(signed: cms.SignedData) -> None:
    content = bytes(signed["encap_content_info"]["content"])
    year = re.compile(rb"\x18\x0f20..")  # the beginning of a GeneralizedTime of whole seconds
    changed, count = year.subn(b"\x18\x0f2001", content)
    assert count == 1
    signed["encap_content_info"]["content"] = cms.ParsableOctetString(changed)


def _other_digest(signed: cms.SignedData) -> None:
    _other_time(signed)
    content = bytes(signed["encap_content_info"]["content"])
    for attribute in signed["signer_infos"][0]["signed_attrs"]:
        if attribute["type"].native == "message_digest":
            attribute["values"] = [hashlib.sha256(content).digest()]


def _no_attributes(signed: cms.SignedData) -> None:
    info = signed["signer_infos"][0]
    del info["signed_attrs"]


def _without(kind: str) -> Callable[[cms.SignedData], None]:
    def change(signed: cms.SignedData) -> None:
        info = signed["signer_infos"][0]
        kept = [a for a in info["signed_attrs"] if a["type"].native != kind]
        info["signed_attrs"] = cms.CMSAttributes(kept)

    return change


def _two_signers(signed: cms.SignedData) -> None:
    signed["signer_infos"] = [signed["signer_infos"][0], signed["signer_infos"][0]]


def _no_signer(signed: cms.SignedData) -> None:
    signed["signer_infos"] = []


def _twice(signed: cms.SignedData) -> None:
    info = signed["signer_infos"][0]
    info["signed_attrs"] = cms.CMSAttributes([*info["signed_attrs"], info["signed_attrs"][0]])


def _other_signature(signed: cms.SignedData) -> None:
    signed["signer_infos"][0]["signature"] = bytes(256)


def _other_content(signed: cms.SignedData) -> None:
    signed["encap_content_info"]["content_type"] = "data"


TAMPERED: dict[str, tuple[Callable[[cms.SignedData], None], str]] = {
    "another time": (_other_time, "bad signature: the content was changed"),
    "another time and digest": (_other_digest, "bad signature"),
    "no signed attributes": (_no_attributes, "the certificate that"),
    "no content type": (_without("content_type"), "no signed attributes"),
    "no message digest": (_without("message_digest"), "no signed attributes"),
    "no identifier": (_without("signing_certificate_v2"), "the certificate that"),
    "two signers": (_two_signers, "2 signers"),
    "no signer": (_no_signer, "0 signers"),
    "an attribute twice": (_twice, "a signed attribute that is there twice"),
    "another signature": (_other_signature, "bad signature"),
    "other content": (_other_content, "not a time stamp token"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), TAMPERED.values(), ids=TAMPERED)
def test_a_token_with(
    change: Callable[[cms.SignedData], None], reason: str, token: bytes, validator: PathValidator
) -> None:
    signed = signed_data(token)
    change(signed)
    verdict = check_token(wrapped(signed), DATA, validator)
    assert verdict.reason.startswith(reason)
    assert not verdict.valid


def test_a_certificate_put_in_place_of_the_signer_s(
    ca: Ca, folder: Path, stamper: Stamper, token: bytes, validator: PathValidator
) -> None:
    """Same key, name and number, other dates: the signed identifier says which one was meant."""
    signed = signed_data(token)
    longer = ca.certify("tsa", stamper.leaf.private_key, usage="time", end=now() + 3000 * DAY)
    signed["certificates"] = [cms.CertificateChoices.load(_der(longer))]
    assert "is not in it" in check_token(wrapped(signed), DATA, validator).reason


def _der(certificate: Any) -> bytes:
    made: bytes = certificate.public_bytes(Encoding.DER)
    return made


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("hospital"))


class TestAuthorityOfAHospital:
    """certomancer stamps at any moment; its certificates end and are revoked."""

    TODAY = datetime(2026, 2, 1, tzinfo=UTC)
    BEFORE = REVOKED - 30 * DAY

    CASES = (
        pytest.param("tsa", TODAY, "", id="a good one"),
        pytest.param("tsa", START + DAY, "", id="a good one, long ago"),
        pytest.param("tsa-replaced", BEFORE, "", id="one replaced later"),
        pytest.param("tsa-replaced", TODAY, "revoked on", id="one replaced before"),
        pytest.param("tsa-stolen", BEFORE, "revoked on", id="one stolen later"),
        pytest.param("tsa-short-lived", TODAY, "expired", id="one expired at genTime"),
    )

    @pytest.mark.parametrize(("name", "at", "reason"), CASES)
    def test_a_token(self, name: str, at: datetime, reason: str, hospital: Hospital) -> None:
        store = TrustStore(
            (hospital.certificate("root"),), (hospital.crl(self.TODAY),), check_revocation=True
        )
        validator = PathValidator(store, clock=lambda: self.TODAY)
        verdict = check_token(hospital.token(name, DATA, at), DATA, validator)
        assert verdict.reason.startswith(f"the authority's certificate: {reason}" if reason else "")
        assert verdict.valid == (not reason), verdict
        assert verdict.time == at

    def test_one_that_expired_since(self, hospital: Hospital) -> None:
        validator = PathValidator(TrustStore((hospital.certificate("root"),)))
        made = hospital.token("tsa-short-lived", DATA, START + DAY)
        assert check_token(made, DATA, validator).valid

    def test_a_certificate_for_other_purposes(self, ca: Ca, tmp_path: Path) -> None:
        """openssl refuses to stamp with it, certomancer does not mind."""
        hospital = Hospital(tmp_path)
        validator = PathValidator(TrustStore((hospital.certificate("root"),)))
        verdict = check_token(hospital.token("signer", DATA, self.TODAY), DATA, validator)
        assert verdict.reason.startswith("the authority's certificate: wrong usage")

    def test_it_is_asked_over_http(self, tmp_path: Path) -> None:
        hospital = Hospital(tmp_path, free_port())
        validator = PathValidator(TrustStore((hospital.certificate("root"),)))
        with hospital.serve():
            url = f"http://127.0.0.1:{hospital.port}/hospital/tsa/tsa"
            made = TimestampAuthority(url, hash="sha512").stamp(DATA)
        assert check_token(made, DATA, validator).valid


class TestAsking:
    def test_another_policy_is_had_or_refused(self, stamper: Stamper) -> None:
        with serving(stamper.answer) as url:
            TimestampAuthority(url, policy="1.2.3.4.2").stamp(DATA)
            with pytest.raises(PeerRefused, match="rejection, unaccepted_policy"):
                TimestampAuthority(url, policy="1.2.3.4.3").stamp(DATA)

    @pytest.mark.parametrize(
        ("other", "what"),
        [
            ({"nonce": lambda: 7}, "another nonce"),
            ({"hash": "sha384"}, "another imprint"),
        ],
        ids=["another nonce", "another hash"],
    )
    def test_an_answer_to_another_request_is_none(
        self, other: dict[str, Any], what: str, stamper: Stamper
    ) -> None:
        kept: list[bytes] = []

        def first(query: bytes) -> bytes:
            kept.append(kept[0] if kept else stamper.answer(query))
            return kept[-1]

        with serving(first) as url:
            TimestampAuthority(url, nonce=lambda: 5).stamp(DATA)
            with pytest.raises(InvalidInput, match=what):
                TimestampAuthority(url, **{"nonce": lambda: 5, **other}).stamp(DATA)
            with pytest.raises(InvalidInput, match="another imprint"):
                TimestampAuthority(url, nonce=lambda: 5).stamp(DATA + b"!")

    @pytest.mark.parametrize("answer", [b"", b"nonsense", b"\x30\x00", b"\x30\x03\x02\x01\x00"])
    def test_nonsense_is_no_answer(self, answer: bytes) -> None:
        with serving(lambda _: answer) as url, pytest.raises(InvalidInput):
            TimestampAuthority(url).stamp(DATA)

    def test_a_bare_token_is_no_answer(self, token: bytes) -> None:
        with serving(lambda _: token) as url, pytest.raises(InvalidInput, match="TimeStampResp"):
            TimestampAuthority(url).stamp(DATA)

    def test_a_long_answer_is_not_read(self) -> None:
        with (
            serving(lambda _: bytes(100_000)) as url,
            pytest.raises(ServiceUnavailable, match="more than 65536"),
        ):
            TimestampAuthority(url).stamp(DATA)

    def test_another_status_is_no_answer(self) -> None:
        with (
            serving(lambda _: b"", 503) as url,
            pytest.raises(ServiceUnavailable, match=r"timestamp authority 127.*HTTP status 503"),
        ):
            TimestampAuthority(url).stamp(DATA)

    def test_nobody_there(self) -> None:
        authority = TimestampAuthority(f"http://127.0.0.1:{free_port()}/")
        with pytest.raises(ServiceUnavailable, match="timestamp authority"):
            authority.stamp(DATA)

    def test_one_that_says_nothing_is_given_up(self) -> None:
        given_up = threading.Event()

        def silent(query: bytes) -> bytes:
            given_up.wait(60)
            return b""

        with serving(silent) as url:
            with pytest.raises(ServiceUnavailable, match=r"within 0\.2 s|time-out"):
                TimestampAuthority(url, timeout=0.2).stamp(DATA)
            given_up.set()

    @pytest.mark.parametrize(
        ("url", "more"),
        [
            ("ftp://tsa.example/", {}),
            ("http://user@tsa.example/", {}),
            ("http://tsa.example/a b", {}),
            ("tsa.example", {}),
            ("http://tsa.example/", {"hash": "sha1"}),
            ("http://tsa.example/", {"policy": "none"}),
        ],
    )
    def test_a_wrong_setting_is_said_at_once(self, url: str, more: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            TimestampAuthority(url, **more)


def test_without_the_extra_it_says_what_is_missing() -> None:
    program = """
import sys
for name in ("asn1crypto", "pyhanko_certvalidator"):
    sys.modules[name] = None
from dicom_secure_node.errors import MissingExtra
from dicom_secure_node.pki import timestamps
for use in (lambda: timestamps.TimestampAuthority("http://tsa.example/"),
            lambda: timestamps.check_token(b"", b"", None)):
    try:
        use()
    except MissingExtra as exc:
        print(exc.extra)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout == "sign\nsign\n"
