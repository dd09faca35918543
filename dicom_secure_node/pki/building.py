"""The parts a certificate, a request or a CRL of ours is built from (RFC 5280 section 4)."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.pki.files import PrivateKey

KeyKind = Literal["rsa", "ec"]
Usage = Literal["node", "client"]

# Peers' clocks differ; a certificate made now is valid there too.
BACKDATED = datetime.timedelta(hours=1)

# A last label of digits alone would be a mistyped address.
_HOST = re.compile(
    r"(?=.{1,253}$)(?!(.*\.)?[0-9]+$)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*"
)

_PURPOSES = {
    "node": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH,),
}


def is_host(text: str) -> bool:
    """Return whether `text` is a DNS name in ASCII; it need not exist."""
    return _HOST.fullmatch(text) is not None


def subject_name(name: str, organisation: str) -> x509.Name:
    """Return the subject ``CN=name,O=organisation``."""
    # X.520 allows 64 characters, and a control character would only trouble other software.
    if not 1 <= len(organisation) <= 64 or not organisation.isprintable():
        wanted = "1 to 64 printable characters"
        raise ConfigurationError(f"found the organisation {organisation!r}, wanted {wanted}")
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def general_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """Return the subjectAltName: peers that check names look nowhere else (RFC 9525)."""
    if not hosts:
        raise ConfigurationError("found no host, wanted at least one name or address")
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError as exc:
            if not is_host(host):
                wanted = "a DNS name in ASCII or an IP address"
                raise ConfigurationError(f"found the host {host!r}, wanted {wanted}") from exc
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def make_key(kind: KeyKind) -> PrivateKey:
    """Return a new private key, RSA 2048 or P-256."""
    # The least sizes of PS3.15 B.13, which are also those every peer knows.
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048)


def key_pem(key: PrivateKey) -> bytes:
    """Return `key` as unencrypted PKCS#8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_builder(
    subject: x509.Name,
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    start: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    """Return what an authority's certificate and a leaf's have in common."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATED)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def authority_key(signer: PrivateKey) -> x509.AuthorityKeyIdentifier:
    """Return the extension that says which of an authority's keys signed."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())


def extended_key_usage(usage: Usage) -> x509.ExtendedKeyUsage:
    """Return extKeyUsage: a node both answers and opens connections."""
    return x509.ExtendedKeyUsage(_PURPOSES[usage])


def key_usage(key: PrivateKey | None = None, *, ca: bool = False) -> x509.KeyUsage:
    """Return keyUsage: TLS signs, and a recipient of secure files deciphers with the same key."""
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=isinstance(key, rsa.RSAPrivateKey),
        data_encipherment=False,
        key_agreement=isinstance(key, ec.EllipticCurvePrivateKey),
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
