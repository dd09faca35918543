"""The certificate in a signature, and what its key says of a signature value (PS3.15 C.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from dicom_secure_node.errors import InvalidCertificate
from dicom_secure_node.pki.names import decoded_extensions, fingerprint

MAX_BITS = 8192  # a longer key costs more time than a peer may have
SHORT_BITS = 2048  # below, the key itself may be broken
MAX_EXPONENT = 1 << 33


@dataclass(frozen=True)
class SignerCertificate:
    """What (0400,0115) Certificate of Signer holds.

    Attributes
    ----------
    certificate : x509.Certificate
    key : RSAPublicKey
    subject, issuer, fingerprint : str
        RFC 4514 names; SHA-256 of the certificate, hex.
    """

    certificate: x509.Certificate
    key: rsa.RSAPublicKey = field(repr=False)
    subject: str
    issuer: str
    fingerprint: str

    @property
    def key_words(self) -> str:
        """Kind and size of the key."""
        return f"RSA {self.key.key_size}"

    @property
    def is_short(self) -> bool:
        """Whether the key is shorter than 2048 bits."""
        return self.key.key_size < SHORT_BITS

    def opened(self, signature: bytes) -> bytes | None:
        """Return the DigestInfo that was signed; None where this key did not sign anything.

        The padding is checked to its last byte (RFC 8017 9.2), so nothing can hide behind it.
        """
        size = (self.key.key_size + 7) // 8
        if len(signature) == size + 1 and signature[-1] == 0:
            signature = signature[:-1]  # OB is of even length
        if len(signature) != size:
            return None  # RFC 8017 8.2.2 (1)
        try:
            return self.key.recover_data_from_signature(signature, padding.PKCS1v15(), None)
        except (InvalidSignature, ValueError):
            return None


@lru_cache(maxsize=64)
def signer_certificate(der: bytes) -> SignerCertificate:
    """Return the certificate encoded in `der`.

    Raises
    ------
    InvalidCertificate
        It is none, cannot be decoded, or its key is no RSA key of usable size.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject = certificate.subject.rfc4514_string()
        issuer = certificate.issuer.rfc4514_string()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise InvalidCertificate(
            "bytes that are no certificate", "an X.509 certificate in DER",
            "(0400,0115)", "PS3.15 C.1",
        ) from exc  # fmt: skip
    decoded_extensions(certificate)
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise _wrong_key("a key of unknown kind") from exc
    if not isinstance(key, rsa.RSAPublicKey):
        raise _wrong_key(f"a key of kind {type(key).__name__.removesuffix('PublicKey')}")
    if key.key_size > MAX_BITS:
        raise _wrong_key(f"an RSA key of {key.key_size} bits")
    exponent = key.public_numbers().e
    if exponent < 3 or exponent % 2 == 0 or exponent > MAX_EXPONENT:
        # With 1, everybody can sign.
        raise _wrong_key(f"an RSA key of {key.key_size} bits with an exponent nobody uses")
    return SignerCertificate(certificate, key, subject, issuer, fingerprint(certificate))


def _wrong_key(found: str) -> InvalidCertificate:
    return InvalidCertificate(
        found, f"an RSA key of at most {MAX_BITS} bits", "(0400,0115)", "PS3.15 C.1"
    )
