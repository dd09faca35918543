"""Is a signer's certificate to be believed at a moment, now or in the past?

`PathValidator` builds and checks certification paths (RFC 5280) of those who *sign*: documents
(PS3.15 C.1: "certificate policies" are left to the site) and time stamps (RFC 3161). Those who
connect are checked by OpenSSL in the handshake (`dicom_secure_node.tls`).

How the parts share the work: `path_building` finds candidates, `path_rules` checks one,
`revocation` weighs lists and OCSP answers, which `answers` reads and `fetch` gets. This module
keeps what was found.

A check that is not kept costs some 3 ms of one core with one authority and its list, and 5 ms for
each thousand entries of a list; checks run one at a time, because the decoder keeps state. A kept
one costs some 60 microseconds. What was found holds until the next moment at which a certificate,
list or answer begins or ends, so that hundreds of instances of one signer are one check, and it is
kept for a minute at most.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from dicom_secure_node.errors import InvalidCertificate, MissingExtra
from dicom_secure_node.pki.names import decoded_extensions
from dicom_secure_node.pki.path_finding import Finding, Purpose, Question, Request, Revocation
from dicom_secure_node.pki.trust import TrustStore

if TYPE_CHECKING:
    from dicom_secure_node.pki.answers import Answers

LOGGER = logging.getLogger(__name__)

MAX_CERTIFICATE = 16 * 1024  # bytes
MAX_OTHERS = 32
MAX_OTHERS_BYTES = 128 * 1024
MAX_KEPT = 512
KEPT_SECONDS = 60.0
MAX_ROUNDS = 4  # of fetching: each candidate path may name something new

_SECOND = timedelta(seconds=1)
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)


def utc_now() -> datetime:
    """Return the present, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class PathVerdict:
    """Whether a certificate is to be believed at a moment.

    Attributes
    ----------
    trusted : bool
        Everything below holds.
    reason : str
        Empty when trusted. Else it begins with ``no trust anchors``, ``unknown issuer``,
        ``self-signed``, ``bad certificate``, ``bad signature``, ``weak algorithm``, ``weak key``,
        ``not yet valid``, ``expired``, ``wrong usage``, ``revoked on`` or
        ``revocation not known``; what follows is for people.
    at : datetime
        The moment asked for, UTC.
    chain : tuple of x509.Certificate
        Leaf to anchor, of the best candidate; empty when there was none.
    revocation : {"good", "revoked", "unknown", "not checked"}
        Of the whole path, as of `at`.
    revoked : datetime or None
        Since when a certificate of the path is bad; later than `at` when trusted nevertheless.
    """

    trusted: bool
    reason: str
    at: datetime
    chain: tuple[x509.Certificate, ...] = ()
    revocation: Revocation = "not checked"
    revoked: datetime | None = None


@dataclass(frozen=True)
class _Kept:
    """A verdict, the moments it is right for, and until when to believe it (monotonic)."""

    verdict: PathVerdict
    first: datetime
    end: datetime
    until: float


class PathValidator:
    """Checks certificates of signers against a trust store. Safe from many threads.

    Revocation is looked at when the store asks for it, with `require_revocation`, with `fetch`,
    and when there are lists or answers at all. In the first two cases not knowing is refused.

    Parameters
    ----------
    trust : TrustStore
        Whom to believe; an empty one believes nobody. Never the system's web authorities.
    intermediates : sequence of x509.Certificate
        Authorities below the anchors; a signature carries one certificate only (PS3.15 C.1).
    ocsp_responses : sequence of bytes
        DER OCSP answers (RFC 6960).
    fetch : bool
        Ask the places named in certificates of a valid path, over plain HTTP.
    require_revocation : bool
        Every certificate below the anchor must be known not to be revoked.
    timeout : float
        Seconds for one fetch to connect, and again to be answered.
    clock : callable
        The present, UTC.

    Raises
    ------
    MissingExtra
        The libraries for it are not installed.
    InvalidCertificate
        An anchor or intermediate cannot be decoded.
    """

    def __init__(
        self,
        trust: TrustStore,
        *,
        intermediates: Sequence[x509.Certificate] = (),
        ocsp_responses: Sequence[bytes] = (),
        fetch: bool = False,
        require_revocation: bool = False,
        timeout: float = 5.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        try:
            from dicom_secure_node.pki import answers as reading
            from dicom_secure_node.pki import fetch as fetching
            from dicom_secure_node.pki import path_rules
        except ImportError as exc:
            raise MissingExtra("validating certification paths", "sign") from exc
        required = trust.check_revocation or require_revocation
        answers = reading.read_answers(map(_der, trust.crls), ocsp_responses)
        try:
            self._rules = path_rules.PathRules(
                map(_der, trust.anchors),
                map(_der, intermediates),
                answers,
                checked=bool(required or fetch or answers.known),
                required=required,
            )
            self._borders = sorted(_edges(self._rules.borders()))
        except Exception as exc:
            found = f"an anchor or intermediate that cannot be decoded ({type(exc).__name__})"
            raise InvalidCertificate(found, "certificates", clause="RFC 5280 4.1") from exc
        self._ours = {_digest(c): c for c in (*trust.anchors, *intermediates)}
        self._anchored = bool(trust.anchors)
        self._fetcher = fetching.Fetcher(timeout, clock) if fetch else None
        self._clock = clock
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
        self._kept_lock = threading.Lock()
        self._rules_lock = threading.Lock()

    def check(
        self,
        leaf: x509.Certificate,
        at: datetime,
        *,
        purpose: Purpose = "signature",
        others: Sequence[x509.Certificate] = (),
        proven: bool = False,
    ) -> PathVerdict:
        """Return the verdict about `leaf` at the moment `at`.

        Parameters
        ----------
        leaf : x509.Certificate
            The signer's.
        at : datetime
            With a time zone. Its fraction of a second is ignored, as certificates know none.
        purpose : {"signature", "timestamp"}
            For a signature the key usage, if there is one, must have digitalSignature or
            nonRepudiation. A timestamp needs the critical, single extended key usage of RFC 3161
            2.3 besides.
        others : sequence of x509.Certificate
            What came along. Used for finding a path, never trusted.
        proven : bool
            `at` is not only the signer's word: a valid timestamp, or the present, says so. Without
            it a compromised key is refused for every moment (see `revocation`).

        Raises
        ------
        ValueError
            `at` has no time zone.
        """
        if at.tzinfo is None:
            raise ValueError("found a moment without time zone, wanted one with")
        at = at.astimezone(UTC)
        if not self._anchored:
            return PathVerdict(False, "no trust anchors", at)
        try:
            problem = _too_much(leaf, others)
            if problem:
                return PathVerdict(False, f"bad certificate: {problem}", at)
            question = Question(
                leaf=_der(leaf),
                others=tuple(map(_der, others)),
                at=at.replace(microsecond=0),
                purpose=purpose,
                proven=proven,
                now=self._clock().astimezone(UTC),
            )
            return replace(self._verdict(question, (leaf, *others)), at=at)
        except Exception as exc:  # it may hold anything, and the decoders go far
            LOGGER.info("a certificate cannot be judged", exc_info=True)
            return PathVerdict(False, f"bad certificate: {type(exc).__name__}", at)

    def _verdict(
        self, question: Question, certificates: tuple[x509.Certificate, ...]
    ) -> PathVerdict:
        digest = sha256(b"".join(sha256(der).digest() for der in question.others)).digest()
        key = (question.leaf, digest, question.purpose, question.proven)
        kept = self._recall(key, question.at)
        if kept is not None:
            return kept
        given = self._ours | {_digest(certificate): certificate for certificate in certificates}
        fetcher = self._fetcher

        def fetched_for(chain: tuple[bytes, ...]) -> tuple[Answers, tuple[Request, ...]]:
            assert fetcher is not None
            return fetcher.known([given[digest] for digest in chain])

        for _ in range(MAX_ROUNDS):
            with self._rules_lock:
                # Perhaps the thread before us asked the same.
                kept = self._recall(key, question.at)
                if kept is not None:
                    return kept
                finding = self._rules.judge(question, fetched_for if fetcher else None)
                if not finding.wanted:
                    verdict = self._worded(finding, question, given)
                    self._keep(key, verdict, finding, question)
                    return verdict
            assert fetcher is not None
            fetcher.fetch(finding.wanted)
        return PathVerdict(False, "revocation not known: too much to fetch", question.at)

    def _worded(
        self, finding: Finding, question: Question, given: Mapping[bytes, x509.Certificate]
    ) -> PathVerdict:
        chain = tuple(given[digest] for digest in finding.chain)
        reason = finding.reason
        try:
            for certificate in chain:
                # pyhanko takes the last of an extension that is there twice; nobody should.
                decoded_extensions(certificate)
            if chain:
                chain[0].public_key()
        except (InvalidCertificate, UnsupportedAlgorithm, ValueError) as exc:
            reason = reason or f"bad certificate: {exc}"
        return PathVerdict(
            not reason, reason, question.at, chain, finding.revocation, finding.revoked
        )

    def _recall(self, key: tuple[object, ...], at: datetime) -> PathVerdict | None:
        with self._kept_lock:
            kept = self._kept.get(key)
            if kept is None or time.monotonic() >= kept.until:
                return None
            if not kept.first <= at < kept.end:
                return None
            self._kept.move_to_end(key)
            return kept.verdict

    def _keep(
        self,
        key: tuple[object, ...],
        verdict: PathVerdict,
        finding: Finding,
        question: Question,
    ) -> None:
        edges = sorted(_edges(finding.borders))
        first, end = _between(question.at, self._borders, edges)
        _, change = _between(question.now, self._borders, edges)
        seconds = min(KEPT_SECONDS, (change - question.now).total_seconds())
        with self._kept_lock:
            self._kept[key] = _Kept(verdict, first, end, time.monotonic() + seconds)
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)


def _der(content: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return content.public_bytes(Encoding.DER)


def _digest(certificate: x509.Certificate) -> bytes:
    return certificate.fingerprint(hashes.SHA256())


def _too_much(leaf: x509.Certificate, others: Sequence[x509.Certificate]) -> str:
    """Return what is too large to be looked at, or nothing: names are decoded slowly."""
    if len(others) > MAX_OTHERS:
        return f"{len(others)} certificates beside it, at most {MAX_OTHERS} are looked at"
    sizes = [len(_der(certificate)) for certificate in others]
    if max([len(_der(leaf)), *sizes]) > MAX_CERTIFICATE:
        return f"one of more than {MAX_CERTIFICATE} bytes"
    if sum(sizes) > MAX_OTHERS_BYTES:
        return f"more than {MAX_OTHERS_BYTES} bytes of certificates beside it"
    return ""


def _edges(borders: Iterable[datetime]) -> set[datetime]:
    """Return first moments of another answer: dates are inclusive, and whole seconds."""
    found = set()
    for border in borders:
        found.add(border)
        if border < _END - _SECOND:
            found.add(border + _SECOND)
    return found


def _between(moment: datetime, *edges: Sequence[datetime]) -> tuple[datetime, datetime]:
    """Return the edges around `moment`, of several sorted sequences."""
    first, end = _BEGINNING, _END
    for ordered in edges:
        place = bisect_right(ordered, moment)
        first = max([first, *ordered[place - 1 : place]]) if place else first
        end = min([end, *ordered[place : place + 1]])
    return first, end
