"""What tests of signing keys share: DigestInfo, odd certificates, and openssl's opinion."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from tests.certs import DAY, Ca, now
from tests.pki.openssl import openssl

#: DER before the hash value in a DigestInfo (RFC 8017 9.2 note 1; RIPEMD-160: ISO 10118-3).
#: Typed for the tests; the hashes are those of PS3.15 C.1, by openssl's names.
PREFIXES = {
    "ripemd160": "30 21 30 09 06 05 2b 24 03 02 01 05 00 04 14",
    "md5": "30 20 30 0c 06 08 2a 86 48 86 f7 0d 02 05 05 00 04 10",
    "sha1": "30 21 30 09 06 05 2b 0e 03 02 1a 05 00 04 14",
    "sha256": "30 31 30 0d 06 09 60 86 48 01 65 03 04 02 01 05 00 04 20",
    "sha384": "30 41 30 0d 06 09 60 86 48 01 65 03 04 02 02 05 00 04 30",
    "sha512": "30 51 30 0d 06 09 60 86 48 01 65 03 04 02 03 05 00 04 40",
}

NO_USE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


def digest_info(name: str, folder: Path, content: bytes = b"an instance") -> bytes:
    """Return the DigestInfo of `content`, hashed by openssl."""
    (folder / "content").write_bytes(content)
    done = openssl("dgst", f"-{name}", "-r", folder / "content")
    return bytes.fromhex(PREFIXES[name] + done.stdout.split()[0])


def openssl_verifies(
    name: str, signature: bytes, key: rsa.RSAPublicKey, folder: Path, content: bytes
) -> bool:
    """Return whether openssl takes `signature` for one over `content`."""
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for file, octets in {"key": pem, "signature": signature, "content": content}.items():
        (folder / file).write_bytes(octets)
    words = ("-verify", folder / "key", "-signature", folder / "signature", folder / "content")
    return openssl("dgst", f"-{name}", *words).returncode == 0


def certificate_of(
    ca: Ca,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    *uses: str,
    extension: bool = True,
    name: str = "signer",
) -> x509.Certificate:
    """Return a certificate by `ca` with the key usages named; none at all without `extension`."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(ca.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - DAY)
        .not_valid_after(now() + 90 * DAY)
    )
    if extension:
        usage = x509.KeyUsage(**(NO_USE | dict.fromkeys(uses, True)))
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(ca.key, hashes.SHA256())
