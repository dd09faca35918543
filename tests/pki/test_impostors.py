"""Certificates and lists that carry the signature of a genuine one over other contents.

pyhanko-certvalidator 0.33 recognises what it has seen by the bytes of the signature alone. Each
case here made it believe an impostor; `pki.revocation` does not hand these on.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from asn1crypto import crl as asn1_crl
from asn1crypto import ocsp as asn1_ocsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from dicom_secure_node.pki.paths import PathValidator, PathVerdict
from dicom_secure_node.pki.trust import TrustStore
from tests.certs import Ca, now

DAY = timedelta(days=1)


class Scene:
    """An authority, a signer it revoked, and somebody who wants him believed."""

    def __init__(self) -> None:
        self.ca = Ca("Genuine CA")
        self.signer = self.ca.certify("signer", ec.generate_private_key(ec.SECP256R1()))
        self.thief = Ca("Genuine CA")  # the name, not the key

    def crl(self, by: Ca, *, last: timedelta, until: timedelta, revoked: bool) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.ca.certificate.subject)
            .last_update(now() + last)
            .next_update(now() + until)
        )
        if revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(self.signer.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now() - DAY).build())
        return builder.sign(by.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def impostor(self) -> bytes:
        """Return the thief's certificate with number, names and signature of the authority's."""
        genuine = asn1_x509.Certificate.load(self.ca.certificate.public_bytes(Encoding.DER))
        forged = asn1_x509.Certificate.load(self.thief.certificate.public_bytes(Encoding.DER))
        forged["tbs_certificate"]["serial_number"] = genuine.serial_number
        forged["tbs_certificate"]["issuer"] = genuine.issuer
        forged["signature_value"] = genuine["signature_value"].native
        made: bytes = forged.dump(force=True)
        return made

    def judge(
        self, *lists: bytes, answers: list[bytes] | None = None, others: list[bytes] | None = None
    ) -> PathVerdict:
        trust = TrustStore(
            (self.ca.certificate,),
            tuple(x509.load_der_x509_crl(der) for der in lists),
            check_revocation=True,
        )
        validator = PathValidator(trust, ocsp_responses=answers or [])
        along = [x509.load_der_x509_certificate(der) for der in others or []]
        return validator.check(self.signer, now(), others=along, proven=True)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_scene_is_right(scene: Scene) -> None:
    current = scene.crl(scene.ca, last=-DAY, until=DAY, revoked=True)
    assert scene.judge(current).revocation == "revoked"
    assert scene.judge(scene.crl(scene.ca, last=-DAY, until=DAY, revoked=False)).trusted


def test_a_list_with_the_signature_of_one_that_ran_out(scene: Scene) -> None:
    old = scene.crl(scene.ca, last=-9 * DAY, until=-2 * DAY, revoked=False)
    forged = asn1_crl.CertificateList.load(
        scene.crl(scene.thief, last=-10 * DAY, until=DAY, revoked=False)
    )
    forged["signature"] = asn1_crl.CertificateList.load(old)["signature"].native
    assert scene.judge(old, forged.dump(force=True)).reason == "revocation not known"


def test_a_list_of_an_authority_s_impostor_that_came_along(scene: Scene) -> None:
    forged = scene.crl(scene.thief, last=-DAY, until=DAY, revoked=False)
    verdict = scene.judge(forged, others=[scene.impostor()])
    assert verdict.reason == "revocation not known"


def test_an_ocsp_answer_of_an_authority_s_impostor(scene: Scene) -> None:
    answer = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=scene.signer,
            issuer=scene.ca.certificate,
            algorithm=hashes.SHA256(),
            cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=now() - DAY,
            next_update=now() + DAY,
            revocation_time=None,
            revocation_reason=None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME, scene.thief.certificate)
        .sign(scene.thief.key, hashes.SHA256())
    )
    forged = asn1_ocsp.OCSPResponse.load(answer.public_bytes(Encoding.DER))
    basic = forged["response_bytes"]["response"].parsed
    basic["certs"] = [asn1_x509.Certificate.load(scene.impostor())]
    forged["response_bytes"]["response"] = basic
    verdict = scene.judge(answers=[forged.dump(force=True)])
    assert verdict.reason == "revocation not known"
