"""The keys of a token issuer: which are taken, where they come from, and how often it is asked."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from dicom_secure_node.errors import ConfigurationError, InvalidInput, ServiceUnavailable
from dicom_secure_node.identity.jwks import MAX_SET_BYTES, parse_jwks, select
from dicom_secure_node.identity.key_sources import CachedKeys, JwksFile, open_source
from tests.identity.oidc import jwks, private_jwk, private_key, public_jwk
from tests.parts import wait_until

RSA, EC = public_jwk("k1", "RS256"), public_jwk("k2", "ES256")


def same(found: Any, name: str, algorithm: str) -> bool:
    return bool(found == private_key(name, algorithm).public_key())


# --- What is taken from a set ---

SELECTED = {
    "RSA by name": ([RSA, EC], "k1", "RS256", ("k1", "RS256")),
    "EC by name": ([RSA, EC], "k2", "ES256", ("k2", "ES256")),
    "the only one for the algorithm": ([RSA, EC], None, "ES256", ("k2", "ES256")),
    "RSA without alg does PSS": ([{**RSA, "alg": "PS256"}], "k1", "PS256", ("k1", "RS256")),
    "P-384": ([public_jwk("k3", "ES384")], "k3", "ES384", ("k3", "ES384")),
    "P-521": ([public_jwk("k5", "ES512")], "k5", "ES512", ("k5", "ES512")),
    "unknown name": ([RSA, EC], "k9", "RS256", None),
    "name of a key of the other type": ([RSA, EC], "k1", "ES256", None),
    "alg says RS256, PS256 asked": ([RSA], "k1", "PS256", None),
    "no name, two to choose from": ([RSA, public_jwk("k4", "RS256")], None, "RS256", None),
    "one name twice": ([RSA, public_jwk("k4", "RS256", kid="k1")], "k1", "RS256", None),
    "one name for two types": ([RSA, {**EC, "kid": "k1"}], "k1", "ES256", ("k2", "ES256")),
    "a key without name, a name asked": ([public_jwk("k1", "RS256", kid=None)], "", "RS256", None),
}


@pytest.mark.parametrize(("rows", "kid", "algorithm", "want"), SELECTED.values(), ids=SELECTED)
def test_RFC7517_key_selected(
    rows: list[dict[str, Any]], kid: str | None, algorithm: str, want: tuple[str, str] | None
) -> None:
    found = select(parse_jwks(jwks(*rows), "keys"), kid, algorithm)
    assert (found is None) if want is None else same(found, *want)


def weak_rsa() -> dict[str, Any]:
    key = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505
    return dict(RSAAlgorithm.to_jwk(key, as_dict=True))


def koblitz() -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256K1()).public_key()
    return dict(ECAlgorithm.to_jwk(key, as_dict=True))


LEFT_OUT = {
    "RSA of 1024 bits": (weak_rsa(), "1024 bits"),
    "secp256k1": (koblitz(), "wanted RSA, or EC"),
    "Ed25519": ({"kty": "OKP", "crv": "Ed25519", "x": "AA"}, "wanted RSA, or EC"),
    "shared secret": ({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, "shared secret"),
    "private part": (private_jwk("k1", "RS256"), "private part"),
    "for encryption": ({**RSA, "use": "enc"}, "not for signatures"),
    "for signing only": ({**RSA, "key_ops": ["sign"]}, "not for verifying"),
    "key_ops is a number": ({**RSA, "key_ops": 7}, "not for verifying"),
    "alg of another type": ({**RSA, "alg": "ES256"}, "alg does not fit"),
    "alg with a shared secret": ({**RSA, "alg": "HS256"}, "alg does not fit"),
    "alg is a list": ({**RSA, "alg": ["RS256"]}, "alg does not fit"),
    "point off the curve": ({**EC, "y": EC["x"]}, "no valid key"),
    "even exponent": ({**RSA, "e": "AQAA"}, "no valid key"),
    "no modulus": ({**RSA, "n": None}, "n is missing"),
    "modulus is no base64url": ({**RSA, "n": "a*b!"}, "n is no base64url"),
    "modulus is no ASCII": ({**RSA, "n": "ä"}, "n is no base64url"),
    "curve is a list": ({**EC, "crv": ["P-256"]}, "wanted RSA, or EC"),
    "kid is a number": ({**RSA, "kid": 7}, "kid is no text"),
    "kid is endless": ({**RSA, "kid": "k" * 257}, "kid is no text"),
    "kty is missing": ({"kid": "x"}, "wanted RSA, or EC"),
    "no object": (["RSA"], "no JSON object"),
}


@pytest.mark.parametrize(("row", "why"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_RFC7517_key_left_out(row: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    keys = parse_jwks(jwks(row, EC), "keys")
    assert [key.kid for key in keys] == ["k2"]
    assert "keys: key 1 of 2 left out: " in caplog.text
    assert why in caplog.text
    with pytest.raises(InvalidInput, match="no usable key"):
        parse_jwks(jwks(row), "keys")


NO_SET = {
    "empty": (b"", "no JSON"),
    "no JSON": (b"<html>", "no JSON"),
    "no UTF-8": (b"\xff{}", "no JSON"),
    "deep": (b"[" * 100_000, "no JSON"),
    "a number no machine reads": (b"1" * 10_000, "no JSON"),
    "a list": (b"[]", "no list 'keys'"),
    "no keys": (b"{}", "no list 'keys'"),
    "keys is an object": (b'{"keys": {}}', "no list 'keys'"),
    "no key in it": (b'{"keys": []}', "no usable key"),
    "a thousand keys": (json.dumps({"keys": [{}] * 1000}).encode(), "1000 keys"),
    "too large": (b" " * (MAX_SET_BYTES + 1), "too large"),
}


@pytest.mark.parametrize(("data", "why"), NO_SET.values(), ids=NO_SET)
def test_RFC7517_no_key_set(data: bytes, why: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_jwks(data, "keys")
    assert refused.value.found == why or why in refused.value.found


# --- A file ---


def test_file_is_read_again_and_the_last_good_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(RSA))
    source = open_source(path)
    assert isinstance(source, JwksFile)
    assert same(source.find("k1", "RS256"), "k1", "RS256")
    assert source.find("k2", "ES256") is None
    path.write_bytes(jwks(EC, EC))  # two lengths, so that no clock is needed to tell them apart
    assert source.find("k2", "ES256") is None  # twice the same name
    path.write_bytes(jwks(EC))
    assert same(source.find("k2", "ES256"), "k2", "ES256")
    assert source.find("k1", "RS256") is None
    for spoil in (lambda: path.write_bytes(b"half a f"), path.unlink):
        spoil()
        assert same(source.find("k2", "ES256"), "k2", "ES256")
        assert same(source.find("k2", "ES256"), "k2", "ES256")
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert len(errors) == 2  # once each


@pytest.mark.parametrize("content", [None, b"", b"{}", jwks(weak_rsa())])
def test_file_unusable_at_the_start(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"jwks\.json"):
        open_source(str(path))


# --- The cache ---


class Issuer:
    """What `CachedKeys` asks, with a clock beside it: a seam's public twin."""

    def __init__(self, **times: float) -> None:
        self.now = 1000.0
        self.answer: bytes | None = jwks(RSA)  # None: away
        self.asked = 0
        self.before: Callable[[], object] = bool  # done before it answers
        self.keys = CachedKeys(self.fetch, ticks=lambda: self.now, **times)

    def fetch(self) -> bytes:
        self.asked += 1
        self.before()
        if self.answer is None:
            raise ServiceUnavailable("issuer", "connection refused")
        return self.answer


def test_keys_are_fetched_when_first_needed_and_then_kept() -> None:
    issuer = Issuer(max_age=600)
    assert issuer.asked == 0
    for _ in range(5):
        assert issuer.keys.find("k1", "RS256")
    issuer.now += 599
    assert issuer.keys.find("k1", "RS256")
    assert issuer.asked == 1
    issuer.now += 1
    assert issuer.keys.find("k1", "RS256")
    assert issuer.asked == 2


def test_a_withdrawn_key_is_out_once_the_keys_are_old() -> None:
    issuer = Issuer(max_age=600)
    assert issuer.keys.find("k1", "RS256")
    issuer.answer = jwks(EC)
    issuer.now += 600
    assert issuer.keys.find("k1", "RS256") is None


def test_an_unknown_key_is_asked_for_once_and_invented_ones_cause_no_storm() -> None:
    issuer = Issuer(cool_down=30)
    assert issuer.keys.find("k1", "RS256")
    issuer.now += 30
    issuer.answer = jwks(RSA, EC)  # the issuer has changed its keys
    assert issuer.keys.find("k2", "ES256")
    assert issuer.asked == 2
    for number in range(1000):
        issuer.now += 0.029
        assert issuer.keys.find(f"invented {number}", "RS256") is None
    assert issuer.asked == 2
    issuer.now += 2
    assert issuer.keys.find("invented", "RS256") is None
    assert issuer.asked == 3


def test_the_last_good_keys_stay_while_the_issuer_is_away_but_not_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    issuer = Issuer(max_age=600, max_stale=86_400)
    assert issuer.keys.find("k1", "RS256")
    issuer.answer = None
    issuer.now += 600
    for _ in range(10):
        assert issuer.keys.find("k1", "RS256")
    assert issuer.asked == 2
    issuer.now += 86_400 - 601
    assert issuer.keys.find("k1", "RS256")
    issuer.now += 1
    with pytest.raises(ServiceUnavailable, match="connection refused"):
        issuer.keys.find("k1", "RS256")
    assert caplog.text.count("connection refused") == 1
    issuer.answer = jwks(RSA)
    issuer.now += 30
    assert issuer.keys.find("k1", "RS256")


def test_an_issuer_that_is_away_is_asked_less_and_less() -> None:
    issuer = Issuer(cool_down=30)
    issuer.answer = None
    times = []
    start = issuer.now
    while issuer.now < start + 150:
        before = issuer.asked
        with pytest.raises(ServiceUnavailable):
            issuer.keys.find("k1", "RS256")
        if issuer.asked > before:
            times.append(issuer.now - start)
        issuer.now += 0.5
    assert times == [0, 1, 3, 7, 15, 31, 61, 91, 121]


def test_an_unknown_key_is_undecided_while_the_issuer_cannot_be_asked() -> None:
    issuer = Issuer(cool_down=30)
    assert issuer.keys.find("k1", "RS256")
    issuer.answer = None
    issuer.now += 30
    with pytest.raises(ServiceUnavailable):
        issuer.keys.find("k2", "ES256")
    assert issuer.keys.find("k1", "RS256")


@pytest.mark.parametrize("answer", [b"<html>captive portal</html>", jwks(weak_rsa())])
def test_an_answer_that_is_no_key_set_changes_nothing(answer: bytes) -> None:
    issuer = Issuer(cool_down=30)
    assert issuer.keys.find("k1", "RS256")
    issuer.answer = answer
    issuer.now += 600
    assert issuer.keys.find("k1", "RS256")


def test_many_threads_ask_once() -> None:
    release = threading.Event()
    asked = []

    def fetch() -> bytes:
        asked.append(1)
        assert release.wait(20)
        return jwks(RSA)

    keys = CachedKeys(fetch, wait=20)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(keys.find("k1", "RS256"))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: asked, "the first fetch")
    release.set()
    for thread in threads:
        thread.join(20)
    assert len(asked) == 1
    assert len(found) == 20
    assert all(found)


def test_old_keys_are_used_while_one_thread_asks() -> None:
    issuer = Issuer(max_age=600)
    assert issuer.keys.find("k1", "RS256")
    begun, release = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert release.wait(20)

    issuer.before = slow
    issuer.now += 600
    asking = threading.Thread(target=lambda: issuer.keys.find("k1", "RS256"))
    asking.start()
    assert begun.wait(20)
    assert issuer.keys.find("k1", "RS256")  # and does not wait
    release.set()
    asking.join(20)


def test_who_waits_for_the_first_keys_does_not_wait_for_ever() -> None:
    begun, release = threading.Event(), threading.Event()

    def slow() -> bytes:
        begun.set()
        assert release.wait(20)
        return jwks(RSA)

    keys = CachedKeys(slow, wait=0.05)
    asking = threading.Thread(target=lambda: keys.find("k1", "RS256"))
    asking.start()
    assert begun.wait(20)
    with pytest.raises(ServiceUnavailable, match="no answer yet"):
        keys.find("k1", "RS256")
    release.set()
    asking.join(20)


@pytest.mark.parametrize(
    "times", [{"cool_down": 0}, {"cool_down": 601}, {"max_age": 100_000}, {"cool_down": -1}]
)
def test_times_that_contradict_one_another(times: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="cool_down"):
        CachedKeys(bytes, **times)
