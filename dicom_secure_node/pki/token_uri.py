"""Where a key in a PKCS#11 token is: ``pkcs11:`` URIs (RFC 7512).

::

    pkcs11:token=Signatures;object=radiology?module-path=/usr/lib/softhsm/libsofthsm2.so
    pkcs11:serial=af12be83;id=%01?module-path=/usr/lib/opensc-pkcs11.so&pin-source=file:/etc/pin

We take the attributes that find one key, and refuse every other: one that is ignored might have
been the one that mattered. A PIN in the URI (``pin-value``) is refused, since other users see
command lines; so is a ``pin-source`` that is a program.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from dicom_secure_node.errors import ConfigurationError

_SCHEME = "pkcs11:"
_WHERE = "the pkcs11: URI"  # never the URI itself: it may hold a PIN
_MAX_LENGTH = 4096  # characters
_PATH = ("token", "serial", "object", "id", "type")
_QUERY = ("module-path", "pin-source")
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class TokenAddress:
    """One private key in one token.

    Attributes
    ----------
    module : Path
        The PKCS#11 library that reaches the token.
    token, serial : str, optional
        Label and serial number of the token, at least one of them.
    label : str, optional
        Label of the key (CKA_LABEL), ``object`` in a URI.
    key_id : bytes, optional
        CKA_ID of the key; at least this or `label` is there.
    pin_file : Path, optional
        Its first line is the PIN.
    """

    module: Path
    token: str | None = None
    serial: str | None = None
    label: str | None = None
    key_id: bytes | None = None
    pin_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.token and not self.serial:
            raise ConfigurationError("found no token, wanted its label or serial number", _WHERE)
        if not self.label and not self.key_id:
            raise ConfigurationError("found no key, wanted its label (object) or id", _WHERE)
        if not self.module.is_absolute():
            found = f"found the library {str(self.module)!r}"
            raise ConfigurationError(f"{found}, wanted an absolute path", _WHERE)

    @property
    def name(self) -> str:
        """Return what messages call the token."""
        return f"token {self.token!r}" if self.token else f"token with serial {self.serial!r}"

    @property
    def key_name(self) -> str:
        """Return what messages call the key."""
        named = [f"label {self.label!r}"] if self.label else []
        if self.key_id:
            named.append(f"id {self.key_id.hex()}")
        return " and ".join(named)


def is_token_uri(text: str) -> bool:
    """Return whether `text` means a token and not a file."""
    return text[: len(_SCHEME)].lower() == _SCHEME


def parse_token_uri(uri: str) -> TokenAddress:
    """Return what a ``pkcs11:`` URI names.

    Raises
    ------
    ConfigurationError
        It cannot be read, names too little, or holds what we do not take.
    """
    if not is_token_uri(uri) or len(uri) > _MAX_LENGTH:
        wanted = f"pkcs11:token=...;object=...?module-path=..., {_MAX_LENGTH} characters at most"
        raise ConfigurationError(f"found something else, wanted {wanted}", _WHERE)
    path, _, query = uri[len(_SCHEME) :].partition("?")
    named = _attributes(path, ";", _PATH)
    asked = _attributes(query, "&", _QUERY)
    if _text(named, "type") not in (None, "private"):
        raise ConfigurationError("found another type than private", _WHERE)
    module = _text(asked, "module-path")
    if not module:
        raise ConfigurationError("found no module-path, wanted the PKCS#11 library", _WHERE)
    return TokenAddress(
        module=Path(module),
        token=_text(named, "token"),
        serial=_text(named, "serial"),
        label=_text(named, "object"),
        key_id=named.get("id"),
        pin_file=_pin_file(_text(asked, "pin-source")),
    )


def _attributes(part: str, separator: str, known: Collection[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for attribute in filter(None, part.split(separator)):
        name, equals, value = attribute.partition("=")
        if name == "pin-value":
            reason = "a PIN in the URI, which other users see: use pin-source=file:/..."
            raise ConfigurationError(f"found {reason}", _WHERE)
        if name not in known:
            # Only a name that looks like one is shown: a PIN may stand where a name should.
            shown = f" {name!r}" if equals and re.fullmatch("[a-z-]{1,40}", name) else ""
            wanted = ", ".join(known)
            raise ConfigurationError(f"found an attribute{shown}, wanted some of {wanted}", _WHERE)
        if name in found:
            raise ConfigurationError(f"found {name} twice", _WHERE)
        if _BAD_ESCAPE.search(value):
            raise ConfigurationError(f"found % without two hexadecimal digits in {name}", _WHERE)
        found[name] = unquote_to_bytes(value)
    return found


def _text(attributes: dict[str, bytes], name: str) -> str | None:
    if name not in attributes:
        return None
    try:
        text = attributes[name].decode()
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"found bytes that are no UTF-8 in {name}", _WHERE) from exc
    if "\0" in text:
        raise ConfigurationError(f"found a NUL in {name}", _WHERE)
    return text


def _pin_file(source: str | None) -> Path | None:
    """Return the file of ``file:/path``, ``file:///path`` or ``/path`` (RFC 7512 2.4)."""
    if source is None:
        return None
    path = Path(re.sub("^file:(//(?=/))?", "", source))
    if not path.is_absolute() or path.as_posix().startswith("//"):
        wanted = "wanted file:/ and the path of a file"
        raise ConfigurationError(f"found a pin-source that is no file, {wanted}", _WHERE)
    return path
