"""Lists of the revoked and OCSP answers, from where the certificates of a path say they are.

Only what a validated path names is asked for: its certificates were issued by somebody trusted.
Plain ``http:`` only (RFC 5280 8: what comes is signed, and TLS would need a path of its own), few,
small and in time; what came is kept for a while, and so is that nothing came.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from dicom_secure_node.errors import InvalidInput, ServiceUnavailable
from dicom_secure_node.pki.answers import Answers, read_answers
from dicom_secure_node.pki.http import exchange, parse_url
from dicom_secure_node.pki.path_finding import Request

LOGGER = logging.getLogger(__name__)

MAX_CRL = 8 * 1024 * 1024
MAX_OCSP = 64 * 1024
MAX_REQUESTS = 8  # of one path
MAX_KEPT = 128
GOOD_SECONDS = 600.0
FAILED_SECONDS = 60.0


class Fetcher:
    """What was fetched lately, and the fetching of the rest. Safe from many threads.

    Parameters
    ----------
    seconds : float
        For one request to connect, and again to be answered.
    now : callable
        The present, UTC.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        seconds: float,
        now: Callable[[], datetime],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._now = now
        self._clock = clock
        self._kept: OrderedDict[Request, tuple[float, Answers]] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, chain: Sequence[x509.Certificate]) -> tuple[Answers, tuple[Request, ...]]:
        """Return what is at hand for a path, leaf to anchor, and what is not."""
        answers = Answers()
        missing = []
        now = self._clock()
        for request in list(_requests(chain))[:MAX_REQUESTS]:
            with self._lock:
                until, found = self._kept.get(request, (now, Answers()))
            if until > now:
                answers += found
            else:
                missing.append(request)
        return answers, tuple(missing)

    def fetch(self, requests: Iterable[Request]) -> None:
        """Fetch what `known` found missing; afterwards it is known, be it as nothing."""
        for request in requests:
            answers = self._answers(request)
            seconds = self._good_for(answers)
            with self._lock:
                self._kept[request] = (self._clock() + seconds, answers)
                while len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)

    def _good_for(self, answers: Answers) -> float:
        """Return seconds to keep `answers`: not past their end, nor asking again at once."""
        ends = [answer.until for answer in answers.known]
        left = (min(ends) - self._now()).total_seconds() if ends else 0.0
        return max(FAILED_SECONDS, min(left, GOOD_SECONDS))

    def _answers(self, request: Request) -> Answers:
        try:
            body = exchange(
                parse_url(request.url),
                "OCSP responder" if request.body else "CRL distribution point",
                body=request.body,
                kind="application/ocsp-request" if request.body else "",
                seconds=self._seconds,
                max_bytes=MAX_OCSP if request.body else MAX_CRL,
            )
        except (InvalidInput, ServiceUnavailable) as exc:
            LOGGER.info("nothing about revocation fetched: %s", exc)
            return Answers()
        return read_answers(ocsp_responses=[body]) if request.body else read_answers([body])


def _requests(chain: Sequence[x509.Certificate]) -> Iterator[Request]:
    """Yield what the certificates of a path name, the anchor's left out."""
    for certificate, issuer in pairwise(chain):
        for url in _ocsp_urls(certificate):
            query = ocsp.OCSPRequestBuilder().add_certificate(
                certificate,
                issuer,
                hashes.SHA1(),  # noqa: S303 - RFC 5019 2.1.1; it names, it does not prove
            )
            yield Request(url, query.build().public_bytes(Encoding.DER))
        for url in _crl_urls(certificate):
            yield Request(url)


def _ocsp_urls(certificate: x509.Certificate) -> Iterator[str]:
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except x509.ExtensionNotFound:
        return
    for place in access.value:
        if place.access_method == AuthorityInformationAccessOID.OCSP:
            yield from _plain_http([place.access_location])


def _crl_urls(certificate: x509.Certificate) -> Iterator[str]:
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    except x509.ExtensionNotFound:
        return
    for point in points.value:
        yield from _plain_http(point.full_name or ())


def _plain_http(names: Iterable[x509.GeneralName]) -> Iterator[str]:
    for name in names:
        plain = isinstance(name, x509.UniformResourceIdentifier)
        if plain and name.value.lower().startswith("http://"):
            yield name.value
