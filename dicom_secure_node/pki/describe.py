"""What an engineer needs to know of a certificate, as plain data."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from dicom_secure_node.pki.names import decoded_extensions, fingerprint, subject_alternatives

_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "server",
    ExtendedKeyUsageOID.CLIENT_AUTH: "client",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "mail",
    ExtendedKeyUsageOID.TIME_STAMPING: "time stamps",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSP",
    ExtendedKeyUsageOID.CODE_SIGNING: "code",
}


@dataclass(frozen=True)
class Description:
    """One certificate in words.

    Attributes
    ----------
    subject, issuer : str
        RFC 4514.
    names : tuple of str
        DNS names, addresses and URIs of the subjectAltName.
    key : str
        Kind and size in bits, e.g. ``RSA 2048`` or ``EC 256 secp256r1``.
    signature : str
        Hash the issuer signed with, e.g. ``sha256``.
    not_before, not_after : datetime.datetime
        UTC, both inclusive.
    days_left : int
        Whole days until `not_after`, rounded down; negative when it has passed.
    usable_for : tuple of str
        ``CA``, or of ``server``, ``client``, ``mail`` ...; ``any`` without restriction.
    serial, fingerprint : str
        Hexadecimal; the fingerprint is SHA-256 over the DER.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    key: str
    signature: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    days_left: int
    usable_for: tuple[str, ...]
    serial: str
    fingerprint: str


def describe(certificate: x509.Certificate, at: datetime.datetime) -> Description:
    """Return the description of `certificate` as of the time `at` (UTC).

    Raises
    ------
    InvalidCertificate
        Its extensions cannot be decoded.
    """
    dns, addresses, uris = subject_alternatives(certificate)
    end = certificate.not_valid_after_utc
    return Description(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=(*dns, *(str(address) for address in addresses), *uris),
        key=_key(certificate),
        signature=_signature(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=end,
        days_left=(end - at).days,
        usable_for=usable_for(certificate),
        serial=f"{certificate.serial_number:x}",
        fingerprint=fingerprint(certificate),
    )


def usable_for(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return what the extensions allow the certificate's key to be used for (RFC 5280 4.2.1)."""
    extensions = decoded_extensions(certificate)
    if is_authority(extensions):
        return ("CA",)
    try:
        purposes = tuple(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return ("any",)
    if ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in purposes:
        return ("any",)
    return tuple(_PURPOSES.get(purpose, purpose.dotted_string) for purpose in purposes)


def is_authority(extensions: x509.Extensions) -> bool:
    """Return whether BasicConstraints make the holder an authority."""
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "unknown"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.key_size} {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey")


def _signature(certificate: x509.Certificate) -> str:
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "unknown"
    return algorithm.name if algorithm else "none"
