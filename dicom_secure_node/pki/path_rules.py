"""One question about a certification path, answered by the rules of RFC 5280 6.1.

pyhanko-certvalidator does the rules; here is what goes in (anchors, candidates, moment) and what
its answers are called. Nothing of what is certified is computed with before its signature was
checked from the anchor down, save names for finding candidates.

Stricter than RFC 5280, which leaves it open: an anchor's own validity, path length and name
constraints hold as well, and so does the size of keys.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

from asn1crypto import x509
from pyhanko_certvalidator import PKIXValidationParams, ValidationContext
from pyhanko_certvalidator.authority import CertTrustAnchor, TrustQualifiers, derive_quals_from_cert
from pyhanko_certvalidator.errors import (
    DisallowedAlgorithmError,
    ExpiredError,
    NotYetValidError,
    PathValidationError,
)
from pyhanko_certvalidator.path import ValidationPath
from pyhanko_certvalidator.policy_decl import NO_REVOCATION, CertRevTrustPolicy
from pyhanko_certvalidator.validate import async_validate_path

from dicom_secure_node.pki.answers import Answers
from dicom_secure_node.pki.path_building import Pool
from dicom_secure_node.pki.path_finding import Finding, Question, Request
from dicom_secure_node.pki.revocation import check_revocation, finish

LOGGER = logging.getLogger(__name__)

# By asn1crypto's names of public key algorithms.
_MIN_BITS = {"rsa": 2048, "rsassa_pss": 2048, "ec": 224, "dsa": 2048}
MAX_WORDS = 200

# By the SHA-256 of the certificates of a path: what was fetched, and what is to be.
FetchedFor = Callable[[tuple[bytes, ...]], tuple[Answers, tuple[Request, ...]]]

_POLICY = CertRevTrustPolicy(NO_REVOCATION)
_PREAMBLE = "The path could not be validated because "

# What to tell of several paths that failed: the one that came furthest.
_RANK = (
    "unknown issuer",
    "bad signature",
    "bad certificate",
    "weak algorithm",
    "not yet valid",
    "expired",
    "weak key",
    "wrong usage",
    "revocation not known",
    "revoked",
)


class PathRules:
    """Anchors, intermediates and answers at hand, and the rules over them.

    asn1crypto decodes when asked and keeps the result in the object: one thread at a time.

    Parameters
    ----------
    anchors, intermediates : iterable of bytes
        DER certificates.
    answers : Answers
        Lists and OCSP answers of the configuration.
    checked : bool
        Revocation matters. Without, a path is judged by its certificates alone.
    required : bool
        Not knowing is as bad as revoked.
    """

    def __init__(
        self,
        anchors: Iterable[bytes],
        intermediates: Iterable[bytes],
        answers: Answers,
        *,
        checked: bool,
        required: bool,
    ) -> None:
        self._anchors = tuple(_load(der) for der in anchors)
        self._intermediates = tuple(_load(der) for der in intermediates)
        self._trust = {anchor.sha256: _trust_anchor(anchor) for anchor in self._anchors}
        self._answers = answers
        self._checked = checked
        self._required = required

    def borders(self) -> Iterator[datetime]:
        """Yield the moments at which certificates and answers at hand begin or end."""
        yield from self._answers.borders()
        yield from borders_of((*self._anchors, *self._intermediates))

    def judge(self, question: Question, fetched_for: FetchedFor | None) -> Finding:
        """Return the finding about the best candidate path; raise whatever comes up."""
        leaf = _load(question.leaf)
        others = [_load(der) for der in question.others]
        pool = Pool(self._anchors, (*self._intermediates, *others))
        borders = set(borders_of((leaf, *others)))
        best = Finding("self-signed" if leaf.subject == leaf.issuer else "unknown issuer")
        for path in pool.paths(leaf):
            try:
                finding = self._judge_path(path, pool, question, fetched_for)
            except Exception as exc:  # one candidate may hold anything; another may be good
                LOGGER.info("a candidate path cannot be judged", exc_info=True)
                finding = Finding(f"bad certificate: {type(exc).__name__}")
            if finding.wanted:
                return finding
            borders |= finding.borders
            best = finding if not finding.reason else max(best, finding, key=_rank)
            if not best.reason:
                break
        return replace(best, borders=frozenset(borders))

    def _judge_path(
        self,
        path: tuple[x509.Certificate, ...],
        pool: Pool,
        question: Question,
        fetched_for: FetchedFor | None,
    ) -> Finding:
        """Return the finding about one path, leaf to anchor."""
        chain = tuple(certificate.sha256 for certificate in path)
        anchor = self._trust[path[-1].sha256]
        below = path[-2::-1]
        problem = (
            _broken_rule(anchor, below, question.at)
            or _weak_key(path)
            or _usage_problem(path[0], question)
        )
        if problem or not (self._checked and below):
            return Finding(problem, chain)
        answers = self._answers
        if fetched_for is not None:
            fetched, missing = fetched_for(chain)
            if missing:
                return Finding("", wanted=missing)
            answers += fetched
        finding, which = check_revocation(anchor, below, pool.between, answers, question)
        reason = finding.reason
        if finding.revocation == "unknown" and self._required:
            reason = "revocation not known"
        if reason and which is not None and which is not path[0]:
            reason += f", of {_name(which)}"
        borders = finding.borders | frozenset(answers.borders())
        return replace(finding, reason=reason, chain=chain, borders=borders)


def borders_of(certificates: Iterable[x509.Certificate]) -> Iterator[datetime]:
    """Yield when each certificate begins and ends."""
    for certificate in certificates:
        yield from (certificate.not_valid_before, certificate.not_valid_after)


def _load(der: bytes) -> x509.Certificate:
    certificate = x509.Certificate.load(der, strict=True)
    # It would be computed from what asn1crypto encodes, which is not always what it decoded
    # (unique identifiers), and here it says which certificate is trusted.
    certificate._sha256 = sha256(der).digest()
    return certificate


def _trust_anchor(anchor: x509.Certificate) -> CertTrustAnchor:
    """Return `anchor` with its own limits, save policies (nobody asks for any)."""
    derived = derive_quals_from_cert(anchor)
    parameters = derived.standard_parameters or PKIXValidationParams()
    limits = TrustQualifiers(
        standard_parameters=replace(
            parameters,
            user_initial_policy_set=frozenset({"any_policy"}),
            initial_explicit_policy=False,
        ),
        max_path_length=derived.max_path_length,
        valid_from=derived.valid_from,
        valid_until=derived.valid_until,
    )
    return CertTrustAnchor(anchor, limits)


def _broken_rule(anchor: CertTrustAnchor, below: Sequence[x509.Certificate], at: datetime) -> str:
    """Return which rule of RFC 5280 6.1 the path breaks, in words, or nothing."""
    context = ValidationContext(
        trust_roots=[],
        moment=at,
        revinfo_policy=_POLICY,
        crls=[],
        ocsps=[],
        time_tolerance=timedelta(0),
    )
    path = ValidationPath(anchor, below[:-1], below[-1] if below else None)
    try:
        finish(async_validate_path(context, path))
    except ExpiredError as exc:
        return "expired" + ("" if exc.is_ee_cert else ", an authority above")
    except NotYetValidError as exc:
        return "not yet valid" + ("" if exc.is_ee_cert else ", an authority above")
    except DisallowedAlgorithmError as exc:
        return f"weak algorithm: {_reworded(exc)}"
    except PathValidationError as exc:
        words = _reworded(exc)
        return f"{'bad signature' if 'signature' in words else 'bad certificate'}: {words}"
    return ""


def _usage_problem(leaf: x509.Certificate, question: Question) -> str:
    """Return what speaks against the use of the key, or nothing.

    A signer's extended key usage is left open: PS3.15 Annex C names none.
    """
    usage = leaf.key_usage_value
    if usage is not None and not usage.native & {"digital_signature", "non_repudiation"}:
        return "wrong usage: the key is not for signatures (RFC 5280 4.2.1.3)"
    if question.purpose == "timestamp":
        purposes = leaf.extended_key_usage_value
        if purposes is None or purposes.native != ["time_stamping"]:
            return "wrong usage: the key is not for time stamps and nothing else (RFC 3161 2.3)"
        if "extended_key_usage" not in leaf.critical_extensions:
            return "wrong usage: the extended key usage is not critical (RFC 3161 2.3)"
    return ""


def _weak_key(path: Sequence[x509.Certificate]) -> str:
    """Return words for the first key of the path that is too short, or nothing."""
    for certificate in path:
        key = certificate.public_key
        wanted = _MIN_BITS.get(key.algorithm)
        if wanted is not None and key.bit_size < wanted:
            return f"weak key: {key.algorithm} of {key.bit_size} bits, wanted {wanted}"
    return ""


def _rank(finding: Finding) -> int:
    for rank, word in enumerate(_RANK):
        if finding.reason.startswith(word):
            return rank
    return -1


def _name(certificate: x509.Certificate) -> str:
    return _printable(certificate.subject.human_friendly)


def _reworded(exc: PathValidationError) -> str:
    return _printable(exc.failure_msg.removeprefix(_PREAMBLE)).removeprefix("the ").rstrip(".")


def _printable(text: str) -> str:
    """Return `text`, which may come from a certificate, fit for a line of a log."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_WORDS])
