"""JSON Web Tokens, user identity type 5 (PS3.7 D.3.3.7): who comes in, and who does not."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.errors import ConfigurationError, IdentityRefused
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.jwt_tokens import MAX_GROUPS, MAX_TOKEN_BYTES, JwtBackend
from dicom_secure_node.identity.key_sources import JwksFile
from dicom_secure_node.identity.replay import ReplayStore
from tests import parts
from tests.certs import Ca
from tests.identity.oidc import jwks, private_key, public_jwk
from tests.identity.tokens import (
    AUDIENCE,
    CLAIMS,
    ISSUER,
    NOW,
    PEER,
    SECONDS,
    b64,
    backend_of,
    but,
    mac_with_public_key,
    respelt,
    secrets_of,
    signed,
    unsigned,
    verified,
    write_keys,
)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_keys(tmp_path_factory.mktemp("jwks") / "jwks.json")


# --- Accepted ---


def test_identity_of_a_good_token(key_file: Path) -> None:
    identity = verified(backend_of(key_file), signed())
    assert identity == Identity(
        "ada",
        IdentityType.JWT,
        groups=frozenset({"radiology", "ct operators"}),
        attributes={"iss": ISSUER, "client_id": "ct-console"},
        how=f"JWT of {ISSUER}",
    )
    assert identity.proven
    assert identity.response == b""  # the standard leaves type 5 open; as types 1 and 2


ALL = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
EC_KEY = {"ES256": "p256", "ES384": "p384", "ES512": "p521"}


@pytest.mark.parametrize("algorithm", ALL)
def test_RFC7518_every_algorithm(algorithm: str, key_file: Path) -> None:
    token = signed(key=EC_KEY.get(algorithm, "rsa"), algorithm=algorithm)
    assert verified(backend_of(key_file, algorithms=[algorithm]), token).user == "ada"
    others = [one for one in ALL if one != algorithm]
    with pytest.raises(IdentityRefused, match=rf"signed \({algorithm}\), wanted"):
        verified(backend_of(key_file, algorithms=others), token)


ACCEPTED: Mapping[str, tuple[bytes, Mapping[str, Any]]] = {
    "several audiences, ours among them": (signed(but(aud=["x", AUDIENCE])), {}),
    "several audiences and azp of another": (signed(but(aud=["x", AUDIENCE], azp="x")), {}),
    "typ JWT": (signed(typ="JWT"), {}),
    "without typ": (signed(typ=None), {}),
    "no key named, one there is": (signed(kid=None), {}),
    "just expired, within the leeway": (signed(but(exp=SECONDS - 59)), {}),
    "issued a moment hence": (signed(but(iat=SECONDS + 59)), {}),
    "valid from a moment hence": (signed(but(nbf=SECONDS + 59)), {}),
    "times with fractions": (signed(but(iat=SECONDS - 0.5, exp=SECONDS + 0.5)), {}),
    "long valid, where that is allowed": (
        signed(but(exp=SECONDS + 10**8)),
        {"max_lifetime": None},
    ),
    "a line feed after it": (signed() + b"\n", {}),
    "a carriage return and line feed after it": (signed() + b"\r\n", {}),
    "padded to an even length": (signed() + b"\0", {}),
    "without groups": (signed(but(groups=None)), {}),
    "cnf is null": (signed(b'{"cnf": null, ' + json.dumps(CLAIMS).encode()[1:]), {}),
    "user in another claim": (signed(but(email="ada")), {"user_claim": "email"}),
}


@pytest.mark.parametrize(("token", "options"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(token: bytes, options: Mapping[str, Any], key_file: Path) -> None:
    assert verified(backend_of(key_file, **options), token).user == "ada"


GROUPS: Mapping[str, tuple[Mapping[str, Any], str, set[str]]] = {
    "a list": ({"groups": ["a", "b c"]}, "groups", {"a", "b c"}),
    "one name": ({"groups": "b c"}, "groups", {"b c"}),
    "none": ({"groups": []}, "groups", set()),
    "scopes between spaces (RFC 6749 3.3)": ({"scope": "read store"}, "scope", {"read", "store"}),
    "nested": ({"realm_access": {"roles": ["r"]}}, "realm_access.roles", {"r"}),
    "a claim named with dots": ({"https://a.b/g": ["x"]}, "https://a.b/g", {"x"}),
    "nested in no object": ({"realm_access": ["roles"]}, "realm_access.roles", set()),
    "another claim": ({"roles": ["r"], "groups": ["g"]}, "roles", {"r"}),
}


@pytest.mark.parametrize(("claims", "name", "want"), GROUPS.values(), ids=GROUPS)
def test_groups(claims: Mapping[str, Any], name: str, want: set[str], key_file: Path) -> None:
    backend = backend_of(key_file, groups_claim=name)
    assert verified(backend, signed(but(**claims))).groups == want


# --- Refused ---

LATER = SECONDS + 3600
REFUSED: Mapping[str, tuple[bytes, str]] = {
    # what it looks like
    "nothing": (b"", "no JWT in compact form"),
    "a line feed": (b"\n", "no JWT in compact form"),
    "a word": (b"token", "no JWT in compact form"),
    "one dot": (b"a.b", "2 parts, wanted 3"),
    "five parts": (b"a.b.c.d.e", "encrypted (JWE), wanted a signed one"),
    "four parts": (signed() + b".x", "4 parts, wanted 3"),
    "a space before it": (b" " + signed(), "no JWT in compact form"),
    "as in an HTTP header": (b"Bearer " + signed(), "no JWT in compact form"),
    "two of them": (signed() + b"\n" + signed(), "no JWT in compact form"),
    "base64 with padding": (signed() + b"=", "no JWT in compact form"),
    "no ASCII": (signed() + "ä".encode(), "no JWT in compact form"),
    "JSON form": (b'{"payload": "x", "signatures": []}', "no JWT in compact form"),
    "17 KiB": (signed(but(x="x" * 13_000)), "bytes, wanted at most 16384"),
    "17 KiB of blanks": (signed() + b" " * MAX_TOKEN_BYTES, "bytes, wanted at most 16384"),
    "cut off before the signature": (signed().rpartition(b".")[0], "2 parts, wanted 3"),
    "cut off within the signature": (signed()[:-22], "the signature does not verify"),
    # the header
    "header is no JSON": (b64(b"{") + b".YQ.YQ", "the header is no JSON object"),
    "header is a list": (b64(b"[]") + b".YQ.YQ", "the header is no JSON object"),
    "header is deep": (b64(b"[" * 9000) + b".YQ.YQ", "the header is no JSON object"),
    "header is no UTF-8": (b64(b'{"alg": "\xff"}') + b".YQ.YQ", "the header is no JSON object"),
    "header of one character": (b"a.YQ.YQ", "the header is no JSON object"),
    "no algorithm": (signed(alg=None), "signed by an unknown algorithm, wanted RS256"),
    "algorithm is a list": (signed(alg=["RS256"]), "signed by an unknown algorithm"),
    "algorithm is a poem": (signed(alg="x" * 99), "signed by an unknown algorithm"),
    "algorithm none": (unsigned("none"), "not signed (none), wanted RS256 or PS256 or ES256"),
    "algorithm None": (unsigned("None"), "not signed (none)"),
    "algorithm none with a signature": (unsigned("none", b"x"), "not signed (none)"),
    "algorithm not listed": (signed(key="p384", algorithm="ES384"), "signed (ES384), wanted"),
    "algorithm of other case": (signed(alg="rs256"), "signed (rs256), wanted"),
    "EdDSA": (signed(alg="EdDSA"), "signed (EdDSA), wanted"),
    "HMAC with the public key in PEM": (
        mac_with_public_key(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "signed with a shared secret (HS256), wanted",
    ),
    "HMAC with the public key in DER": (
        mac_with_public_key(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "signed with a shared secret (HS256), wanted",
    ),
    "a key embedded (jwk)": (signed(jwk=public_jwk("other", "RS256")), "key of its own (jwk)"),
    "a key elsewhere (jku)": (signed(jku="https://evil.example"), "key of its own (jku)"),
    "a certificate (x5c)": (signed(x5c=["MIIB"]), "key of its own (x5c)"),
    "a certificate elsewhere (x5u)": (signed(x5u="https://evil.example"), "its own (x5u)"),
    "critical extensions": (signed(crit=["exp"], exp=1), "header crit is not supported"),
    "compressed": (signed(zip="DEF"), "header zip is not supported"),
    "payload not encoded (RFC 7797)": (signed(b64=False), "header b64 is not supported"),
    "nested": (signed(cty="JWT"), "it holds another token (cty)"),
    # the key
    "unknown key": (signed(kid="k9"), "the issuer has not key 'k9' for RS256"),
    "key of another issuer": (signed(key="other"), "the issuer has not key 'other' for RS256"),
    "key of the other type": (signed(kid="p256"), "the issuer has not key 'p256' for RS256"),
    "key name is a number": (signed(kid=7), "key ID is no text of at most 256 characters"),
    "key name is endless": (signed(kid="k" * 257), "key ID is no text of at most 256"),
    "key name with a line break": (signed(kid="k\nx"), r"the issuer has not key 'k\nx' for"),
    # the signature
    "signature of another key": (signed(key="other", kid="rsa"), "the signature does not verify"),
    "signature missing": (signed().rpartition(b".")[0] + b".", "the signature does not verify"),
    "signature of another token": (
        signed().rpartition(b".")[0] + b"." + signed(but(sub="eve")).rpartition(b".")[2],
        "the signature does not verify",
    ),
    "user changed": (
        respelt(signed(), 1, lambda raw: raw.replace(b"ada", b"eve")),
        "the signature does not verify",
    ),
    "algorithm changed to PS256": (
        respelt(signed(), 0, lambda raw: raw.replace(b"RS256", b"PS256")),
        "the signature does not verify",
    ),
    "ECDSA signature of zeros": (
        signed(key="p256", algorithm="ES256").rpartition(b".")[0] + b"." + b64(bytes(64)),
        "the signature does not verify",
    ),
    "ECDSA signature in DER": (
        signed(key="p256", algorithm="ES256").rpartition(b".")[0] + b"." + b64(b"\x30" * 70),
        "the signature does not verify",
    ),
    # the claims
    "claims are no JSON": (signed(b"{"), "malformed"),
    "claims are a list": (signed(b"[]"), "malformed"),
    "claims are deep": (signed(b'{"a":' * 2000), "malformed"),
    "claims are no UTF-8": (signed(b'{"a": "\xff"}'), "malformed"),
    "no expiry": (signed(but(exp=None)), "claim exp is missing"),
    "no time of issue": (signed(but(iat=None)), "claim iat is missing"),
    "no audience": (signed(but(aud=None)), "claim aud is missing"),
    "no issuer": (signed(but(iss=None)), "claim iss is missing"),
    "no subject": (signed(but(sub=None)), "claim sub is missing"),
    "another audience": (signed(but(aud="dicom:PACS2")), "meant for another audience"),
    "several audiences, none ours": (signed(but(aud=["a", "b"])), "meant for another audience"),
    "audience begins like ours": (signed(but(aud=AUDIENCE + "0")), "meant for another audience"),
    "audience of other case": (signed(but(aud="DICOM:pacs1")), "meant for another audience"),
    "audience is an object": (signed(but(aud={AUDIENCE: 1})), "meant for another audience"),
    "audiences are empty": (signed(but(aud=[])), "claim aud is missing"),
    "another issuer": (
        signed(but(iss="https://evil.example")),
        "issued by 'https://evil.example', wanted 'https://issuer.example'",
    ),
    "issuer with a slash more": (signed(but(iss=ISSUER + "/")), "issued by"),
    "issuer is a list": (signed(but(iss=[ISSUER])), "issued by a list, wanted"),
    "issuer is endless": (signed(but(iss="i" * 999)), "iii..., wanted"),
    "expired": (signed(but(exp=SECONDS - 60)), "expired 60 s ago"),
    "issued in the future": (signed(but(iat=SECONDS + 61)), "issued 61 s in the future (iat)"),
    "not valid yet": (signed(but(nbf=SECONDS + 61)), "not valid yet (nbf)"),
    "valid for too long": (signed(but(exp=SECONDS + 10**6)), "valid for 1000010 s, wanted at"),
    "expiry is a text": (signed(but(exp=str(LATER))), "claim exp is no number of seconds"),
    "expiry is true": (signed(but(exp=True)), "claim exp is no number of seconds"),
    "expiry is an object": (signed(but(exp={})), "claim exp is no number of seconds"),
    "expiry is infinite": (signed(but(exp=float("inf"))), "claim exp is no number of seconds"),
    "expiry is no number at all": (signed(but(exp=float("nan"))), "claim exp is no number"),
    "expiry beyond any float": (signed(but(exp=10**400)), "claim exp is no number of seconds"),
    "issue before 1970": (signed(but(iat=-1)), "claim iat is no number of seconds"),
    "start is a text": (signed(but(nbf="0")), "claim nbf is no number of seconds"),
    "subject is a number": (signed(but(sub=7)), "malformed (InvalidSubjectError)"),
    "token ID is a number": (signed(but(jti=7)), "malformed (InvalidJTIError)"),
    "user is empty": (signed(but(sub="")), "user name is empty"),
    "user with a line break": (signed(but(sub="ada\nroot")), "holds a control character"),
    "user reads backwards": (signed(but(sub="ada\u202e")), "holds a control character"),
    "user is half a character": (signed(but(sub="\ud800")), "user name is not UTF-8"),
    "user is endless": (signed(but(sub="a" * 257)), "has 257 characters"),
    "groups are a number": (signed(but(groups=7)), "claim groups is no list of at most 256"),
    "groups of numbers": (signed(but(groups=[7])), "claim groups holds what is no group name"),
    "group with a line break": (signed(but(groups=["a\nb"])), "what is no group name"),
    "group without a name": (signed(but(groups=[""])), "what is no group name"),
    "groups without end": (signed(but(groups=["g"] * (MAX_GROUPS + 1))), "no list of at most"),
    "groups left out for their number": (
        signed(but(groups=None, _claim_names={"groups": "src1"})),
        "claim groups is left out, the groups are too many",
    ),
    # bound to a key
    "bound to a certificate, none shown": (
        signed(but(cnf={"x5t#S256": "x"})),
        "bound to a TLS certificate, and the peer has none",
    ),
    "bound to a DPoP key": (signed(but(cnf={"jkt": "x"})), "in a way we cannot check (cnf)"),
    "bound to two keys": (signed(but(cnf={"x5t#S256": "x", "jkt": "y"})), "cannot check (cnf)"),
    "bound to a number": (signed(but(cnf={"x5t#S256": 7})), "in a way we cannot check (cnf)"),
    "bound to a text": (signed(but(cnf="x")), "in a way we cannot check (cnf)"),
}


@pytest.mark.parametrize(("token", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(
    token: bytes, reason: str, key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    claim = Claim(IdentityType.JWT, token)
    with pytest.raises(IdentityRefused) as refused:
        backend_of(key_file).verify(claim, PEER)
    error = refused.value
    assert reason in error.reason
    assert (error.result, error.source, error.diagnostic) == (1, 2, 1)
    assert len(error.reason) < 300
    assert error.reason.isprintable()
    told = caplog.text + repr(claim) + repr(error) + "".join(traceback.format_exception(error))
    assert not [secret for secret in secrets_of(token) if secret in told]


def test_every_refusal_has_a_cause_of_its_own() -> None:
    assert len({reason for _, reason in REFUSED.values()}) > 50


def test_no_key_named_and_two_to_choose_from(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(public_jwk("rsa", "RS256"), public_jwk("other", "RS256")))
    with pytest.raises(IdentityRefused, match="one key only, as none is named, for RS256"):
        verified(backend_of(path), signed(kid=None))


@given(st.integers(0, len(signed()) - 1), st.integers(1, 255))
def test_a_changed_byte_never_verifies(key_file: Path, position: int, change: int) -> None:
    token = bytearray(signed(b" " + json.dumps(CLAIMS).encode()))
    position %= len(token)
    token[position] ^= change
    if bytes(token[-1:]) in b" \t\r\n\0":
        return  # shorter by a character, which the table has
    with pytest.raises(IdentityRefused):
        verified(backend_of(key_file), bytes(token))


@given(st.binary(max_size=300))
def test_whatever_comes_is_refused_in_words(key_file: Path, noise: bytes) -> None:
    for token in (noise, b64(noise) + b".e30.YQ", signed(noise)):
        with pytest.raises(IdentityRefused):
            verified(backend_of(key_file), token)


# --- Bound to a certificate, and used once ---


def test_RFC8705_a_bound_token_serves_its_holder_only(key_file: Path) -> None:
    ca = Ca()
    mine, other = (ca.certify(name, private_key(name, "ES256")) for name in ("p256", "x"))
    digest = hashlib.sha256(mine.public_bytes(Encoding.DER)).digest()
    token = signed(but(cnf={"x5t#S256": b64(digest).decode()}))
    backend = backend_of(key_file)
    assert verified(backend, token, PeerFacts(certificate=mine)).user == "ada"
    for peer in (PeerFacts(certificate=other), PeerFacts()):
        with pytest.raises(IdentityRefused, match="bound to"):
            verified(backend, token, peer)
    odd = signed(but(cnf={"x5t#S256": "\ud800"}))
    with pytest.raises(IdentityRefused, match="bound to another TLS certificate"):
        verified(backend, odd, PeerFacts(certificate=mine))


def test_used_once_also_across_a_restart(key_file: Path, tmp_path: Path) -> None:
    first, second = signed(), signed(but(jti="token-2"))
    for token in (first, second):
        once = ReplayStore(tmp_path / "used", clock=lambda: NOW)
        backend = backend_of(key_file, once=once)
        assert verified(backend, token).user == "ada"
        for again in (token, first):
            with pytest.raises(IdentityRefused, match="it was used before"):
                verified(backend, again)
        once.close()


def test_used_once_is_not_used_up_by_what_was_refused(key_file: Path) -> None:
    backend = backend_of(key_file, once=ReplayStore(clock=lambda: NOW))
    for spoilt in (signed(but(aud="x")), signed(but(groups=7)), signed(key="other", kid="rsa")):
        with pytest.raises(IdentityRefused):
            verified(backend, spoilt)
    assert verified(backend, signed()).user == "ada"


@pytest.mark.parametrize("name", [None, ""])
def test_used_once_needs_a_name(name: str | None, key_file: Path) -> None:
    backend = backend_of(key_file, once=ReplayStore(clock=lambda: NOW))
    with pytest.raises(IdentityRefused, match="claim jti is missing"):
        verified(backend, signed(but(jti=name)))


def test_used_once_with_a_name_of_any_characters(key_file: Path) -> None:
    backend = backend_of(key_file, once=ReplayStore(clock=lambda: NOW))
    for name in ("\ud800", "\\ud800", "\0", "a" * 5000):
        assert verified(backend, signed(but(jti=name))).user == "ada"


# --- Configuration ---

WRONG: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "HMAC": ({"algorithms": ["RS256", "HS256"]}, "found 'HS256' for JWT"),
    "none": ({"algorithms": ["none"]}, "found 'none' for JWT"),
    "unknown algorithm": ({"algorithms": ["RS257"]}, "found 'RS257' for JWT"),
    "no algorithm": ({"algorithms": []}, "found no algorithm for JWT"),
    "leeway below zero": ({"leeway": -1}, "negative"),
    "lifetime of nothing": ({"max_lifetime": 0}, "negative"),
    "no user claim": ({"user_claim": ""}, "the user of JWT is empty"),
}


@pytest.mark.parametrize(("options", "words"), WRONG.values(), ids=WRONG)
def test_configuration(options: Mapping[str, Any], words: str, key_file: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        backend_of(key_file, **options)


def test_configuration_without_issuer_or_audience(key_file: Path) -> None:
    for names in (("", AUDIENCE), (ISSUER, "")):
        with pytest.raises(ConfigurationError, match="is empty"):
            JwtBackend(*names, JwksFile(key_file))


def test_without_the_library_it_says_what_to_install() -> None:
    program = """
import sys
sys.modules["jwt"] = None
from dicom_secure_node.identity import jwt_tokens
print(jwt_tokens.outgoing_claim(b"a.b.c"))
try:
    jwt_tokens.JwtBackend("i", "a", None)
except Exception as exc:
    print(type(exc).__name__, exc)
"""
    done = parts.run([sys.executable, "-c", program], check=True)
    assert done.stdout.splitlines() == [
        "<Claim jwt>",
        "MissingExtra verifying a JWT (user identity type 5) needs an optional package: "
        'pip install "dicom-secure-node[jwt]"',
    ]
