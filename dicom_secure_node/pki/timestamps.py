"""Time stamps of RFC 3161: asking an authority for one, and judging one.

A token says that some data existed at a time, and an authority vouches for it. For a DICOM
signature the data are the octets of Signature (0400,0120) (PS3.3 C.12.1.1.3.1.3).
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dicom_secure_node.errors import (
    ConfigurationError,
    InvalidInput,
    MissingExtra,
)
from dicom_secure_node.pki.http import exchange, parse_url
from dicom_secure_node.pki.paths import PathValidator, PathVerdict

LOGGER = logging.getLogger(__name__)

_FEATURE = "time stamps"
_EXTRA = "sign"


def _random_nonce() -> int:
    return secrets.randbits(64)


class TimestampAuthority:
    """A time stamping authority asked over HTTP (RFC 3161 3.4). Safe from many threads.

    Parameters
    ----------
    url : str
        ``https:``, or ``http:``, which is usual: the token is signed.
    timeout : float
        Seconds to connect, and again to be answered.
    max_bytes : int
        The longest answer.
    hash : {"sha256", "sha384", "sha512"}
        Of the imprint.
    policy : str, optional
        Dotted; the authority then stamps under this one or refuses.
    nonce : callable
        A new number for each request.
    trust : ssl.SSLContext, optional
        For ``https:``; the system's certificates where none is given.

    Raises
    ------
    ConfigurationError
        A parameter is none of these.
    MissingExtra
        The libraries for it are not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        max_bytes: int = 64 * 1024,
        hash: str = "sha256",
        policy: str | None = None,
        nonce: Callable[[], int] = _random_nonce,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        try:
            from dicom_secure_node.pki import timestamp_request, timestamp_token
        except ImportError as exc:
            raise MissingExtra(_FEATURE, _EXTRA) from exc
        self._request = timestamp_request
        if hash not in timestamp_token.STRONG:
            wanted = ", ".join(sorted(timestamp_token.STRONG))
            raise ConfigurationError(f"found hash {hash!r}, wanted one of {wanted}")
        try:
            self._address = parse_url(url)
            timestamp_request.encode(hash, b"", policy, 0)
        except InvalidInput as exc:
            raise ConfigurationError(str(exc)) from exc
        self._service = f"timestamp authority {self._address.host}:{self._address.port}"
        self._seconds = timeout
        self._max_bytes = max_bytes
        self._hash = hash
        self._policy = policy
        self._nonce = nonce
        self._trust = trust

    def stamp(self, data: bytes) -> bytes:
        """Return a token for `data`: the DER TimeStampToken, ready for (0400,0310).

        It is whole, signed by the certificate in it, and the answer to what was asked. Whether
        the authority is to be believed is for `check_token`.

        Raises
        ------
        ServiceUnavailable
            Nobody there, no answer in time, a long one, or one other than 200.
        PeerRefused
            The authority says no, and why.
        InvalidInput
            The answer is none to our request.
        """
        imprint = hashlib.new(self._hash, data).digest()
        nonce = self._nonce()
        answer = exchange(
            self._address,
            self._service,
            body=self._request.encode(self._hash, imprint, self._policy, nonce),
            kind="application/timestamp-query",
            seconds=self._seconds,
            max_bytes=self._max_bytes,
            trust=self._trust,
        )
        return self._request.granted(
            answer,
            self._service,
            digest=self._hash,
            imprint=imprint,
            policy=self._policy,
            nonce=nonce,
        )


@dataclass(frozen=True)
class TimestampVerdict:
    """Whether a token proves that data existed at a time.

    Attributes
    ----------
    valid : bool
        Everything below holds.
    reason : str
        Empty when valid; else what is wrong.
    time : datetime or None
        genTime, UTC; None where the token is not whole or signed by nobody.
    authority : str
        Subject of the authority's certificate, RFC 4514.
    policy : str
        Dotted.
    path : PathVerdict or None
        Of the authority's certificate at `time`; None where it did not come to that.
    """

    valid: bool
    reason: str
    time: datetime | None = None
    authority: str = ""
    policy: str = ""
    path: PathVerdict | None = None


def check_token(token: bytes, data: bytes, validator: PathValidator) -> TimestampVerdict:
    """Return the verdict about a token over `data`; never raise for what is in it.

    1. A TimeStampToken, or a TimeStampResp that grants one; a pad byte is cut.
    2. CMS signed data around a TSTInfo, one signer, signed attributes (RFC 3161 2.4.2): content
       type, message digest, and the identifier of the signer's certificate (RFC 2634, RFC 5035).
    3. The signature, by that certificate.
    4. The imprint: a strong hash, and that of `data`.
    5. The certificate: for time stamps only, critical (2.3), and trusted at genTime.

    The nonce is checked where the request is known: by `TimestampAuthority`.

    Parameters
    ----------
    token : bytes
        As stored, at most 64 KiB.
    data : bytes
        What was stamped.
    validator : PathValidator
        Trust in authorities, which may be others than those of signers.

    Raises
    ------
    MissingExtra
        The libraries for it are not installed.
    """
    try:
        from dicom_secure_node.pki import timestamp_token
    except ImportError as exc:
        raise MissingExtra(_FEATURE, _EXTRA) from exc
    try:
        found = timestamp_token.read_token(token)
        authority = found.signer.subject.rfc4514_string()
    except timestamp_token.BadToken as exc:
        return TimestampVerdict(False, str(exc))
    except Exception as exc:  # a name may hold anything
        LOGGER.info("a time stamp cannot be judged", exc_info=True)
        return TimestampVerdict(False, f"not a time stamp token ({type(exc).__name__})")
    if not found.is_about(data):
        reason = "the token is about other data"
        return TimestampVerdict(False, reason, found.time, authority, found.policy)
    path = validator.check(found.signer, found.time, purpose="timestamp", others=found.others)
    reason = "" if path.trusted else f"the authority's certificate: {path.reason}"
    return TimestampVerdict(path.trusted, reason, found.time, authority, found.policy, path)
