"""Was each certificate of a path good at a moment? Lists (RFC 5280 6.3) and OCSP (RFC 6960).

pyhanko-certvalidator finds out which answer is about which certificate and whether its signer may
give it; this module decides what an answer proves about a moment, which may have passed.

*Revoked.* The certificate is bad from the revocation date on, or from the invalidity date if that
is earlier (RFC 5280 5.3.2), and was good before. Two cases are worse: no moment is good when

- the key was compromised, and the moment is nothing but the word of whoever has the key;
- a timestamping authority's own certificate was revoked for another reason than change of
  affiliation, replacement or end of operation, or for none that is told (RFC 3161 4, item 1).

*Not revoked.* A list or answer proves that until its nextUpdate, also for moments before it was
made, with two exceptions:

- Once a certificate has expired, lists no longer hold it (RFC 5280 3.3) and "good" no longer says
  anything (RFC 6960 2.2): what was made after the expiry counts only against it.
- Where the moment is the holder's word, and the certificate still runs, the answer must be current
  now: an old one cannot know of a key stolen since.

A hold that was lifted again leaves no trace in later lists and cannot be seen here.

pyhanko takes two certificates, or two lists, with the same signature for one and the same. Whoever
copies a genuine signature to a certificate with a key of his own could answer for the authority, so
such impostors are sorted out, and what has been seen is kept by identity (`_Context`, `_Seen`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar

from asn1crypto import crl as asn1_crl
from asn1crypto import x509
from pyhanko_certvalidator import ValidationContext
from pyhanko_certvalidator.authority import CertTrustAnchor
from pyhanko_certvalidator.errors import RevokedError
from pyhanko_certvalidator.ltv.poe import POEManager
from pyhanko_certvalidator.ltv.types import ValidationTimingInfo, ValidationTimingParams
from pyhanko_certvalidator.path import ValidationPath
from pyhanko_certvalidator.policy_decl import REQUIRE_REVINFO, CertRevTrustPolicy
from pyhanko_certvalidator.registry import CertificateRegistry
from pyhanko_certvalidator.revinfo.archival import CRLContainer, OCSPContainer
from pyhanko_certvalidator.revinfo.manager import RevinfoManager
from pyhanko_certvalidator.revinfo.validate_crl import verify_crl
from pyhanko_certvalidator.revinfo.validate_ocsp import verify_ocsp_response

from dicom_secure_node.pki.answers import Answer, Answers
from dicom_secure_node.pki.path_finding import Finding, Question, Revocation

T = TypeVar("T")

LOGGER = logging.getLogger(__name__)

COMPROMISED = frozenset({"key_compromise", "ca_compromise", "aa_compromise"})
HARMLESS_TO_TOKENS = frozenset({"affiliation_changed", "superseded", "cessation_of_operation"})

# The signers of lists and answers must not be revoked either; thisUpdate is looked at here.
_POLICY = CertRevTrustPolicy(REQUIRE_REVINFO, retroactive_revinfo=True)

# A responder's clock may be ahead of ours.
_SKEW = timedelta(minutes=5)


@dataclass
class _Progress:
    """What has been seen on the way down a path."""

    validated: list[tuple[x509.Certificate, ValidationPath]]
    borders: set[datetime] = field(default_factory=set)
    revoked: datetime | None = None
    unknown: x509.Certificate | None = None

    def finding(self, status: Revocation, reason: str = "") -> Finding:
        borders = frozenset(self.borders)
        return Finding(reason, revocation=status, revoked=self.revoked, borders=borders)


def check_revocation(
    anchor: CertTrustAnchor,
    certificates: Sequence[x509.Certificate],
    pool: Iterable[x509.Certificate],
    answers: Answers,
    question: Question,
) -> tuple[Finding, x509.Certificate | None]:
    """Return what is known of a path, and the certificate that is revoked or not known of.

    Parameters
    ----------
    anchor : CertTrustAnchor
        Where the path ends; nothing revokes it but its removal from the trust store.
    certificates : sequence of x509.Certificate
        The path below, top down; it must have been validated.
    pool : iterable of x509.Certificate
        Where issuers of lists may be found.
    answers : Answers
        All there is; what is not for this path is passed over.
    question : Question
        The moment, and what the path is for.
    """
    genuine = (anchor.certificate, *certificates)
    pool, usable = _relevant(
        certificates,
        (one for one in pool if not _is_impostor(one, genuine)),
        (one for one in answers.known if not any(_is_impostor(s, genuine) for s in one.signers)),
    )
    usable = [answer for answer in usable if answer.made <= question.now + _SKEW]
    path = ValidationPath(anchor, certificates[:-1], certificates[-1])
    seen = _Progress([(anchor.certificate, ValidationPath(anchor, [], None))])
    for depth, certificate in enumerate(certificates):
        good, error = _ask(usable, certificate, path, pool, seen, question)
        if error is not None:
            since = _since(error, certificate, usable)
            seen.borders.add(since)
            seen.revoked = min(since, seen.revoked or since)
            leaf = certificate is certificates[-1]
            if since <= question.at or _never_good(error, question, leaf=leaf):
                return seen.finding("revoked", _words(error, since)), certificate
        elif good:
            telling = [answer for answer in usable if answer.tells(certificate, question)]
            if len(telling) < len(usable):
                good, _ = _ask(telling, certificate, path, pool, seen, question)
        if not good and error is None:
            seen.unknown = seen.unknown or certificate
        below = ValidationPath(anchor, certificates[:depth], certificate)
        seen.validated.append((certificate, below))
    if seen.unknown is not None:
        return seen.finding("unknown"), seen.unknown
    return seen.finding("good"), None


def _relevant(
    certificates: Sequence[x509.Certificate],
    pool: Iterable[x509.Certificate],
    answers: Iterable[Answer],
) -> tuple[list[x509.Certificate], list[Answer]]:
    """Return the certificates and answers that may be about a path, or about signers of lists.

    A list is issued by the certificate's issuer, or by whom its distribution points name
    (RFC 5280 6.3.3 b 1). pyhanko tries all it is given, each with its own path and lists.
    """
    by_subject: defaultdict[str, list[x509.Certificate]] = defaultdict(list)
    for certificate in pool:
        by_subject[certificate.subject.hashable].append(certificate)
    names: set[str] = set()
    found: dict[bytes, x509.Certificate] = {}
    unseen = list(certificates)
    while unseen:
        new = {name.hashable for certificate in unseen for name in _list_issuers(certificate)}
        unseen = [c for name in new - names for c in by_subject[name] if c.sha256 not in found]
        names |= new
        found |= {certificate.sha256: certificate for certificate in unseen}
    return list(found.values()), [
        answer
        for answer in answers
        if isinstance(answer.content, OCSPContainer)
        or answer.content.crl_data.issuer.hashable in names
    ]


def _list_issuers(certificate: x509.Certificate) -> Iterator[x509.Name]:
    yield certificate.issuer
    for point in certificate.crl_distribution_points_value or ():
        for name in point["crl_issuer"] or ():
            if name.name == "directory_name":
                yield name.chosen


def _is_impostor(certificate: x509.Certificate, genuine: Iterable[x509.Certificate]) -> bool:
    """Return whether it carries the signature of another one, which cannot be by chance."""
    return any(
        certificate.signature == one.signature and certificate.sha256 != one.sha256
        for one in genuine
    )


class _Context(ValidationContext):
    """Knows certificates by what they are, not by their signature alone."""

    def record_validation(self, cert: x509.Certificate, path: ValidationPath) -> None:
        self._validate_map[cert.sha256] = path

    def check_validation(self, cert: x509.Certificate) -> ValidationPath | None:
        return self._validate_map.get(cert.sha256)

    def clear_validation(self, cert: x509.Certificate) -> None:
        self._validate_map.pop(cert.sha256, None)


class _Seen(RevinfoManager):
    """Knows the issuers of lists by the list, not by its signature alone."""

    def record_crl_issuer(
        self, certificate_list: asn1_crl.CertificateList, cert: x509.Certificate
    ) -> None:
        self._crl_issuer_map[sha256(certificate_list.dump()).digest()] = cert

    def check_crl_issuer(
        self, certificate_list: asn1_crl.CertificateList
    ) -> x509.Certificate | None:
        return self._crl_issuer_map.get(sha256(certificate_list.dump()).digest())


def _ask(
    answers: Sequence[Answer],
    certificate: x509.Certificate,
    path: ValidationPath,
    pool: Iterable[x509.Certificate],
    seen: _Progress,
    question: Question,
) -> tuple[bool, RevokedError | None]:
    """Return whether `answers` call `certificate` good, or the earliest revocation they hold."""
    contents = [answer.content for answer in answers]
    registry = CertificateRegistry.build(pool)
    context = _Context(
        trust_roots=[path.trust_anchor],
        certificate_registry=registry,
        moment=question.at,
        revinfo_policy=_POLICY,
        revinfo_manager=_Seen(
            registry,
            POEManager(),
            crls=[c for c in contents if isinstance(c, CRLContainer)],
            ocsps=[c for c in contents if isinstance(c, OCSPContainer)],
        ),
        time_tolerance=timedelta(0),
    )
    # Not a "point in time": then a revocation is reported whenever it was, and we decide.
    timing = ValidationTimingInfo(question.at, question.at, point_in_time_validation=False)
    context.timing_params = ValidationTimingParams(timing, timedelta(0))
    for above, validated in seen.validated:
        context.record_validation(above, validated)
    by_ocsp = _look(verify_ocsp_response(certificate, path, context))
    by_list = _look(verify_crl(certificate, path, context))
    if by_list is False:
        # A list may point to a delta list that we have not got, and is good without (RFC 5280 6.3).
        by_list = _look(verify_crl(certificate, path, context, use_deltas=False))
    revoked = [found for found in (by_ocsp, by_list) if isinstance(found, RevokedError)]
    error = min(revoked, key=lambda found: found.revocation_dt, default=None)
    return True in (by_ocsp, by_list), error


def _look(coroutine: Coroutine[Any, Any, object]) -> bool | RevokedError:
    """Return whether an answer says "good", or the revocation it tells of."""
    try:
        finish(coroutine)
    except RevokedError as exc:
        return exc
    except Exception as exc:  # of any kind: answers may hold anything
        LOGGER.debug("no answer about a certificate: %s", exc)
        return False
    return True


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what `coroutine` returns; it must have nothing to wait for.

    pyhanko is asynchronous because it may fetch, which it is not allowed here. So no event loop
    is needed, and a caller that has one of its own is not disturbed.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("certificate validation waits for something, and has nothing to wait for")


def _since(
    error: RevokedError, certificate: x509.Certificate, answers: Sequence[Answer]
) -> datetime:
    """Return since when the certificate is bad: the earlier of the two dates (RFC 5280 5.3.2)."""
    dates = [error.revocation_dt]
    for answer in answers:
        if not isinstance(answer.content, CRLContainer):
            continue
        content = answer.content.crl_data["tbs_cert_list"]
        if content["issuer"] != certificate.issuer:
            continue
        for entry in content["revoked_certificates"]:
            if entry["user_certificate"].native == certificate.serial_number:
                invalid = entry.invalidity_date_value
                dates += [invalid.native] if invalid is not None else []
    return min(dates)


def _never_good(error: RevokedError, question: Question, *, leaf: bool) -> bool:
    """Return whether the revocation reaches back to every moment (module docstring)."""
    if question.proven:
        return False
    if leaf and question.purpose == "timestamp":
        return error.reason.native not in HARMLESS_TO_TOKENS
    return error.reason.native in COMPROMISED


def _words(error: RevokedError, since: datetime) -> str:
    reason = str(error.reason.native).replace("_", " ")
    return f"revoked on {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}, {reason}"
