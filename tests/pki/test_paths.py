"""A signer's certificate at a moment: what is believed, what is not, and what stays bounded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.pki.paths import MAX_OTHERS, PathValidator
from dicom_secure_node.pki.trust import TrustStore
from tests.certs import Ca, now
from tests.hospital import END, REVOKED, START, Hospital
from tests.parts import free_port

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def trust(*anchors: x509.Certificate, **more: Any) -> TrustStore:
    return TrustStore(anchors, **more)


@pytest.fixture(scope="module")
def ca() -> Ca:
    return Ca("Paths CA", key="ec")


LEAVES: dict[str, tuple[dict[str, Any], str]] = {
    "a good one": ({}, ""),
    "one whose extended key usage is left open": ({"usage": "none"}, ""),
    "one for mail": ({"usage": "mail"}, ""),
    "an expired one": ({"expired": True}, "expired"),
    "one not yet valid": ({"not_yet_valid": True}, "not yet valid"),
    "a self-signed one": ({"self_signed": True}, "self-signed"),
    "one with a spoilt signature": ({"bad_signature": True}, "bad signature"),
    "one with a short key": ({"key": "rsa1024"}, "weak key"),
    "one signed with SHA-1": ({"digest": "sha1"}, "weak algorithm"),
}


class TestWithoutRevocation:
    @pytest.mark.parametrize(("how", "reason"), LEAVES.values(), ids=LEAVES)
    def test_a_leaf(self, how: dict[str, Any], reason: str, ca: Ca, tmp_path: Path) -> None:
        leaf = ca.write(tmp_path, "leaf", **how).certificate
        verdict = PathValidator(trust(ca.certificate)).check(leaf, now())
        assert verdict.reason.startswith(reason)
        assert verdict.trusted == (not reason) == (not verdict.reason)
        assert verdict.chain == (() if reason == "self-signed" else (leaf, ca.certificate))
        assert (verdict.revocation, verdict.revoked) == ("not checked", None)

    def test_an_empty_store_trusts_nobody(self, ca: Ca, tmp_path: Path) -> None:
        leaf = ca.write(tmp_path, "leaf").certificate
        assert PathValidator(trust()).check(leaf, now()).reason == "no trust anchors"

    def test_the_authorities_of_the_web_are_not_trusted(self, ca: Ca, tmp_path: Path) -> None:
        stranger = Ca("Stranger").write(tmp_path, "leaf").certificate
        verdict = PathValidator(trust(ca.certificate)).check(stranger, now())
        assert (verdict.reason, verdict.chain) == ("unknown issuer", ())

    def test_the_same_name_with_another_key_is_no_authority(self, ca: Ca, tmp_path: Path) -> None:
        leaf = Ca("Paths CA").write(tmp_path, "leaf").certificate
        verdict = PathValidator(trust(ca.certificate)).check(leaf, now())
        assert verdict.reason.startswith("bad signature")

    def test_a_certificate_trusted_for_itself_is(self, ca: Ca, tmp_path: Path) -> None:
        leaf = ca.write(tmp_path, "leaf", self_signed=True).certificate
        validator = PathValidator(trust(leaf, check_revocation=True))
        assert validator.check(leaf, now()).chain == (leaf,)
        assert validator.check(leaf, now()).trusted
        assert validator.check(leaf, now() + 91 * DAY).reason == "expired"
        assert validator.check(leaf, now() - 2 * DAY).reason == "not yet valid"

    def test_but_vouches_for_nobody(self, tmp_path: Path) -> None:
        no_authority = Ca("No authority", ca_flag=False)
        leaf = no_authority.write(tmp_path, "leaf").certificate
        verdict = PathValidator(trust(no_authority.certificate)).check(leaf, now())
        assert verdict.reason == "unknown issuer"

    def test_an_intermediate_that_is_no_authority_vouches_for_nobody(
        self, ca: Ca, tmp_path: Path
    ) -> None:
        between = ca.intermediate(ca_flag=False)
        leaf = between.write(tmp_path, "leaf").certificate
        verdict = PathValidator(trust(ca.certificate)).check(leaf, now(), others=between.chain)
        assert verdict.reason.startswith("bad certificate")

    def test_intermediates_come_from_the_configuration_or_along(
        self, ca: Ca, tmp_path: Path
    ) -> None:
        between = ca.intermediate()
        leaf = between.write(tmp_path, "leaf").certificate
        ours = PathValidator(trust(ca.certificate), intermediates=[between.certificate])
        bare = PathValidator(trust(ca.certificate))
        assert ours.check(leaf, now()).chain == (leaf, between.certificate, ca.certificate)
        assert bare.check(leaf, now(), others=[between.certificate]).trusted
        assert bare.check(leaf, now()).reason == "unknown issuer"

    def test_an_anchor_expires_as_well(self, tmp_path: Path) -> None:
        old = Ca("Old", expired=True)
        leaf = old.write(tmp_path, "leaf").certificate
        validator = PathValidator(trust(old.certificate))
        assert validator.check(leaf, now()).reason == "expired, an authority above"

    @pytest.mark.parametrize(
        ("usage", "reason"), [("time", ""), ("both", "wrong usage"), ("none", "wrong usage")]
    )
    def test_a_time_stamp_needs_its_extended_key_usage(
        self, usage: str, reason: str, ca: Ca, tmp_path: Path
    ) -> None:
        leaf = ca.write(tmp_path, "tsa", usage=usage).certificate
        verdict = PathValidator(trust(ca.certificate)).check(leaf, now(), purpose="timestamp")
        assert verdict.reason.startswith(reason)
        assert verdict.trusted == (not reason)

    def test_a_key_for_encryption_signs_nothing(self, ca: Ca) -> None:
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=True,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        leaf = made(ca, usage)
        assert (
            PathValidator(trust(ca.certificate)).check(leaf, now()).reason.startswith("wrong usage")
        )


def made(
    ca: Ca,
    *extensions: x509.ExtensionType,
    subject: x509.Name | None = None,
    end: datetime | None = None,
) -> x509.Certificate:
    """Return a leaf of `ca` with these extensions only."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "made")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or name)
        .issuer_name(ca.certificate.subject)
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - DAY)
        .not_valid_after(end or now() + DAY)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(ca.key, hashes.SHA256())


class TestSeconds:
    """What is kept from one moment is not used for another where it would be wrong."""

    def test_validity_counts_to_the_second(self, ca: Ca, tmp_path: Path) -> None:
        leaf = ca.write(tmp_path, "leaf").certificate
        validator = PathValidator(trust(ca.certificate))
        first, last = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        moments = (first, first - SECOND, last, last + SECOND, first + DAY)
        for _ in range(2):
            found = [validator.check(leaf, moment).reason for moment in moments]
            assert found == ["", "not yet valid", "", "expired", ""]

    def test_the_fraction_of_a_second_is_ignored_and_the_zone_is_not(
        self, ca: Ca, tmp_path: Path
    ) -> None:
        leaf = ca.write(tmp_path, "leaf").certificate
        validator = PathValidator(trust(ca.certificate))
        last = leaf.not_valid_after_utc + timedelta(milliseconds=900)
        assert validator.check(leaf, last).at == last
        assert validator.check(leaf, last).trusted
        with pytest.raises(ValueError, match="without time zone"):
            validator.check(leaf, last.replace(tzinfo=None))

    def test_a_list_that_runs_out_is_noticed_though_the_verdict_was_kept(
        self, tmp_path: Path
    ) -> None:
        hospital = Hospital(tmp_path)
        clock = [REVOKED - 90 * DAY]
        crl = hospital.crl(clock[0])
        ends = crl.next_update_utc
        assert ends is not None
        store = trust(hospital.certificate("root"), crls=(crl,), check_revocation=True)
        validator = PathValidator(store, clock=lambda: clock[0])
        signer = hospital.certificate("signer")
        for moment, reason in ((ends, ""), (ends + SECOND, "revocation not known"), (ends, "")):
            clock[0] = moment
            assert validator.check(signer, moment).reason == reason


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("hospital"))


TODAY = datetime(2026, 2, 1, tzinfo=UTC)
BEFORE = REVOKED - 30 * DAY
BY_LIST = "a list"
BY_ANSWER = "an OCSP answer"
UNKNOWN = "revocation not known"
LONG_BEFORE = BEFORE - 99 * DAY
SHORT = "short-lived"


PAST: dict[str, tuple[str, datetime, bool, str]] = {
    "a good one now": ("signer", TODAY, True, ""),
    "a good one, long ago": ("signer", START + DAY, False, ""),
    "a replaced one now": (
        "replaced",
        TODAY,
        True,
        "revoked on 2025-06-01T12:00:00Z, superseded",
    ),
    "a replaced one at the second of its revocation": (
        "replaced",
        REVOKED,
        False,
        "revoked on",
    ),
    "a replaced one a second before": ("replaced", REVOKED - SECOND, False, ""),
    "a stolen one now": (
        "stolen",
        TODAY,
        True,
        "revoked on 2025-06-01T12:00:00Z, key compromise",
    ),
    "a stolen one before, says the thief": ("stolen", BEFORE, False, "revoked on"),
    "a stolen one before, says a time stamp": ("stolen", BEFORE, True, ""),
}


STAMPERS = {
    "a good one": ("tsa", ""),
    "a replaced one, before": ("tsa-replaced", ""),
    "a stolen one, before": ("tsa-stolen", "revoked on"),
}


KNOWING: dict[str, tuple[str, str, datetime, datetime, datetime, bool, str]] = {
    # by, name, made, judged today, moment, proven, reason
    "a list of then, proven": (BY_LIST, "signer", BEFORE, TODAY, BEFORE, True, ""),
    "an answer of then, proven": (BY_ANSWER, "signer", BEFORE, TODAY, BEFORE + SECOND, True, ""),
    "a list of then, the signer's word": (BY_LIST, "signer", BEFORE, TODAY, BEFORE, False, UNKNOWN),
    "a list that ran out before": (BY_LIST, "signer", LONG_BEFORE, TODAY, BEFORE, True, UNKNOWN),
    "an answer that ran out before": (
        BY_ANSWER,
        "signer",
        LONG_BEFORE,
        TODAY,
        BEFORE,
        True,
        UNKNOWN,
    ),
    "a list of tomorrow": (BY_LIST, "signer", TODAY + 40 * DAY, TODAY, TODAY, True, UNKNOWN),
    "a list made after the certificate expired": (
        BY_LIST,
        SHORT,
        TODAY,
        TODAY,
        START + DAY,
        True,
        UNKNOWN,
    ),
    "an answer made after the certificate expired": (
        BY_ANSWER,
        SHORT,
        TODAY,
        TODAY,
        START + DAY,
        True,
        UNKNOWN,
    ),
    "a list of its lifetime": (
        BY_LIST,
        SHORT,
        START + 90 * DAY,
        TODAY,
        START + 90 * DAY,
        False,
        "",
    ),
}


class TestRevocation:
    """Judged on 1 February 2026 with the list or answer of that day; revoked on 1 June 2025."""

    def validator(
        self,
        hospital: Hospital,
        name: str,
        by: str,
        made: datetime = TODAY,
        today: datetime = TODAY,
    ) -> PathValidator:
        root = hospital.certificate("root")
        crls = (hospital.crl(made),) if by == BY_LIST else ()
        answers = [hospital.ocsp(name, made)] if by == BY_ANSWER else []
        return PathValidator(
            TrustStore((root,), crls, check_revocation=True),
            ocsp_responses=answers,
            clock=lambda: today,
        )

    @pytest.mark.parametrize("by", [BY_LIST, BY_ANSWER])
    @pytest.mark.parametrize(("name", "at", "proven", "reason"), PAST.values(), ids=PAST)
    def test_a_certificate(
        self, name: str, at: datetime, proven: bool, reason: str, by: str, hospital: Hospital
    ) -> None:
        validator = self.validator(hospital, name, by)
        verdict = validator.check(hospital.certificate(name), at, proven=proven)
        assert verdict.reason.startswith(reason)
        assert verdict.trusted == (not reason), verdict
        assert verdict.revocation == ("revoked" if reason else "good")
        assert verdict.revoked == (None if name == "signer" else REVOKED)

    @pytest.mark.parametrize(("name", "reason"), STAMPERS.values(), ids=STAMPERS)
    def test_an_authority_of_time_stamps(self, name: str, reason: str, hospital: Hospital) -> None:
        """RFC 3161 4, item 1."""
        validator = self.validator(hospital, name, BY_LIST)
        verdict = validator.check(hospital.certificate(name), BEFORE, purpose="timestamp")
        assert verdict.reason.startswith(reason)
        assert verdict.trusted == (not reason)

    @pytest.mark.parametrize(
        ("by", "name", "made", "today", "at", "proven", "reason"), KNOWING.values(), ids=KNOWING
    )
    def test_what_silence_proves(
        self,
        by: str,
        name: str,
        made: datetime,
        today: datetime,
        at: datetime,
        proven: bool,
        reason: str,
        hospital: Hospital,
    ) -> None:
        validator = self.validator(hospital, name, by, made, today)
        verdict = validator.check(hospital.certificate(name), at, proven=proven)
        assert verdict.reason == reason
        assert verdict.revocation == ("unknown" if reason else "good")

    def test_nothing_known_is_refused_only_where_it_is_asked_for(self, hospital: Hospital) -> None:
        root, signer = hospital.certificate("root"), hospital.certificate("signer")
        asked = PathValidator(trust(root), require_revocation=True, clock=lambda: TODAY)
        assert asked.check(signer, TODAY).reason == "revocation not known"
        not_asked = PathValidator(trust(root), clock=lambda: TODAY)
        assert not_asked.check(signer, TODAY).revocation == "not checked"
        other = [hospital.ocsp("replaced", TODAY)]
        at_hand = PathValidator(trust(root), ocsp_responses=other, clock=lambda: TODAY)
        assert at_hand.check(signer, TODAY).trusted
        assert at_hand.check(signer, TODAY).revocation == "unknown"
        assert at_hand.check(hospital.certificate("replaced"), TODAY).revocation == "revoked"

    def test_an_answer_with_a_spoilt_signature_is_none(self, hospital: Hospital) -> None:
        answer = bytearray(hospital.ocsp("signer", TODAY))
        place = answer.index(hospital.ocsp_signature("signer", TODAY))
        answer[place + 9] ^= 1
        validator = PathValidator(
            trust(hospital.certificate("root")),
            ocsp_responses=[bytes(answer), b"", b"\x30\x03\x0a\x01\x03"],
            require_revocation=True,
            clock=lambda: TODAY,
        )
        verdict = validator.check(hospital.certificate("signer"), TODAY)
        assert verdict.reason == "revocation not known"


def crl(
    ca: Ca, *entries: x509.RevokedCertificate, until: datetime | None = None
) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(now() - SECOND)
        .next_update(until or now() + DAY)
    )
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(ca.key, hashes.SHA256())


def entry(
    of: x509.Certificate, date: datetime, *extensions: x509.ExtensionType
) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(of.serial_number).revocation_date(date)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.build()


class TestDates:
    def test_the_invalidity_date_counts_where_it_is_earlier(self, ca: Ca) -> None:
        leaf = ca.certify("leaf", ca.key, start=now() - 50 * DAY)
        invalid = now() - 20 * DAY
        listed = entry(leaf, now() - 10 * DAY, x509.InvalidityDate(invalid.replace(tzinfo=None)))
        validator = PathValidator(trust(ca.certificate, crls=(crl(ca, listed),)))
        moments = (invalid - DAY, invalid - SECOND, invalid, now())
        found = [validator.check(leaf, moment) for moment in moments]
        assert [verdict.trusted for verdict in found] == [True, True, False, False]
        assert {verdict.revoked for verdict in found} == {invalid}

    def test_a_revoked_authority_is_named(self, ca: Ca, tmp_path: Path) -> None:
        between = ca.intermediate("Revoked CA")
        leaf = between.write(tmp_path, "leaf").certificate
        lists = (crl(ca, entry(between.certificate, now() - DAY)), crl(between))
        validator = PathValidator(trust(ca.certificate, crls=lists), intermediates=between.chain)
        reason = validator.check(leaf, now()).reason
        assert reason.startswith("revoked on")
        assert "Revoked CA" in reason

    def test_every_certificate_below_the_anchor_needs_an_answer(
        self, ca: Ca, tmp_path: Path
    ) -> None:
        between = ca.intermediate("Listed CA")
        leaf = between.write(tmp_path, "leaf").certificate
        for lists, reason in (
            ((crl(ca), crl(between)), ""),
            ((crl(ca),), UNKNOWN),
            ((crl(between),), "revocation not known, of"),
        ):
            store = trust(ca.certificate, crls=lists, check_revocation=True)
            verdict = PathValidator(store, intermediates=between.chain).check(leaf, now())
            assert verdict.reason.startswith(reason)
            assert verdict.trusted == (not reason)


class TestFetching:
    def test_lists_and_answers_come_from_where_the_certificate_says(self, tmp_path: Path) -> None:
        hospital = Hospital(tmp_path, free_port())
        validator = PathValidator(
            trust(hospital.certificate("root")), fetch=True, require_revocation=True
        )
        with hospital.serve() as asked:
            for _ in range(3):
                assert validator.check(hospital.certificate("signer"), now()).revocation == "good"
            assert validator.check(hospital.certificate("replaced"), now()).revocation == "revoked"
        assert asked == [
            "/hospital/ocsp/answers",
            "/hospital/crls/list/latest.crl",
            "/hospital/ocsp/answers",
        ]

    def test_a_failure_is_not_knowing(self, tmp_path: Path) -> None:
        hospital = Hospital(tmp_path, free_port())  # nobody listens
        signer = hospital.certificate("signer")
        validator = PathValidator(trust(hospital.certificate("root")), fetch=True)
        assert (
            validator.check(signer, now()).trusted,
            validator.check(signer, now()).revocation,
        ) == (True, "unknown")
        strict = PathValidator(
            trust(hospital.certificate("root")), fetch=True, require_revocation=True
        )
        assert strict.check(signer, now()).reason == "revocation not known"

    def test_nobody_is_asked_about_a_path_that_is_not_valid(self, tmp_path: Path) -> None:
        hospital = Hospital(tmp_path, free_port())
        stranger = Ca("Stranger").certificate
        with hospital.serve() as asked:
            for anchor, at in ((stranger, now()), (hospital.certificate("root"), END + DAY)):
                validator = PathValidator(trust(anchor), fetch=True)
                assert not validator.check(hospital.certificate("signer"), at).trusted
        assert asked == []


_CA = Ca("Byte by byte")
_LEAF = _CA.certify("leaf", ec.generate_private_key(ec.SECP256R1()))


class TestHostile:
    def test_certificates_that_all_name_each_other_are_not_tried_without_end(
        self, ca: Ca, tmp_path: Path
    ) -> None:
        crowd = [Ca("Crowd") for _ in range(MAX_OTHERS)]
        cross = [Ca("Crowd", issuer=crowd[i - 1]).certificate for i in range(MAX_OTHERS)]
        leaf = crowd[0].write(tmp_path, "leaf").certificate
        verdict = PathValidator(trust(ca.certificate)).check(leaf, now(), others=cross)
        assert verdict.reason == "unknown issuer"

    def test_thousands_of_others_are_not_looked_at(self, ca: Ca, tmp_path: Path) -> None:
        leaf = ca.write(tmp_path, "leaf").certificate
        verdict = PathValidator(trust(ca.certificate)).check(leaf, now(), others=[leaf] * 5000)
        assert verdict.reason.startswith("bad certificate: 5000 certificates")

    def test_a_huge_one_is_not_looked_at(self, ca: Ca) -> None:
        names = x509.SubjectAlternativeName([x509.DNSName(f"host{n}.example") for n in range(2000)])
        validator = PathValidator(trust(ca.certificate))
        assert validator.check(made(ca, names), now()).reason.startswith("bad certificate")

    @given(place=st.integers(0, 10_000), change=st.integers(1, 255))
    def test_a_changed_byte_is_never_trusted(self, place: int, change: int) -> None:
        der = bytearray(_LEAF.public_bytes(Encoding.DER))
        der[place % len(der)] ^= change
        try:
            leaf = x509.load_der_x509_certificate(bytes(der))
        except (ValueError, x509.InvalidVersion):
            return
        verdict = PathValidator(trust(_CA.certificate)).check(leaf, now())
        assert not verdict.trusted
        assert verdict.reason

    def test_an_unknown_critical_extension_is_refused(self, ca: Ca) -> None:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        validator = PathValidator(trust(ca.certificate))
        assert "1.2.3.4" in validator.check(made(ca, unknown), now()).reason

    def test_an_extension_that_cannot_be_decoded_is_refused(self, ca: Ca) -> None:
        broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.15"), b"\x30\x80\xff\xff")
        verdict = PathValidator(trust(ca.certificate)).check(made(ca, broken), now())
        assert verdict.reason.startswith("bad certificate")

    def test_the_end_of_time_is_a_time(self, ca: Ca) -> None:
        leaf = made(ca, end=datetime(9999, 12, 31, 23, 59, 59))
        assert PathValidator(trust(ca.certificate)).check(leaf, now()).trusted

    def test_what_a_name_holds_does_not_reach_the_log_as_it_is(self, tmp_path: Path) -> None:
        root = Ca("Root")
        between = root.intermediate("line\nbreak")
        leaf = between.write(tmp_path, "leaf").certificate
        store = trust(root.certificate, crls=(crl(between),), check_revocation=True)
        reason = PathValidator(store).check(leaf, now(), others=between.chain).reason
        assert "line?break" in reason


class TestThreads:
    def test_many_threads_ask_for_many_certificates(self, hospital: Hospital) -> None:
        store = trust(
            hospital.certificate("root"), crls=(hospital.crl(TODAY),), check_revocation=True
        )
        validator = PathValidator(store, clock=lambda: TODAY)
        names = ("signer", "replaced", "stolen", "short-lived") * 30
        expected = {
            "signer": "good",
            "replaced": "revoked",
            "stolen": "revoked",
            "short-lived": "not checked",
        }
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda name: validator.check(hospital.certificate(name), TODAY), names)
            assert [v.revocation for v in found] == [expected[name] for name in names]

    def test_an_event_loop_of_the_caller_is_not_disturbed(self, ca: Ca, tmp_path: Path) -> None:
        leaf = ca.write(tmp_path, "leaf").certificate
        validator = PathValidator(trust(ca.certificate))

        async def inside() -> bool:
            return validator.check(leaf, now()).trusted

        assert asyncio.run(inside())
        assert threading.active_count() < 50


def test_without_the_extra_the_module_can_be_imported_and_says_what_is_missing() -> None:
    program = """
import sys
for name in ("asn1crypto", "pyhanko_certvalidator"):
    sys.modules[name] = None
from dicom_secure_node.errors import MissingExtra
from dicom_secure_node.pki import paths, trust
try:
    paths.PathValidator(trust.TrustStore(()))
except MissingExtra as exc:
    print(exc.extra)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout == "sign\n"
