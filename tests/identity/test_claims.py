"""What a claim may hold, and what of it is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.errors import IdentityRefused
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, checked_user

NAMES = {
    "ASCII": (b"ada", "ada"),
    "UTF-8 (PS3.7 D.3.3.7.1)": ("Žofie Müller".encode(), "Žofie Müller"),
    "blanks are kept": (b" ada ", " ada "),
    "256 characters of four bytes": ("𝔞".encode() * 256, "𝔞" * 256),
}

REFUSED_NAMES = {
    "empty": (b"", "empty"),
    "not UTF-8": (b"ad\xe4", "not UTF-8"),
    "UTF-8 surrogate": (b"\xed\xa0\x80", "not UTF-8"),
    "overlong UTF-8": (b"\xc0\xaf", "not UTF-8"),
    "257 characters": (b"a" * 257, "257 characters"),
    "NUL": (b"ada\0", "control character"),
    "line feed forges a log line": (b"ada\nroot logged in", "control character"),
    "line separator": ("ada\u2028root".encode(), "control character"),
    "right-to-left override": ("ada\u202eroot".encode(), "control character"),
    "escape sequence": (b"\x1b[2Jada", "control character"),
}


@pytest.mark.parametrize(("sent", "want"), NAMES.values(), ids=NAMES)
def test_user_name(sent: bytes, want: str) -> None:
    assert Claim(IdentityType.USERNAME, sent).user == want
    assert Claim(IdentityType.PASSCODE, sent, b"secret").user == want


@pytest.mark.parametrize(("sent", "reason"), REFUSED_NAMES.values(), ids=REFUSED_NAMES)
def test_user_name_refused(sent: bytes, reason: str) -> None:
    claim = Claim(IdentityType.PASSCODE, sent, b"secret")
    with pytest.raises(IdentityRefused, match=reason) as refused:
        _ = claim.user
    wire = refused.value.result, refused.value.source, refused.value.diagnostic
    assert wire == (1, 2, 1), "PS3.7 D.3.3.7.3"
    assert refused.value.__cause__ is None, "a cause could carry the bytes"


@pytest.mark.parametrize("kind", [IdentityType.KERBEROS, IdentityType.SAML, IdentityType.JWT])
def test_a_token_is_no_user_name(kind: IdentityType) -> None:
    claim = Claim(kind, b"ada")
    with pytest.raises(IdentityRefused, match="no plain user name"):
        _ = claim.user
    assert "ada" not in repr(claim)


@pytest.mark.parametrize("value", range(256))
def test_every_type_byte_is_read(value: int) -> None:
    kind = IdentityType(value)
    assert kind.is_secret == (value in (2, 3, 4, 5))
    assert (kind is IdentityType.UNKNOWN) == (value == 0 or value > 5)


def test_no_type_byte() -> None:
    for value in (-1, 256):
        with pytest.raises(ValueError, match=str(value)):
            IdentityType(value)


def test_words_of_the_configuration() -> None:
    for kind in IdentityType:
        if kind is not IdentityType.UNKNOWN:
            assert IdentityType.named(kind.word) is kind
    for word in ("unknown", "password", "", "USERNAME"):
        with pytest.raises(ValueError, match="username, passcode, kerberos, saml, jwt"):
            IdentityType.named(word)


@given(st.binary(max_size=40), st.binary(min_size=3, max_size=40), st.sampled_from(IdentityType))
def test_secrets_are_never_shown(primary: bytes, secondary: bytes, kind: IdentityType) -> None:
    shown = repr(Claim(kind, b"\xff\xfe" + primary, b"\xff\xfe" + secondary))
    assert shown == f"<Claim {kind.word}>"


def test_what_a_claim_shows() -> None:
    claim = Claim(IdentityType.PASSCODE, b"ada", b"tiger", response_requested=True)
    assert repr(claim) == "<Claim passcode 'ada', response requested>"
    assert "ticket" not in repr(Identity("ada", IdentityType.KERBEROS, response=b"ticket"))


@given(st.binary(max_size=600))
def test_any_bytes_are_a_name_or_refused(name: bytes) -> None:
    try:
        user = checked_user(name)
    except IdentityRefused:
        return
    assert user.encode() == name
    assert user.isprintable()
