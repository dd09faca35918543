"""What a key has to be to make signatures of PS3.15 Annex C, and what it is given to sign."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicom_secure_node.errors import InvalidCertificate, InvalidInput
from dicom_secure_node.pki.credential import public_key_of

# Annex C names no size. Less does not last as long as an archive; more keeps verifiers busy and
# helps nobody.
MIN_BITS = 2048
MAX_BITS = 8192


def signing_key(certificate: x509.Certificate, where: str, min_bits: int) -> rsa.RSAPublicKey:
    """Return the public key of a certificate one may sign with.

    Parameters
    ----------
    certificate : x509.Certificate
    where : str
        What messages call it.
    min_bits : int
        Least size of the key.

    Raises
    ------
    InvalidCertificate
        The key is not RSA, too short or too long, or its usage leaves signatures out.
    """
    key = public_key_of(certificate)
    if not isinstance(key, rsa.RSAPublicKey):
        kind = type(key).__name__.removesuffix("PublicKey")
        found = (
            "an EC key" if isinstance(key, ec.EllipticCurvePublicKey) else f"a key of kind {kind}"
        )
        raise InvalidCertificate(found, "an RSA key", where, "PS3.15 C.1")
    if not min_bits <= key.key_size <= MAX_BITS:
        found = f"an RSA key of {key.key_size} bits"
        raise InvalidCertificate(found, f"{min_bits} to {MAX_BITS} bits", where)
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return key  # any use (RFC 5280 4.2.1.3)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        found = "a certificate whose extensions cannot be read"
        raise InvalidCertificate(found, "one of RFC 5280", where, "RFC 5280 4.2") from exc
    if not (usage.digital_signature or usage.content_commitment):
        raise InvalidCertificate(
            "a certificate that is not for signatures",
            "the key usage digitalSignature or nonRepudiation, or none",
            where,
            "RFC 5280 4.2.1.3",
        )
    return key


def misfit(where: str) -> InvalidCertificate:
    """Return the error for a private key that is not the certificate's."""
    found = "a key that does not belong to the certificate"
    return InvalidCertificate(found, "the key of the certificate", where)


def check_digest_info(digest_info: bytes) -> None:
    """Refuse what is no DigestInfo, such as a bare hash: it would be signed all the same.

    Raises
    ------
    InvalidInput
    """
    if not _is_digest_info(digest_info):
        found = f"{len(digest_info)} bytes that are no DigestInfo"
        raise InvalidInput(found, "a DigestInfo in DER", clause="RFC 8017 9.2")


def _is_digest_info(octets: bytes) -> bool:
    # SEQUENCE { SEQUENCE { OID, NULL }, OCTET STRING }; for every hash all lengths have one byte.
    if not 4 < len(octets) < 0x80 + 2:
        return False
    end = 4 + octets[3]
    hash_length = len(octets) - end - 2
    return (
        octets[:3] == bytes([0x30, len(octets) - 2, 0x30])
        and hash_length > 0
        and octets[end : end + 2] == bytes([0x04, hash_length])
    )
