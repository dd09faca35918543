"""Lists of the revoked (RFC 5280 5) and OCSP answers (RFC 6960), and what their silence proves.

They are read once. What cannot be read, or is signed with a weak hash, is left out: a path is then
not known to be good. Whether the signature is right is found out when an answer is used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from asn1crypto import core, x509
from asn1crypto import crl as asn1_crl
from asn1crypto import ocsp as asn1_ocsp
from pyhanko_certvalidator.policy_decl import DEFAULT_WEAK_HASH_ALGOS
from pyhanko_certvalidator.revinfo.archival import CRLContainer, OCSPContainer

from dicom_secure_node.pki.path_finding import Question

LOGGER = logging.getLogger(__name__)

# In one OCSP answer.
MAX_SIGNERS = 8
MAX_PARTS = 64

# What an OCSP answer without nextUpdate is good for; pyhanko's rule.
_NO_NEXT_UPDATE = timedelta(minutes=30)


@dataclass(frozen=True)
class Answer:
    """A CRL, or one certificate's part of an OCSP answer.

    Attributes
    ----------
    made, until : datetime
        thisUpdate and nextUpdate, UTC.
    covers_expired : datetime or None
        It still knows certificates that expired at this date or later (expiredCertsOnCRL of
        X.509, archiveCutoff of RFC 6960 4.4.4).
    signers : tuple of x509.Certificate
        What came with it.
    """

    content: CRLContainer | OCSPContainer
    made: datetime
    until: datetime
    covers_expired: datetime | None = None
    signers: tuple[x509.Certificate, ...] = ()

    def tells(self, certificate: x509.Certificate, question: Question) -> bool:
        """Return whether its silence proves that `certificate` was good (`revocation`)."""
        end = certificate.not_valid_after
        if end < self.made:
            return self.covers_expired is not None and self.covers_expired <= end
        return question.proven or end < question.now or self.until >= question.now


@dataclass(frozen=True)
class Answers:
    """What is known about revocation."""

    known: tuple[Answer, ...] = ()

    def __add__(self, other: Answers) -> Answers:
        return Answers(self.known + other.known)

    def borders(self) -> Iterator[datetime]:
        """Yield the moments at which what is known may change."""
        for answer in self.known:
            yield answer.until
            for signer in answer.signers:
                yield from (signer.not_valid_before, signer.not_valid_after)


def read_answers(crls: Iterable[bytes] = (), ocsp_responses: Iterable[bytes] = ()) -> Answers:
    """Return what is in DER lists and answers; what cannot be read, or is signed weakly, is not."""
    known: list[Answer] = []
    for der in crls:
        try:
            known.append(_crl(der))
        except Exception:
            LOGGER.info("a CRL cannot be used", exc_info=True)
    for der in ocsp_responses:
        try:
            known.extend(_ocsp(der))
        except Exception:
            LOGGER.info("an OCSP answer cannot be used", exc_info=True)
    return Answers(tuple(known))


def _crl(der: bytes) -> Answer:
    parsed = asn1_crl.CertificateList.load(der, strict=True)
    content = parsed["tbs_cert_list"]
    _refuse_weak(parsed["signature_algorithm"].hash_algo)
    made = content["this_update"].native
    until = content["next_update"].native
    if until is None:  # RFC 5280 5.1.2.5 demands it
        raise ValueError("no nextUpdate")
    covers = None
    for extension in content["crl_extensions"] or ():
        if extension["extn_id"].dotted == "2.5.29.60":
            covers = core.GeneralizedTime.load(extension["extn_value"].contents).native
    return Answer(CRLContainer(parsed), made, until, covers)


def _ocsp(der: bytes) -> list[Answer]:
    parsed = asn1_ocsp.OCSPResponse.load(der, strict=True)
    containers = OCSPContainer.load_multi(parsed)
    if not containers:  # "tryLater" and the like
        raise ValueError(f"status {parsed['response_status'].native}")
    basic = parsed["response_bytes"]["response"].parsed
    _refuse_weak(basic["signature_algorithm"].hash_algo)
    signers = tuple(basic["certs"] or ())
    if len(signers) > MAX_SIGNERS:
        raise ValueError(f"{len(signers)} certificates")
    answers = []
    for container in containers[:MAX_PARTS]:
        part = container.extract_single_response()
        assert part is not None
        made = part["this_update"].native
        until = part["next_update"].native or made + _NO_NEXT_UPDATE
        cutoff = part.archive_cutoff_value
        covers = None if cutoff is None else cutoff.native
        answers.append(Answer(container, made, until, covers, signers))
    return answers


def _refuse_weak(digest: str) -> None:
    if digest in DEFAULT_WEAK_HASH_ALGOS:
        raise ValueError(f"signed with {digest}")
