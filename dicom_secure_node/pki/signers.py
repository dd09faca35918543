"""Private keys that make digital signatures, wherever they are kept (PS3.15 C.1).

A signature of Annex C is RSA with EMSA-PKCS1-v1_5 (RFC 8017 9.2). The caller hashes and builds the
DigestInfo, so a `Signer` serves every hash of C.1, RIPEMD-160 too, and no token needs to know one.

Whatever the key is kept in, before anything is signed:

1. The certificate's key is RSA, of 2048 to 8192 bits.
2. Its key usage, if it has one, allows signatures (RFC 5280 4.2.1.3).
3. The private key is the certificate's.

Whether the certificate is valid now and who issued it is for whoever signs or verifies to ask.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from dicom_secure_node.errors import (
    ConfigurationError,
    InvalidCertificate,
    MissingExtra,
    ServiceUnavailable,
)
from dicom_secure_node.pki.credential import (
    Credential,
    chain_above,
    load_credential,
    load_pkcs12,
)
from dicom_secure_node.pki.files import Passphrase, passphrase_source, read_certificates
from dicom_secure_node.pki.signing_key import MIN_BITS, check_digest_info, misfit, signing_key
from dicom_secure_node.pki.token_uri import TokenAddress, is_token_uri, parse_token_uri

if TYPE_CHECKING:
    from dicom_secure_node.pki.token import TokenSession

logger = logging.getLogger(__name__)

_PKCS12_SUFFIXES = (".p12", ".pfx")

# One turn per PKCS#11 library: who holds it may call into the library.
_TURNS: dict[Path, threading.Lock] = {}

# What a token signs to show that its key fits: the DigestInfo of a text that is no document.
_PROBE = (
    bytes.fromhex("3031300d060960864801650304020105000420")
    + hashlib.sha256(b"dicom-secure-node: does this key fit the certificate?").digest()
)


class Signer(Protocol):
    """Makes RSA signatures with the key of a certificate. Threads may share one.

    Attributes
    ----------
    certificate : x509.Certificate
        The signer's own, for (0400,0115) Certificate of Signer.
    chain : tuple of x509.Certificate
        Intermediates above it, its issuer first; the root left out. May be empty.
    subject : str
        Whose it is, as RFC 4514 writes it; for messages.
    """

    @property
    def certificate(self) -> x509.Certificate: ...

    @property
    def chain(self) -> tuple[x509.Certificate, ...]: ...

    @property
    def subject(self) -> str: ...

    def sign_digest_info(self, digest_info: bytes) -> bytes:
        """Return the signature value, as long as the key's modulus.

        Parameters
        ----------
        digest_info : bytes
            DER DigestInfo: the hash algorithm with NULL parameters, and the hash.

        Raises
        ------
        InvalidInput
            `digest_info` is none.
        ServiceUnavailable
            The token with the key is away; trying later may help.
        ConfigurationError
            The token refuses the PIN or the key; trying again is of no use.
        InvalidCertificate
            The token now holds another key under the same name.
        """
        ...

    def close(self) -> None:
        """Let the key go; a signer in files has nothing to let go."""
        ...


class FileSigner:
    """Signs with a key in memory, read from files.

    Parameters
    ----------
    credential : Credential
    where : str, optional
        File named by messages.
    min_bits : int
        Least size of the key; less than the default is for tests.

    Raises
    ------
    InvalidCertificate
        See the module.
    """

    def __init__(
        self, credential: Credential, *, where: str = "", min_bits: int = MIN_BITS
    ) -> None:
        self.certificate = credential.certificate
        self.chain = credential.chain
        public = signing_key(self.certificate, where, min_bits)
        key = credential.key
        if not isinstance(key, rsa.RSAPrivateKey) or key.public_key() != public:
            raise misfit(where)
        self._key = key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.subject!r})"

    @property
    def subject(self) -> str:
        """Return whose certificate it is."""
        return self.certificate.subject.rfc4514_string()

    def sign_digest_info(self, digest_info: bytes) -> bytes:
        """Return the signature value; see `Signer`."""
        check_digest_info(digest_info)
        return self._key.sign(digest_info, padding.PKCS1v15(), utils.NoDigestInfo())

    def close(self) -> None:
        """Do nothing: the key is in memory as long as we are."""


class TokenSigner:
    """Signs with a key that stays in a PKCS#11 token.

    Threads take turns in one session, and so do signers with one library: python-pkcs11 starts
    libraries in the mode for programs that promise this (C_Initialize without arguments). An
    application that uses the same library by itself owes the promise too.

    When the session is lost, because the token was pulled out or its reader restarted, it is
    opened again once for each signature wanted. After the token refused the PIN or the key,
    nothing more is tried: that needs a person, and tokens lock.

    Every signature is verified before it is returned: what goes into an archive must not hang on
    a token that was exchanged, or was disturbed while it computed.

    Parameters
    ----------
    address : TokenAddress
        Library, token and key.
    pin : callable
        Asked at each login, and at each signature if the key wants it so; see `passphrase_source`.
    certificate : Path, optional
        PEM or DER, intermediates after the leaf. None: it is in the token, by the id or label of
        the key.
    min_bits : int
        Least size of the key.
    seconds : float
        How long a thread waits for its turn, also while another is asked for a PIN. A library that
        never returns cannot be interrupted.

    Raises
    ------
    MissingExtra
        python-pkcs11 is not installed.
    ConfigurationError, ServiceUnavailable
        See `TokenSession`.
    InvalidCertificate
        See the module; or the key is no RSA key.
    """

    def __init__(
        self,
        address: TokenAddress,
        pin: Passphrase,
        certificate: Path | None = None,
        *,
        min_bits: int = MIN_BITS,
        seconds: float = 30.0,
    ) -> None:
        self._name = address.name
        try:
            from dicom_secure_node.pki.token import TokenSession
        except ImportError as exc:
            raise MissingExtra("a key in a PKCS#11 token", "hsm") from exc
        self._opened = partial(TokenSession, address, pin)
        self._seconds = seconds
        self._turn = _TURNS.setdefault(address.module, threading.Lock())
        self._closed = False
        self._refused: str | None = None
        self._session: TokenSession | None = None
        # A wrong file is seen before the PIN is asked for.
        named = None if certificate is None else _certificate_file(certificate)
        if named is not None:
            self._public = signing_key(named[0], str(certificate), min_bits)
        with self._my_turn():
            self._session = self._opened()
            try:
                if named is None:
                    named = self._session.certificate_and_chain()
                    self._public = signing_key(named[0], self._name, min_bits)
                self.certificate, self.chain = named
                self._check(self._signed(_PROBE), _PROBE)
            except BaseException:
                self._drop()
                raise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name})"

    @property
    def subject(self) -> str:
        """Return whose certificate it is."""
        return self.certificate.subject.rfc4514_string()

    def sign_digest_info(self, digest_info: bytes) -> bytes:
        """Return the signature value; see `Signer`."""
        check_digest_info(digest_info)
        with self._my_turn():
            signature = self._signed(digest_info)
        self._check(signature, digest_info)
        return signature

    def close(self) -> None:
        """End the session and the login; nothing is signed any more.

        Another signer of this process that uses the same token has to log in again, and does.
        """
        self._closed = True
        with self._my_turn():
            self._drop()

    @contextlib.contextmanager
    def _my_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=self._seconds):
            raise ServiceUnavailable(self._name, f"busy for {self._seconds:g} seconds")
        try:
            yield
        finally:
            self._turn.release()

    def _check(self, signature: bytes, digest_info: bytes) -> None:
        recovered = None
        with contextlib.suppress(InvalidSignature):
            recovered = self._public.recover_data_from_signature(
                signature, padding.PKCS1v15(), None
            )
        if recovered != digest_info:
            raise misfit(self._name)

    def _signed(self, digest_info: bytes) -> bytes:
        if self._closed:
            raise ServiceUnavailable(self._name, "the signer is closed")
        if self._refused is not None:
            raise ConfigurationError(self._refused)
        try:
            if self._session is not None:
                try:
                    return self._session.sign(digest_info)
                except ServiceUnavailable as exc:
                    logger.warning("%s; opening it again", exc)
                    self._drop()
            self._session = self._opened()
            return self._session.sign(digest_info)
        except ServiceUnavailable:
            self._drop()
            raise
        except (ConfigurationError, InvalidCertificate) as exc:
            self._refused = str(exc)
            self._drop()
            raise

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def load_signer(
    key: str | Path,
    certificate: Path | None = None,
    passphrase: Passphrase | None = None,
    *,
    min_bits: int = MIN_BITS,
) -> Signer:
    """Return the signer of a key, by what `key` looks like.

    ================================  =====================================  ====================
    `key`                             `certificate`                          `passphrase`
    ================================  =====================================  ====================
    ``pkcs11:`` URI (RFC 7512)        a file, or none: it is in the token    the PIN, where the URI
                                                                             has no ``pin-source``
    ``*.p12``, ``*.pfx``              none: it is in the file                of the file
    any other file, PEM or DER        a file, or none: `key` holds both      of the key
    ================================  =====================================  ====================

    Parameters
    ----------
    key : str or Path
    certificate : Path, optional
        PEM with the leaf first, or DER.
    passphrase : callable, optional
        Asked only when it is needed.
    min_bits : int
        Least size of the key.

    Raises
    ------
    ConfigurationError
        A file cannot be read, the URI is wrong, or the token refuses.
    MissingExtra
        The key is in a token, and python-pkcs11 is not installed.
    InvalidCertificate
        A file holds something else, or the certificate or key is not one to sign with.
    ServiceUnavailable
        The token is not there.
    """
    if is_token_uri(str(key)):
        address = parse_token_uri(str(key))
        pin = passphrase_source(address.pin_file, passphrase)
        if pin is None:
            raise ConfigurationError("found no PIN, wanted pin-source=file:/...", address.name)
        return TokenSigner(address, pin, certificate, min_bits=min_bits)
    path = Path(key)
    if path.suffix.lower() not in _PKCS12_SUFFIXES:
        credential = load_credential(certificate or path, path, passphrase)
    elif certificate is None:
        credential = load_pkcs12(path, passphrase)
    else:
        found = "found a certificate file beside a PKCS#12 file, which holds its own"
        raise ConfigurationError(f"{found}, wanted one of them", str(path))
    return FileSigner(credential, where=str(certificate or path), min_bits=min_bits)


def _certificate_file(path: Path) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
    leaf, *others = read_certificates(path)
    return leaf, chain_above(leaf, others)
