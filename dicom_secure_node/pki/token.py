"""One session with a PKCS#11 token: log in, find the key and its certificate, sign.

Only here is python-pkcs11 known, and only here its errors become ours. Those that opening the
session again may mend are `ServiceUnavailable`; those it cannot are `ConfigurationError`, a
wrong PIN first of all: tokens lock after a few.

PKCS#11 logs in programs, not sessions: whoever uses a token in the same process shares the login,
and ends it for all when closing. `TokenSession` copes with both: the second to come finds the
token open, and one that lost it hears so as `ServiceUnavailable`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import pkcs11
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from pkcs11 import Attribute, ObjectClass

from dicom_secure_node.errors import ConfigurationError, InvalidCertificate, ServiceUnavailable
from dicom_secure_node.pki.credential import chain_above
from dicom_secure_node.pki.files import Passphrase
from dicom_secure_node.pki.token_uri import TokenAddress

logger = logging.getLogger(__name__)

_MAX_CERTIFICATES = 64  # of a token, looked at for those above ours

_FINAL: Mapping[type[pkcs11.PKCS11Error], str] = {
    # What trying again does not mend, in words.
    pkcs11.PinIncorrect: "it refused the PIN; it was not tried again, because tokens lock",
    pkcs11.PinInvalid: "it refused the PIN; it was not tried again, because tokens lock",
    pkcs11.PinLenRange: "it refused the PIN; it was not tried again, because tokens lock",
    pkcs11.PinLocked: "its PIN is locked",
    pkcs11.PinExpired: "its PIN has expired",
    pkcs11.UserPinNotInitialized: "it has no PIN yet",
    pkcs11.MechanismInvalid: "the key does not sign with CKM_RSA_PKCS",
    pkcs11.KeyTypeInconsistent: "the key does not sign with CKM_RSA_PKCS",
    pkcs11.KeySizeRange: "the key does not sign with CKM_RSA_PKCS",
    pkcs11.FunctionNotSupported: "the key does not sign with CKM_RSA_PKCS",
}


class TokenSession:
    """A session in which one RSA private key can be used.

    The caller sees to it that one thread at a time calls into a library, making and closing
    sessions included.

    Parameters
    ----------
    address : TokenAddress
        Library, token and key.
    pin : callable
        Asked once now, and at each signature where the key wants that (CKA_ALWAYS_AUTHENTICATE).
        What it returns is handed to the library and not kept.

    Raises
    ------
    ConfigurationError
        The library does not load, the PIN is refused, or no key or several have that name.
    InvalidCertificate
        The key is no RSA key.
    ServiceUnavailable
        The token is not there, or does not answer.
    """

    def __init__(self, address: TokenAddress, pin: Passphrase) -> None:
        self._address = address
        self._name = address.name
        self._pin = pin
        with _ours(self._name):
            self._session = self._logged_in(_token(address))
        try:
            with _ours(self._name):
                self._key = self._private_key()
                self._asks_each_time = _attribute(self._key, Attribute.ALWAYS_AUTHENTICATE, False)
        except BaseException:
            self.close()
            raise

    def sign(self, digest_info: bytes) -> bytes:
        """Return what CKM_RSA_PKCS makes of `digest_info`; raises what opening a session does."""
        with _ours(self._name):
            return self._key.sign(
                digest_info,
                mechanism=pkcs11.Mechanism.RSA_PKCS,
                pin=self._asked_pin() if self._asks_each_time else None,
            )

    def certificate_and_chain(self) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
        """Return the certificate with the key's id, else its label, and those above it.

        Raises
        ------
        ConfigurationError
            There is none, or several.
        """
        with _ours(self._name):
            own = self._own_certificates()
            if len(own) != 1:
                wanted = "wanted one with the id or label of the key; a file may be named instead"
                found = f"found {len(own) or 'no'} certificates"
                raise ConfigurationError(f"{found}, {wanted}", self._name)
            return own[0], chain_above(own[0], self._certificates({}))

    def close(self) -> None:
        """End the session; a token that is gone does not mind."""
        try:
            self._session.close()
        except pkcs11.PKCS11Error as exc:
            logger.debug("%s: closing: %s", self._name, _words(exc))

    def _logged_in(self, token: pkcs11.Token) -> pkcs11.Session:
        try:
            return token.open(user_pin=self._asked_pin())
        except pkcs11.UserAlreadyLoggedIn:  # another user of it in this process
            return token.open()

    def _asked_pin(self) -> str:
        # Frames live on in tracebacks: before anything is raised here, what was asked for is gone.
        pin = self._pin().decode(errors="replace")
        reason = "is empty" if not pin else "is not UTF-8" if "\ufffd" in pin else ""
        if reason:
            del pin
            raise ConfigurationError(f"the PIN {reason}", self._name)
        return pin

    def _private_key(self) -> pkcs11.SignMixin:
        wanted: dict[Attribute, object] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
        if self._address.label:
            wanted[Attribute.LABEL] = self._address.label
        if self._address.key_id:
            wanted[Attribute.ID] = self._address.key_id
        keys: list[Any] = list(self._session.get_objects(wanted))
        named = f"with {self._address.key_name}"
        if len(keys) != 1:
            found = f"found {len(keys) or 'no'} private keys {named}"
            raise ConfigurationError(f"{found}, wanted one", self._name)
        (key,) = keys
        if key.key_type != pkcs11.KeyType.RSA:
            kind = getattr(key.key_type, "name", "unknown")
            found = "an EC key" if kind == "EC" else f"a key of kind {kind}"
            where = f"{self._name}, key {named}"
            raise InvalidCertificate(found, "an RSA key", where, "PS3.15 C.1")
        if not isinstance(key, pkcs11.SignMixin):
            raise ConfigurationError(f"the key {named} may not sign (CKA_SIGN)", self._name)
        return key

    def _own_certificates(self) -> list[x509.Certificate]:
        key_id = _attribute(self._key, Attribute.ID, b"")
        label = _attribute(self._key, Attribute.LABEL, "")
        own = self._certificates({Attribute.ID: key_id}) if key_id else []
        return own or (self._certificates({Attribute.LABEL: label}) if label else [])

    def _certificates(self, wanted: Mapping[Attribute, object]) -> list[x509.Certificate]:
        searched = {
            Attribute.CLASS: ObjectClass.CERTIFICATE,
            Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
            **wanted,
        }
        found = []
        for held in list(self._session.get_objects(searched))[:_MAX_CERTIFICATES]:
            try:
                found.append(x509.load_der_x509_certificate(held[Attribute.VALUE]))
            except (ValueError, UnsupportedAlgorithm):
                continue  # none that concerns us, and the rest may be good
        return found


def _token(address: TokenAddress) -> pkcs11.Token:
    try:
        library = pkcs11.lib(str(address.module))
    except pkcs11.PKCS11Error as exc:
        raise ConfigurationError(
            "it does not load as a PKCS#11 library", str(address.module)
        ) from exc
    seen: list[str] = []
    found: list[pkcs11.Token] = []
    for slot in library.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except pkcs11.PKCS11Error:
            continue  # a reader with trouble of its own
        seen.append(token.label)
        serial = token.serial.decode(errors="replace")
        if address.token in (None, token.label) and address.serial in (None, serial):
            found.append(token)
    if not found:
        others = ", ".join(repr(label) for label in seen if label) or "none"
        raise ServiceUnavailable(address.name, f"it is not there; tokens found: {others}")
    if len(found) > 1:
        raise ConfigurationError(
            f"found {len(found)} of them, wanted one: name its serial number", address.name
        )
    return found[0]


def _attribute(key: pkcs11.SignMixin, attribute: Attribute, default: object) -> Any:
    """Return an attribute of the key, `default` where the token does not know it."""
    try:
        return key[attribute]
    except pkcs11.AttributeTypeInvalid:
        return default


@contextlib.contextmanager
def _ours(name: str) -> Iterator[None]:
    try:
        yield
    except pkcs11.PKCS11Error as exc:
        traceback.clear_frames(exc.__traceback__)  # the library's hold the PIN
        reason = _FINAL.get(type(exc))
        if reason:
            raise ConfigurationError(reason, name) from exc
        raise ServiceUnavailable(name, _words(exc)) from exc


def _words(exc: pkcs11.PKCS11Error) -> str:
    """Return the name of an error as words; what else it says is the library's own business."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(exc).__name__).lower()
