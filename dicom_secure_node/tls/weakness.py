"""Key sizes and hashes of certificates, by the profile's own numbers.

OpenSSL's security level would check the same, but B.13's CCM_8 suites and TLS 1.0 can only be
had at level 0, where it checks nothing. So we check every certificate ourselves, at any level.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicom_secure_node.tls.profiles import TLSProfile


def weaknesses(
    certificate: x509.Certificate, profile: TLSProfile, *, anchor: bool = False
) -> tuple[str, ...]:
    """Return what makes `certificate` too weak for `profile`, in words; nothing if it is fine.

    Parameters
    ----------
    certificate : x509.Certificate
        Any member of a chain.
    profile : TLSProfile
        Whose numbers count.
    anchor : bool
        A trust anchor's own signature proves nothing and is not looked at; its key is.

    References
    ----------
    PS3.15 B.13 (certificates); RFC 9325 4.5
    """
    problems = list(_weak_key(certificate, profile))
    if not anchor:
        problems.extend(_weak_signature(certificate, profile))
    return tuple(problems)


def _weak_key(certificate: x509.Certificate, profile: TLSProfile) -> Iterator[str]:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        yield "a key this library cannot read"
        return
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < profile.min_rsa_bits:
            yield f"an RSA key of {key.key_size} bits, want {profile.min_rsa_bits}"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.key_size < profile.min_ec_bits:
            yield f"an EC key of {key.curve.key_size} bits, want {profile.min_ec_bits}"
    else:
        yield f"a key of type {type(key).__name__}, want RSA or EC"


def _weak_signature(certificate: x509.Certificate, profile: TLSProfile) -> Iterator[str]:
    try:
        hash_algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        yield "a signature with an unknown hash"
        return
    if hash_algorithm is None:  # EdDSA: hashes with SHA-512 or better inside
        return
    if hash_algorithm.name == "sha1" and profile.sha1_allowed:
        return
    if hash_algorithm.digest_size < 32:  # bytes; SHA-256 or greater
        yield f"a signature with {hash_algorithm.name.upper()}, want SHA-256 or better"
