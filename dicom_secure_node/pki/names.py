"""What a certificate calls its holder: subjectAltName, Common Name, fingerprint.

Matching a name against a peer is not done here; see `dicom_secure_node.tls`.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from dicom_secure_node.errors import InvalidCertificate


class SubjectAlternatives(NamedTuple):
    """The subjectAltName of one certificate (RFC 5280 4.2.1.6), each kind in its order."""

    dns: tuple[str, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    uris: tuple[str, ...] = ()


def subject_alternatives(certificate: x509.Certificate) -> SubjectAlternatives:
    """Return the DNS names, IP addresses and URIs of `certificate`; all empty without any.

    Raises
    ------
    InvalidCertificate
        Its extensions cannot be decoded.
    """
    extensions = decoded_extensions(certificate)
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return SubjectAlternatives()
    addresses = names.get_values_for_type(x509.IPAddress)
    return SubjectAlternatives(
        dns=tuple(names.get_values_for_type(x509.DNSName)),
        # The type also allows networks, which only name constraints may hold.
        addresses=tuple(a for a in addresses if isinstance(a, IPv4Address | IPv6Address)),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def common_name(certificate: x509.Certificate) -> str | None:
    """Return the most specific Common Name of the subject, or None.

    Raises
    ------
    InvalidCertificate
        The subject cannot be decoded.
    """
    try:
        found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as exc:
        raise InvalidCertificate("a subject that cannot be decoded", "a name") from exc
    if not found:
        return None
    value = found[-1].value
    return value if isinstance(value, str) else value.decode("latin-1")


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the whole DER certificate, 64 lower-case hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def decoded_extensions(certificate: x509.Certificate) -> x509.Extensions:
    """Return the extensions of `certificate`.

    Raises
    ------
    InvalidCertificate
        One is malformed or there twice: the library decodes them only when asked.
    """
    try:
        return certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        wanted = "extensions that can be decoded"
        raise InvalidCertificate("broken extensions", wanted, clause="RFC 5280 4.2") from exc
