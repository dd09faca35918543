"""Read certificates, keys and CRLs from PEM, DER or PKCS#12; say clearly what else was found.

A missing or unreadable file is a `ConfigurationError`: somebody named the wrong one. A file that
is there and holds something else is an `InvalidCertificate`, which names what it holds: the
usual mistakes are a request instead of a certificate, a PKCS#12 file and two files exchanged.
Passphrases come from callables, asked only when needed; `passphrase_source` makes one of a file.

`write_file` is the way back: whole or not at all, with the right mode from the first byte.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)

from dicom_secure_node.errors import ConfigurationError, InvalidCertificate

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Passphrase = Callable[[], bytes]
_Held = TypeVar("_Held")

# Nobody's bundle is this large; a device file or a log named by mistake may be.
_MAX_BYTES = 8 * 1024 * 1024
_MAX_PASSPHRASE = 4096  # bytes, of the file it is in

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_CERTIFICATE = ("CERTIFICATE", "X509 CERTIFICATE")
_CRL = ("X509 CRL",)
_KEY = ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY")

_PKCS12 = "a PKCS#12 file"
_WORDS = {
    "CERTIFICATE REQUEST": "a certificate request",
    "NEW CERTIFICATE REQUEST": "a certificate request",
    "TRUSTED CERTIFICATE": "an OpenSSL trusted certificate",
    "ENCRYPTED PRIVATE KEY": "an encrypted private key",
    "OPENSSH PRIVATE KEY": "an OpenSSH private key",
    "PUBLIC KEY": "a public key without its private half",
    "PKCS7": "a PKCS#7 file",
    "EC PARAMETERS": "curve parameters without a key",
}


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a PEM bundle, or the one of a DER file, in the file's order.

    Raises
    ------
    ConfigurationError
        The file cannot be read.
    InvalidCertificate
        It holds no certificate, or a broken one.
    """
    content = _read(path)
    blocks = _blocks(content, _CERTIFICATE)
    if not blocks and _is_pem(content):
        raise InvalidCertificate(_describe(content), "a certificate in PEM or DER", str(path))
    try:
        if blocks:
            return tuple(x509.load_pem_x509_certificate(block) for block in blocks)
        return (x509.load_der_x509_certificate(content),)
    except (ValueError, UnsupportedAlgorithm) as exc:
        found = "a broken certificate" if blocks else _describe(content)
        raise InvalidCertificate(found, "a certificate in PEM or DER", str(path)) from exc


def read_crls(path: Path) -> tuple[x509.CertificateRevocationList, ...]:
    """Return the certificate revocation lists of a PEM bundle, or the one of a DER file.

    Raises
    ------
    ConfigurationError
        The file cannot be read.
    InvalidCertificate
        It holds no CRL, or a broken one.
    """
    content = _read(path)
    blocks = _blocks(content, _CRL)
    if not blocks and _is_pem(content):
        raise InvalidCertificate(_describe(content), "a CRL in PEM or DER", str(path))
    try:
        if blocks:
            return tuple(x509.load_pem_x509_crl(block) for block in blocks)
        return (x509.load_der_x509_crl(content),)
    except (ValueError, UnsupportedAlgorithm) as exc:
        found = "a broken CRL" if blocks else _describe(content)
        raise InvalidCertificate(found, "a CRL in PEM or DER", str(path)) from exc


def read_key(path: Path, passphrase: Passphrase | None = None) -> PrivateKey:
    """Return the RSA or EC private key of a PEM or DER file.

    Parameters
    ----------
    path : Path
        The file; in a PEM file other blocks, such as the certificate, are passed over.
    passphrase : callable, optional
        Asked only when the key is encrypted; what it returns appears in no message.

    Raises
    ------
    ConfigurationError
        The file cannot be read.
    InvalidCertificate
        It holds no usable key, or the passphrase is missing or wrong.
    """
    content = _read(path)
    blocks = _blocks(content, _KEY)
    if not blocks and _is_pem(content):
        raise InvalidCertificate(_describe(content), "a private key in PEM or DER", str(path))
    load = load_pem_private_key if blocks else load_der_private_key
    encoded = blocks[0] if blocks else content
    key: object
    try:
        key = load(encoded, None)
    except TypeError as exc:  # the library's way to say that the key is encrypted
        if passphrase is None:
            found = "an encrypted key and no passphrase given"
            raise InvalidCertificate(found, "a passphrase, or a plain key", str(path)) from exc
        key = _unlock(partial(load, encoded), passphrase, path)
    except (ValueError, UnsupportedAlgorithm) as exc:
        found = "a broken private key" if blocks else _describe(content)
        raise InvalidCertificate(found, "a private key in PEM or DER", str(path)) from exc
    return _usable(key, path)


def read_pkcs12(
    path: Path, passphrase: Passphrase | None = None
) -> tuple[PrivateKey, tuple[x509.Certificate, ...]]:
    """Return the RSA or EC private key of a PKCS#12 file and all its certificates, in no order.

    Parameters
    ----------
    path : Path
        What ``openssl pkcs12 -export``, browsers and Windows write (RFC 7292).
    passphrase : callable, optional
        Asked only when the file is encrypted; what it returns appears in no message.

    Raises
    ------
    ConfigurationError
        The file cannot be read.
    InvalidCertificate
        It is no PKCS#12 file, holds no usable key, or the passphrase is missing or wrong.
    """
    content = _read(path)
    found = _describe(content)
    if found != _PKCS12:
        raise InvalidCertificate(found, _PKCS12, str(path))
    try:
        held = pkcs12.load_pkcs12(content, None)
    except UnsupportedAlgorithm as exc:
        found = "a PKCS#12 file encrypted in a way we do not know"
        raise InvalidCertificate(found, "AES, or what older programs use", str(path)) from exc
    except ValueError as exc:  # broken and encrypted look the same
        if passphrase is None:
            found = "an encrypted or broken PKCS#12 file and no passphrase given"
            raise InvalidCertificate(found, "a passphrase", str(path)) from exc
        held = _unlock(
            partial(pkcs12.load_pkcs12, content),
            passphrase,
            path,
            "a PKCS#12 file that is broken or that the passphrase does not open",
        )
    if held.key is None:
        raise InvalidCertificate("a PKCS#12 file without a private key", "one with it", str(path))
    first = () if held.cert is None else (held.cert.certificate,)
    others = (other.certificate for other in held.additional_certs)
    return _usable(held.key, path), (*first, *others)


def passphrase_source(file: Path | None, ask: Passphrase | None = None) -> Passphrase | None:
    """Return what gives a passphrase or PIN when it is wanted.

    Parameters
    ----------
    file : Path, optional
        Its first line is the passphrase; it is read at each call and not kept.
    ask : callable, optional
        Where there is no file: asks somebody.

    Returns
    -------
    callable or None
        None where there is neither. Calling it raises `ConfigurationError` where the file cannot
        be read.
    """
    return ask if file is None else partial(_first_line, file)


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Put `content` at `path`, whole or not at all, with `mode` from the first byte.

    What was there is replaced, a symbolic link included; nothing is written through one.
    Raises `OSError`.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # the umask may have taken from it
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # else a crash may forget the name of what is safely written
    finally:
        os.close(folder)


def _usable(key: object, path: Path) -> PrivateKey:
    if not isinstance(key, PrivateKey):
        raise InvalidCertificate(
            f"a key of kind {type(key).__name__.removesuffix('PrivateKey')}",
            "an RSA or EC key",
            str(path),
            "PS3.15 B.12, B.13",
        )
    return key


def _unlock(
    load: Callable[[bytes], _Held],
    passphrase: Passphrase,
    path: Path,
    found: str = "an encrypted key that the passphrase does not open",
) -> _Held:
    # No frame of ours holds what was asked for: it would live on in the traceback.
    try:
        return load(passphrase())
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise InvalidCertificate(found, "its passphrase", str(path)) from exc


def _first_line(path: Path) -> bytes:
    content = _read(path, _MAX_PASSPHRASE, "a file whose first line is a passphrase or PIN")
    return content.split(b"\n", 1)[0].rstrip(b"\r")


def _read(path: Path, most: int = _MAX_BYTES, what: str = "a certificate, key or CRL") -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as exc:
        reason = exc.strerror or "it cannot be read"
        raise ConfigurationError(reason[0].lower() + reason[1:], str(path)) from exc
    if len(content) > most:
        raise InvalidCertificate(f"more than {most} bytes", what, str(path))
    return content


def _blocks(content: bytes, labels: tuple[str, ...]) -> list[bytes]:
    """Return the PEM blocks with one of `labels`, each with its BEGIN and END lines."""
    return [m.group(0) for m in _BLOCK.finditer(content) if m.group(1).decode() in labels]


def _is_pem(content: bytes) -> bool:
    return b"-----BEGIN " in content or not content.strip()


def _describe(content: bytes) -> str:
    """Return in words what `content` is, for an error message; never a part of it."""
    if not content.strip():
        return "an empty file"
    labels = [match.group(1).decode() for match in _BLOCK.finditer(content)]
    if labels:
        # Curve parameters come before the key proper, so the last block says more.
        label = labels[-1]
        return _WORDS.get(label, f"PEM of kind {label.lower()}")
    if b"-----BEGIN " in content:
        return "a PEM block without its end"
    return _describe_der(content)


def _describe_der(content: bytes) -> str:
    readers: tuple[tuple[str, Callable[[bytes], object]], ...] = (
        ("a certificate", x509.load_der_x509_certificate),
        ("a certificate request", x509.load_der_x509_csr),
        ("a CRL", x509.load_der_x509_crl),
        ("a private key", lambda der: load_der_private_key(der, None)),
    )
    for words, read in readers:
        try:
            read(content)
        except TypeError:
            return "an encrypted private key"
        except (ValueError, UnsupportedAlgorithm):
            continue
        return words
    # PFX ::= SEQUENCE { version INTEGER {v3(3)}, ... } (RFC 7292 section 4)
    if content[:1] == b"\x30" and b"\x02\x01\x03" in content[2:9]:
        return _PKCS12
    return "bytes that are neither PEM nor DER"
