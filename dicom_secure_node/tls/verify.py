"""Our part in checking a peer's certificates, called by OpenSSL once for each of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from cryptography import x509
from OpenSSL import SSL, crypto
from OpenSSL.SSL import X509VerificationCodes as Code

from dicom_secure_node.pki.trust import TrustStore
from dicom_secure_node.tls.profiles import TLSProfile
from dicom_secure_node.tls.refusal import TLSRefused, from_verification, who
from dicom_secure_node.tls.weakness import weaknesses

logger = logging.getLogger(__name__)


@dataclass
class Verdict:
    """What the callbacks of one connection found; hung on it as its application data.

    Attributes
    ----------
    refusal : TLSRefused or None
        The first reason to refuse the peer.
    observed : TLSRefused or None
        The same where the context only observes: the peer is let in all the same.
    """

    refusal: TLSRefused | None = None
    observed: TLSRefused | None = None

    def refuse(self, refusal: TLSRefused) -> None:
        """Keep the first refusal; later ones follow from it."""
        self.refusal = self.refusal or refusal


class PeerCheck:
    """Agree with OpenSSL's verification or refuse, for every certificate of a chain.

    OpenSSL checks signatures, dates, usage, constraints and revocation. We add key sizes and
    hashes (PS3.15 B.13, RFC 9325 4.5), and take one thing back: a trust anchor needs no
    revocation list of its own, for what revokes an anchor is its removal (RFC 5280 6.1).

    Parameters
    ----------
    profile : TLSProfile
        Whose key sizes count.
    trust : TrustStore
        Its anchors.
    observe : bool
        Note what would be refused, and refuse nothing.
    """

    def __init__(self, profile: TLSProfile, trust: TrustStore, observe: bool = False) -> None:
        self._profile = profile
        self._anchors = frozenset(trust.anchors)
        self._observe = observe

    def __call__(
        self, connection: SSL.Connection, cert: crypto.X509, code: int, depth: int, ok: int
    ) -> bool:
        """Return whether verification goes on. Never raises, see `engine`."""
        verdict: Verdict = connection.get_app_data()
        try:
            refusal = self._refusal(cert.to_cryptography(), code, depth, bool(ok))
        except Exception as exc:  # whatever a strange certificate makes a parser do
            logger.debug("unreadable certificate", exc_info=True)
            refusal = TLSRefused("bad certificate", f"unreadable: {type(exc).__name__}")
        if refusal is None:
            return True
        if self._observe:
            verdict.observed = verdict.observed or refusal
            return True
        verdict.refuse(refusal)
        return False

    def _refusal(
        self, certificate: x509.Certificate, code: int, depth: int, ok: bool
    ) -> TLSRefused | None:
        anchor = certificate in self._anchors
        subject = certificate.subject.rfc4514_string()
        weak = weaknesses(certificate, self._profile, anchor=anchor)
        refusal = from_verification(code, depth, subject) if not ok else None
        if refusal and anchor and code == Code.ERR_UNABLE_TO_GET_CRL:
            refusal = None
        if weak and (refusal is None or refusal.kind == "weak key"):
            return TLSRefused("weak key", f"{who(depth, subject)} has {'; '.join(weak)}")
        return refusal
