"""Whom we believe: trust anchors, and the lists of what their authorities took back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.pki.files import read_certificates, read_crls

_SIGNERS = (
    rsa.RSAPublicKey,
    ec.EllipticCurvePublicKey,
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
)


@dataclass(frozen=True)
class TrustStore:
    """Trust anchors and certificate revocation lists.

    Attributes
    ----------
    anchors : tuple of x509.Certificate
        Authorities, or single certificates trusted for themselves. None is there twice.
    crls : tuple of x509.CertificateRevocationList
        As read; whether one is out of date is decided when a path is checked.
    check_revocation : bool
        Every certificate of a path, the anchor left out, must then be covered by a current CRL.
    """

    anchors: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    check_revocation: bool = False


def load_trust(anchors: Sequence[Path], crls: Sequence[Path] = ()) -> TrustStore:
    """Return the trust store of PEM bundles or DER files.

    Naming a CRL file is asking for revocation checks.

    Raises
    ------
    ConfigurationError
        A file cannot be read, or no anchor is named.
    InvalidCertificate
        A file holds something else, or an anchor's name stands on a CRL it did not sign.
    """
    if not anchors:
        raise ConfigurationError("found no trust anchor, wanted at least one file")
    # A dict keeps the order and drops what two bundles have in common.
    trusted = tuple({c: None for path in anchors for c in read_certificates(path)})
    lists: list[x509.CertificateRevocationList] = []
    for path in crls:
        for crl in read_crls(path):
            _check_signature(crl, trusted, path)
            lists.append(crl)
    return TrustStore(trusted, tuple(lists), check_revocation=bool(crls))


def _check_signature(
    crl: x509.CertificateRevocationList, anchors: Sequence[x509.Certificate], path: Path
) -> None:
    """Refuse a list that bears an anchor's name and none of the anchors of that name signed.

    Left alone it would make every handshake fail later. A list of an intermediate authority
    cannot be checked before that authority's certificate is seen.
    """
    namesakes = [anchor for anchor in anchors if anchor.subject == crl.issuer]
    if namesakes and not any(_signed_by(crl, anchor) for anchor in namesakes):
        issuer = crl.issuer.rfc4514_string()
        raise InvalidCertificate(
            f"a CRL of {issuer!r} that it did not sign",
            "one signed with the key of the trusted certificate",
            str(path),
            "RFC 5280 6.3.3 (g)",
        )


def _signed_by(crl: x509.CertificateRevocationList, anchor: x509.Certificate) -> bool:
    try:
        key = anchor.public_key()
        return isinstance(key, _SIGNERS) and crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
