"""User name and passcode against a users file, PS3.15 B.5."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from dicom_secure_node.errors import (
    ConfigurationError,
    IdentityRefused,
    LimitReached,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import Claim, IdentityType, PeerFacts
from dicom_secure_node.identity.passcodes import PasscodeBackend, Places
from dicom_secure_node.identity.userfile import add_user, passcode_matches, remove_user
from tests.parts import wait_until

PEER = PeerFacts(calling_ae="CT1", protected=True)


def claim(user: str, passcode: bytes) -> Claim:
    return Claim(IdentityType.PASSCODE, user.encode(), passcode)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "users.toml"
    now = datetime(2026, 3, 1, tzinfo=UTC)
    add_user(path, "ada", b"tiger", now)
    add_user(path, "Müller", "Pässwort 秘密".encode(), now)
    add_user(path, "gone", b"lion", now)
    text = path.read_text().replace('[users."gone"]', '[users."gone"]\ndisabled = true')
    path.write_text(text)
    return path


@pytest.fixture
def backend(file: Path) -> Iterator[PasscodeBackend]:
    made = PasscodeBackend(file)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("user", "passcode"), [("ada", b"tiger"), ("Müller", "Pässwort 秘密".encode())]
)
def test_B5_right_passcode(backend: PasscodeBackend, user: str, passcode: bytes) -> None:
    identity = backend.verify(claim(user, passcode), PEER)
    assert (identity.user, identity.proven, identity.response) == (user, True, b"")


REFUSED = {
    "wrong passcode": ("ada", b"lion", "user 'ada': wrong passcode"),
    "case matters": ("ada", b"Tiger", "user 'ada': wrong passcode"),
    "longer by a NUL": ("ada", b"tiger\0", "user 'ada': wrong passcode"),
    "passcode of another user": ("Müller", b"tiger", "user 'Müller': wrong passcode"),
    "unknown user": ("eve", b"tiger", "user 'eve': unknown user"),
    "case of the user": ("Ada", b"tiger", "user 'Ada': unknown user"),
    "disabled, right passcode": ("gone", b"lion", "user 'gone': disabled"),
    "disabled, wrong passcode": ("gone", b"puma", "user 'gone': disabled"),
    "empty passcode": ("ada", b"", "user 'ada': the passcode is empty"),
    "endless passcode": ("ada", b"x" * 1025, "user 'ada': the passcode is too long"),
    "no user": ("", b"tiger", "user name is empty"),
    "control character": ("ada\n", b"tiger", "user name holds a control character"),
}


@pytest.mark.parametrize(("user", "passcode", "reason"), REFUSED.values(), ids=REFUSED)
def test_B5_refused(backend: PasscodeBackend, user: str, passcode: bytes, reason: str) -> None:
    with pytest.raises(IdentityRefused) as refused:
        backend.verify(claim(user, passcode), PEER)
    assert refused.value.reason == reason
    assert (refused.value.result, refused.value.source, refused.value.diagnostic) == (1, 2, 1)


def test_who_is_removed_is_refused_at_once(backend: PasscodeBackend, file: Path) -> None:
    backend.verify(claim("ada", b"tiger"), PEER)
    remove_user(file, "ada")
    with pytest.raises(IdentityRefused, match="unknown user"):
        backend.verify(claim("ada", b"tiger"), PEER)


class Counted(PasscodeBackend):
    """Counts the hashes, by cost."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.costs: list[str] = []

    def _hashed(self, passcode: bytes, phc: str, address: str) -> bool:
        self.costs.append(phc.split("$")[3])
        return super()._hashed(passcode, phc, address)


@pytest.mark.parametrize("user", ["ada", "eve", "gone"])
def test_unknown_and_disabled_users_cost_the_same_hash(file: Path, user: str) -> None:
    backend = Counted(file)
    with pytest.raises(IdentityRefused):
        backend.verify(claim(user, b"wrong"), PEER)
    backend.close()
    assert backend.costs == ["m=65536,t=3,p=1"]


class Held(PasscodeBackend):
    """A backend whose hashing waits for the test; the work itself is real."""

    def __init__(self, file: Path, *, each: int = 8, seconds: float) -> None:
        self.places = Places(total=2, each=each)
        super().__init__(file, places=self.places, seconds=seconds)
        self.go = threading.Event()

    def _work(self, *args: Any) -> None:
        self.go.wait(60)
        super()._work(*args)


def test_too_many_at_a_time_is_temporary_congestion(file: Path) -> None:
    backend = Held(file, seconds=30)
    results: list[object] = []
    waiting = [threading.Thread(target=lambda: results.append(outcome(backend))) for _ in range(6)]
    for thread in waiting:
        thread.start()
    # Two places, for six: four hear at once that they should come again later.
    wait_until(lambda: len(results) >= 4, "four refusals")
    assert results == [(2, 3, 1)] * 4
    backend.go.set()
    for thread in waiting:
        thread.join(60)
    assert results[4:] == ["ada", "ada"], "those who had a place were served"
    assert outcome(backend) == "ada", "the places are free again"
    backend.close()


def outcome(backend: PasscodeBackend) -> object:
    try:
        return backend.verify(claim("ada", b"tiger"), PEER).user
    except LimitReached as exc:
        return exc.result, exc.source, exc.diagnostic


def test_waiting_has_an_end_and_gives_the_place_back(file: Path) -> None:
    backend = Held(file, seconds=0.05)
    for _ in range(2):
        with pytest.raises(LimitReached, match="took too long"):
            backend.verify(claim("ada", b"tiger"), PEER)
    with pytest.raises(LimitReached, match="too many"):
        backend.verify(claim("ada", b"tiger"), PEER)
    backend.go.set()
    wait_until(lambda: not len(backend.places), "the places given back")
    backend.close()


def test_closed(file: Path) -> None:
    backend = PasscodeBackend(file)
    backend.close()
    for _ in range(30):
        with pytest.raises(ServiceUnavailable, match="closed"):
            backend.verify(claim("ada", b"tiger"), PEER)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        PasscodeBackend(tmp_path / "users.toml")


def test_logins_at_the_same_moment(file: Path) -> None:
    """OpenSSL's own threads for Argon2 hang for ever when two such hashes overlap."""
    four_lanes = Argon2id(
        salt=b"0123456789abcdef", length=32, iterations=1, lanes=4, memory_cost=64
    ).derive_phc_encoded(b"tiger")
    results: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: results.extend(
                passcode_matches(b"tiger", four_lanes) for _ in range(50)
            ),
            daemon=True,
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [True] * 200


def test_one_address_cannot_take_all_places(file: Path) -> None:
    backend = Held(file, each=1, seconds=30)
    results: list[object] = []
    first = threading.Thread(target=lambda: results.append(outcome(backend)))
    first.start()
    wait_until(lambda: len(backend.places) == 1, "one place taken")
    assert outcome(backend) == (2, 3, 1)
    backend.go.set()
    elsewhere = PeerFacts(address="10.0.0.2", protected=True)
    assert backend.verify(claim("ada", b"tiger"), elsewhere).user == "ada"
    first.join(60)
    assert results == ["ada"]
    backend.close()
