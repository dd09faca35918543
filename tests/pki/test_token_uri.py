"""pkcs11: URIs: what they name, what is refused, and that a PIN in one is shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.pki.signers import load_signer
from dicom_secure_node.pki.token_uri import TokenAddress, is_token_uri, parse_token_uri

MODULE = "module-path=/usr/lib/x.so"
SO = Path("/usr/lib/x.so")

GOOD: dict[str, tuple[str, TokenAddress]] = {
    "label": (
        f"pkcs11:token=lab;object=sig?{MODULE}",
        TokenAddress(SO, token="lab", label="sig"),
    ),
    "id, of any octets": (
        f"pkcs11:token=lab;id=%00%ff%3b?{MODULE}",
        TokenAddress(SO, token="lab", key_id=b"\x00\xff;"),
    ),
    "serial, and both label and id": (
        f"pkcs11:serial=af12;object=sig;id=%01;type=private?{MODULE}",
        TokenAddress(SO, serial="af12", label="sig", key_id=b"\x01"),
    ),
    "blanks, umlauts and separators": (
        f"PKCS11:token=R%C3%B6ntgen%20%3B%3F;object=a%26b?{MODULE}",
        TokenAddress(SO, token="Röntgen ;?", label="a&b"),
    ),
    "PIN in a file: URI": (
        f"pkcs11:token=lab;object=sig?{MODULE}&pin-source=file:/etc/pin",
        TokenAddress(SO, token="lab", label="sig", pin_file=Path("/etc/pin")),
    ),
    "PIN in a file: URI with an empty host": (
        f"pkcs11:token=lab;object=sig?pin-source=file:///etc/pin&{MODULE}",
        TokenAddress(SO, token="lab", label="sig", pin_file=Path("/etc/pin")),
    ),
    "PIN in a plain path": (
        f"pkcs11:token=lab;object=sig?{MODULE}&pin-source=%2Fetc%2Fthe%20pin",
        TokenAddress(SO, token="lab", label="sig", pin_file=Path("/etc/the pin")),
    ),
}


@pytest.mark.parametrize(("uri", "want"), GOOD.values(), ids=GOOD)
def test_a_uri_names_one_key(uri: str, want: TokenAddress) -> None:
    assert parse_token_uri(uri) == want


BAD: dict[str, tuple[str, str]] = {
    "a PIN in it": (
        f"pkcs11:token=lab;object=sig?{MODULE}&pin-value=planted",
        "a PIN in the URI, which other users see",
    ),
    "a PIN in the wrong half": (
        f"pkcs11:token=lab;object=sig;pin-value=planted?{MODULE}",
        "a PIN in the URI, which other users see",
    ),
    "a PIN and no name for it": (f"pkcs11:token=lab;planted?{MODULE}", "found an attribute, w"),
    "a PIN as a name": (f"pkcs11:token=lab;PLANTED-1=?{MODULE}", "found an attribute, wanted"),
    "a program that gives the PIN": (
        f"pkcs11:token=lab;object=sig?{MODULE}&pin-source=%7C/bin/planted",
        "a pin-source that is no file",
    ),
    "a PIN file on another host": (
        f"pkcs11:token=lab;object=sig?{MODULE}&pin-source=file://planted/etc/pin",
        "a pin-source that is no file",
    ),
    "no library": ("pkcs11:token=lab;object=sig", "no module-path"),
    "a library found by name": (
        "pkcs11:token=lab;object=sig?module-path=x.so",
        "wanted an absolute path",
    ),
    "no token": (f"pkcs11:object=sig?{MODULE}", "no token"),
    "no key": (f"pkcs11:token=lab?{MODULE}", "no key"),
    "an empty label": (f"pkcs11:token=lab;object=?{MODULE}", "no key"),
    "an attribute we do not take": (
        f"pkcs11:token=lab;object=sig;slot-id=1?{MODULE}",
        "found an attribute 'slot-id', wanted some of token, serial, object, id, type",
    ),
    "one thing twice": (f"pkcs11:token=a;token=b;object=sig?{MODULE}", "found token twice"),
    "a certificate": (f"pkcs11:token=a;object=sig;type=cert?{MODULE}", "another type"),
    "a broken escape": (f"pkcs11:token=a%2;object=sig?{MODULE}", "% without two hexadecimal"),
    "text that is no UTF-8": (f"pkcs11:token=a%ff;object=sig?{MODULE}", "no UTF-8 in token"),
    "a NUL": ("pkcs11:token=a;object=b?module-path=/a%00b", "a NUL in module-path"),
    "nothing": ("pkcs11:", "no module-path"),
    "far too much": ("pkcs11:token=" + "a" * 5000, "4096 characters at most"),
}


@pytest.mark.parametrize(("uri", "words"), BAD.values(), ids=BAD)
def test_a_wrong_uri_is_refused_and_not_repeated(uri: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_signer(uri, None, lambda: b"planted")
    assert words in str(caught.value)
    assert "planted" not in str(caught.value).lower()


def test_a_path_is_no_uri() -> None:
    assert not is_token_uri("pkcs11/node.key")
    with pytest.raises(ConfigurationError, match="wanted pkcs11:token="):
        parse_token_uri("node.key")


def test_somebody_has_to_know_the_pin() -> None:
    with pytest.raises(ConfigurationError, match="token 'lab': found no PIN, wanted pin-source"):
        load_signer(f"pkcs11:token=lab;object=sig?{MODULE}")
