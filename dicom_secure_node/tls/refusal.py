"""Why a handshake failed, in one stable word and one sentence.

OpenSSL tells it in three ways: a certificate verification code, an error with a reason text, or
an alert the peer sent. All three end here as a `TLSRefused`.
"""

from __future__ import annotations

import re
import ssl

from OpenSSL import SSL
from OpenSSL.SSL import X509VerificationCodes as Code

from dicom_secure_node.errors import HandshakeRefused


class TLSRefused(HandshakeRefused, ssl.SSLError):
    """`HandshakeRefused` that pynetdicom takes for a broken connection (an ``OSError``)."""

    def __str__(self) -> str:
        return str(self.args[0])


class TLSBroken(ssl.SSLError):
    """A TLS connection broke after its handshake (A-P-ABORT, PS3.15 B.12 and B.13).

    Attributes
    ----------
    reason : str
        For the log, e.g. ``"TLS integrity failure"`` or the peer's alert.
    integrity : bool
        True where a record was damaged or forged on its way.
    """

    def __init__(self, reason: str, *, integrity: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.integrity = integrity

    def __str__(self) -> str:
        return self.reason


_KEY_TOO_SMALL, _CA_KEY_TOO_SMALL, _CA_HASH_TOO_WEAK = 66, 67, 68  # not named by pyOpenSSL
_NO_CA = (Code.ERR_INVALID_CA, Code.ERR_KEYUSAGE_NO_CERTSIGN, 79)  # 79: the same, said newly

_VERIFY_KINDS = {
    Code.ERR_CERT_HAS_EXPIRED: "expired",
    Code.ERR_CERT_NOT_YET_VALID: "not yet valid",
    Code.ERR_CERT_REVOKED: "revoked",
    Code.ERR_UNABLE_TO_GET_ISSUER_CERT: "unknown issuer",
    Code.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "unknown issuer",
    Code.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "unknown issuer",
    Code.ERR_SELF_SIGNED_CERT_IN_CHAIN: "unknown issuer",
    Code.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "self-signed",
    Code.ERR_CERT_SIGNATURE_FAILURE: "bad signature",
    Code.ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE: "bad signature",
    Code.ERR_INVALID_PURPOSE: "wrong usage",
    Code.ERR_CRL_HAS_EXPIRED: "crl expired",
    Code.ERR_CRL_NOT_YET_VALID: "crl expired",
    Code.ERR_UNABLE_TO_GET_CRL: "crl missing",
    Code.ERR_UNABLE_TO_GET_CRL_ISSUER: "crl missing",
    Code.ERR_CRL_SIGNATURE_FAILURE: "crl missing",
    Code.ERR_DIFFERENT_CRL_SCOPE: "crl missing",
    _KEY_TOO_SMALL: "weak key",
    _CA_KEY_TOO_SMALL: "weak key",
    _CA_HASH_TOO_WEAK: "weak key",
}

_VERIFY_WORDS = {
    "expired": "the certificate of {who} has expired",
    "not yet valid": "the certificate of {who} is not valid yet",
    "revoked": "the certificate of {who} is revoked",
    "unknown issuer": "the certificate of {who} was issued by nobody we trust",
    "self-signed": "the certificate of {who} is self-signed and not trusted",
    "bad signature": "the signature on the certificate of {who} is wrong",
    "wrong usage": "the certificate of {who} may not be used for this side of TLS",
    "crl expired": "the revocation list for {who} is out of date",
    "crl missing": "there is no valid revocation list for {who}",
    "weak key": "the certificate of {who} is too weak",
}

# Reason texts of OpenSSL, by what they begin with; the first that fits counts.
_REASON_KINDS = (
    ("peer did not return a certificate", "no certificate", "the peer sent no certificate"),
    ("unsupported protocol", "protocol version", "no protocol version in common"),
    ("wrong version number", "protocol version", "no protocol version in common"),
    ("version too low", "protocol version", "no protocol version in common"),
    ("wrong ssl version", "protocol version", "no protocol version in common"),
    ("unknown protocol", "protocol version", "no protocol version in common"),
    ("inappropriate fallback", "protocol version", "the peer fell back to an older version"),
    ("no shared cipher", "no shared suite", "no cipher suite in common"),
    ("wrong cipher returned", "no shared suite", "the peer chose a suite we did not offer"),
    ("unknown cipher returned", "no shared suite", "the peer chose a suite we did not offer"),
    ("no suitable signature algorithm", "no shared suite", "no signature algorithm in common"),
    ("no shared signature algorithm", "no shared suite", "no signature algorithm in common"),
    ("wrong signature type", "no shared suite", "a signature algorithm we do not allow"),
    ("no suitable key share", "no shared suite", "no key-exchange group in common"),
    ("no suitable groups", "no shared suite", "no key-exchange group in common"),
    ("no shared group", "no shared suite", "no key-exchange group in common"),
    ("unsupported elliptic curve", "no shared suite", "a key-exchange group we do not allow"),
    ("wrong curve", "no shared suite", "a key-exchange group we do not allow"),
    ("dh key too small", "weak key", "the peer's Diffie-Hellman key is too small"),
    ("ee key too small", "weak key", "the peer's key is too small"),
    ("no application protocol", "no shared protocol", 'the peer does not speak "dicom"'),
    ("bad signature", "wrong key", "the peer has not the key of its certificate"),
    ("unexpected eof", "closed by peer", "the peer closed during the handshake"),
)

_INTEGRITY_ALERTS = ("bad_record_mac", "decrypt_error")
_INTEGRITY_REASONS = ("bad record mac", "decryption failed", "bad mac")
_ALERT = re.compile(r"\balert (?P<name>[a-z0-9 /]+)$")


def from_verification(code: int, depth: int, subject: str) -> TLSRefused:
    """Return the refusal for a certificate verification code of OpenSSL.

    Parameters
    ----------
    code : int
        ``X509_V_ERR_...``.
    depth : int
        0 for the peer's own certificate, more for those above it.
    subject : str
        RFC 4514 name of the certificate.
    """
    kind = _VERIFY_KINDS.get(code, "bad certificate")
    words = _VERIFY_WORDS.get(kind, f"the certificate of {{who}} is unusable (OpenSSL code {code})")
    if code in _NO_CA:
        words = "{who} is no certification authority and signed a certificate"
    return TLSRefused(kind, words.format(who=who(depth, subject)))


def who(depth: int, subject: str) -> str:
    """Return how to call a member of a chain; its name is the peer's text, hence `repr`."""
    return f"{'the peer' if depth == 0 else 'an authority'} {subject!r}"


def reasons_of(error: SSL.Error) -> tuple[str, ...]:
    """Return OpenSSL's reason texts in lower case, the cause first; nothing if it gave none."""
    entries = error.args[0] if error.args and isinstance(error.args[0], (list, tuple)) else ()
    return tuple(str(entry[-1]).lower() for entry in entries if entry)


def alert_of(error: SSL.Error) -> str | None:
    """Return the name of the alert the peer sent (RFC 8446 6.2), None if it sent none."""
    found = next(filter(None, map(_ALERT.search, reasons_of(error))), None)
    return found["name"].strip().replace(" ", "_") if found else None


def from_error(error: SSL.Error) -> TLSRefused:
    """Return the refusal for what OpenSSL raised during a handshake."""
    alert = alert_of(error)
    if alert:
        return TLSRefused("refused by peer", f"the peer sent the alert {alert}")
    reasons = reasons_of(error)
    for beginning, kind, words in _REASON_KINDS:
        if any(reason.startswith(beginning) for reason in reasons):
            return TLSRefused(kind, words)
    return TLSRefused("tls failure", "; ".join(reasons) or "no reason given by the TLS library")


def broken(error: SSL.Error) -> TLSBroken:
    """Return the failure for what OpenSSL raised on an established connection."""
    alert = alert_of(error)
    if alert:
        return TLSBroken(f"the peer sent the alert {alert}", integrity=alert in _INTEGRITY_ALERTS)
    reasons = reasons_of(error)
    damaged = any(word in reason for word in _INTEGRITY_REASONS for reason in reasons)
    what = "TLS integrity failure" if damaged else "TLS failure"
    return TLSBroken(f"{what}: {'; '.join(reasons) or 'no reason given'}", integrity=damaged)


def not_tls(start: bytes) -> TLSRefused | None:
    """Return a refusal if a peer's first bytes begin no TLS record, else None.

    Parameters
    ----------
    start : bytes
        At least one byte.
    """
    if start[:1] in (b"\x16", b"\x15") and start[1:2] in (b"", b"\x03"):  # handshake or alert
        return None
    if start[0] & 0x80 and start[2:3] in (b"", b"\x01"):
        return TLSRefused("protocol version", "found an SSL 2 hello, wanted TLS")
    return TLSRefused("not TLS", f"found {_looks_like(start)}, wanted a TLS handshake")


def _looks_like(start: bytes) -> str:
    pdus = {
        1: "a plain DICOM A-ASSOCIATE-RQ",
        2: "a plain DICOM A-ASSOCIATE-AC",
        3: "a plain DICOM A-ASSOCIATE-RJ",
        7: "a plain DICOM A-ABORT",
    }
    if start[0] in pdus and start[1:2] in (b"", b"\x00"):
        return pdus[start[0]]
    if re.match(rb"(GET|POST|PUT|HEAD|OPTIONS|CONNECT|DELETE|PATCH|TRACE|PRI) ", start):
        return "a plain HTTP request"
    if start.startswith(b"HTTP/"):
        return "a plain HTTP answer"
    return f"bytes starting {start[:4].hex(' ')}"
