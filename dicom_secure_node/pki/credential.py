"""Who we are: a certificate, the intermediates above it and the private key that fits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from dicom_secure_node.errors import InvalidCertificate
from dicom_secure_node.pki.files import (
    Passphrase,
    PrivateKey,
    read_certificates,
    read_key,
    read_pkcs12,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Credential:
    """A certificate with its private key.

    Attributes
    ----------
    certificate : x509.Certificate
        Our own, the leaf.
    chain : tuple of x509.Certificate
        The intermediates a peer needs, the leaf's issuer first; leaf and root left out.
    key : RSAPrivateKey or EllipticCurvePrivateKey
        Fits `certificate`; shown by no ``repr``.
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)

    @property
    def key_kind(self) -> Literal["RSA", "EC"]:
        """Return the kind of key, which decides the suites it serves (PS3.15 B.13)."""
        return "RSA" if isinstance(self.key, rsa.RSAPrivateKey) else "EC"

    @property
    def subject(self) -> str:
        """Return the subject as RFC 4514 writes it, e.g. ``CN=node,O=Lab``."""
        return self.certificate.subject.rfc4514_string()


def load_credential(
    certificate: Path, key: Path, passphrase: Passphrase | None = None
) -> Credential:
    """Return the credential of two files, which may be one and the same.

    Parameters
    ----------
    certificate : Path
        PEM with the leaf first and its intermediates after it in any order, or DER.
    key : Path
        PEM or DER, RSA or EC.
    passphrase : callable, optional
        Asked only when the key is encrypted.

    Raises
    ------
    ConfigurationError
        A file cannot be read.
    InvalidCertificate
        A file holds something else, or the key is not the certificate's.
    """
    leaf, *others = read_certificates(certificate)
    private_key = read_key(key, passphrase)
    public_key = private_key.public_key()
    if public_key_of(leaf) != public_key:
        found = "a key that does not belong to the certificate"
        for position, other in enumerate(others, start=2):
            if public_key_of(other) == public_key:
                found = f"a key that belongs to certificate {position}, not to the first"
        raise InvalidCertificate(found, f"the key of {certificate}", str(key))
    return Credential(leaf, _ordered(leaf, others, certificate), private_key)


def load_credential_base(base: Path, passphrase: Passphrase | None = None) -> Credential:
    """Return the credential of ``BASE.crt`` and ``BASE.key``, e.g. of ``pki/node``."""
    # not with_suffix: the last part of a name such as "ct.radiology" is no suffix
    certificate = base.with_name(f"{base.name}.crt")
    return load_credential(certificate, base.with_name(f"{base.name}.key"), passphrase)


def load_pkcs12(path: Path, passphrase: Passphrase | None = None) -> Credential:
    """Return the credential of a PKCS#12 file: its key, that key's certificate and those above.

    Raises
    ------
    ConfigurationError
        The file cannot be read.
    InvalidCertificate
        It is no PKCS#12 file, lacks the key or its certificate, or the passphrase does not fit.
    """
    key, held = read_pkcs12(path, passphrase)
    public_key = key.public_key()
    leaf = next((one for one in held if public_key_of(one) == public_key), None)
    if leaf is None:
        found = f"{len(held)} certificates, none of the key" if held else "no certificate"
        raise InvalidCertificate(found, "the certificate of the key in it", str(path))
    others = [one for one in held if one != leaf]
    return Credential(leaf, _ordered(leaf, others, path), key)


def public_key_of(certificate: x509.Certificate) -> PublicKeyTypes | None:
    """Return the certificate's key, None where the library does not know its kind."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def chain_above(
    leaf: x509.Certificate, others: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """Return those of `others` that lead upwards from `leaf`, in that order, without a root.

    Peers before TLS 1.3 may insist on the order (RFC 5246 7.4.2), and files often have another.
    """
    left = _without_roots(others)
    chain: list[x509.Certificate] = []
    lowest = leaf
    while above := next((c for c in left if c.subject == lowest.issuer), None):
        left.remove(above)
        chain.append(above)
        lowest = above
    return tuple(chain)


def _ordered(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], path: Path
) -> tuple[x509.Certificate, ...]:
    """Return the chain, and say so in the log where the file holds strangers."""
    chain = chain_above(leaf, others)
    left = len(_without_roots(others)) - len(chain)
    if left:
        logger.warning("%s: %d certificates do not lead upwards from the first", path, left)
    return chain


def _without_roots(certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    return [one for one in certificates if one.issuer != one.subject]
