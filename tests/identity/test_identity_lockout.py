"""Lock-out after repeated failures: what it stops, and whom it must never hit."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from dicom_secure_node.errors import (
    ConfigurationError,
    IdentityRefused,
    LimitReached,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.lockout import LockingBackend, Lockout

HERE, THERE = "10.1.2.3", "10.9.9.9"


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(lockout: Lockout, user: str, address: str, times: int = 1) -> None:
    for _ in range(times):
        lockout.failed(user, address)


def is_locked(lockout: Lockout, user: str, address: str) -> bool:
    try:
        lockout.check(user, address)
    except IdentityRefused:
        return True
    return False


def test_the_fifth_failure_locks_the_pair_and_says_so_once(clock: Clock) -> None:
    lockout = Lockout(clock)
    began = [lockout.failed("ada", HERE) for _ in range(7)]
    assert [locked is not None for locked in began] == [False] * 4 + [True] + [False] * 2
    assert began[4] is not None
    assert (began[4].user, began[4].address) == ("ada", HERE)
    assert began[4].reason == (
        "5 failures within 900 s: user 'ada' from 10.1.2.3 locked for 900 s"
    )  # fmt: skip
    with pytest.raises(IdentityRefused) as refused:
        lockout.check("ada", HERE)
    assert refused.value.reason == (
        "user 'ada' from 10.1.2.3: locked after 5 failures, for 900 s more"
    )
    assert (refused.value.result, refused.value.source, refused.value.diagnostic) == (1, 2, 1)


def test_nobody_is_locked_out_from_elsewhere(clock: Clock) -> None:
    lockout = Lockout(clock)
    fail(lockout, "ada", THERE, 20)
    assert is_locked(lockout, "ada", THERE)
    assert not is_locked(lockout, "ada", HERE)
    assert not is_locked(lockout, "grace", THERE)


def test_a_lock_ends_and_the_count_begins_anew(clock: Clock) -> None:
    lockout = Lockout(clock, lock=60)
    fail(lockout, "ada", HERE, 5)
    clock.now += 59.9
    assert is_locked(lockout, "ada", HERE)
    clock.now += 0.2
    assert not is_locked(lockout, "ada", HERE)
    fail(lockout, "ada", HERE, 4)
    assert not is_locked(lockout, "ada", HERE)
    fail(lockout, "ada", HERE)
    assert is_locked(lockout, "ada", HERE)


def test_failures_grow_old(clock: Clock) -> None:
    lockout = Lockout(clock, window=100)
    for _ in range(50):
        fail(lockout, "ada", HERE)
        clock.now += 25.1  # never five within 100 s
    assert not is_locked(lockout, "ada", HERE)


def test_a_success_forgets_its_own_failures_only(clock: Clock) -> None:
    lockout = Lockout(clock, failures=3, address_failures=10)
    for _ in range(3):
        # An attacker with an account of his own logs in between guesses.
        fail(lockout, "ada", HERE, 2)
        lockout.succeeded("ada", HERE)
        lockout.succeeded("mallory", HERE)
    assert not is_locked(lockout, "ada", HERE)
    fail(lockout, "grace", HERE, 2)
    lockout.succeeded("mallory", HERE)
    fail(lockout, "grace", HERE)
    assert is_locked(lockout, "grace", HERE)
    fail(lockout, "eve", HERE)
    assert is_locked(lockout, "mallory", HERE), "the address is not washed clean: ten failures"


SAME = {
    "case": "ADA",
    "blank after": "ada ",
    "blanks before": "  ada",
    "accent": "àda",
    "combining accent": "a\u0300da",
    "fullwidth": "\uff41\uff44\uff41",
    "combining grapheme joiner": "a\u034fda",
    "variation selector": "ada\ufe0f",
    "object replacement": "a\ufffcda",
    "ligatures of a kind": "\u1d43da",  # modifier letter small a
}


@pytest.mark.parametrize("spelling", SAME.values(), ids=SAME)
def test_spellings_a_directory_takes_for_one_name_are_one(clock: Clock, spelling: str) -> None:
    lockout = Lockout(clock)
    fail(lockout, "ada", HERE, 4)
    fail(lockout, spelling, HERE)
    assert is_locked(lockout, "ada", HERE)
    assert is_locked(lockout, spelling, HERE)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("10.1.2.3", "::ffff:10.1.2.3", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("", "10.1.2.3", False),
        ("no address", "no address", True),
    ],
)
def test_addresses_of_one_host(clock: Clock, one: str, other: str, same: bool) -> None:
    lockout = Lockout(clock)
    fail(lockout, "ada", one, 5)
    assert is_locked(lockout, "ada", other) == same


def test_one_passcode_on_many_names_locks_the_address(clock: Clock) -> None:
    lockout = Lockout(clock, address_failures=30)
    began = [lockout.failed(f"user{number}", HERE) for number in range(30)]
    assert [locked for locked in began if locked] == began[29:]
    assert began[29] is not None
    assert (began[29].user, began[29].address) == ("", HERE)
    assert "address 10.1.2.3 locked" in began[29].reason
    with pytest.raises(IdentityRefused, match=r"address 10.1.2.3: locked after 30 failures"):
        lockout.check("ada", HERE)
    assert not is_locked(lockout, "user1", THERE)


def test_each_count_can_be_off(clock: Clock) -> None:
    lockout = Lockout(clock, address_failures=0)
    for number in range(1000):
        fail(lockout, f"user{number}", HERE)
    assert not is_locked(lockout, "ada", HERE)
    lockout = Lockout(clock, failures=0)
    fail(lockout, "ada", HERE, 29)
    assert not is_locked(lockout, "ada", HERE)
    fail(lockout, "ada", HERE)
    assert is_locked(lockout, "ada", HERE), "the address still counts"


def test_guesses_from_everywhere_slow_a_user_down_and_lock_nobody(clock: Clock) -> None:
    lockout = Lockout(clock, slow_after=10)
    delays = []
    for number in range(20):
        delays.append(lockout.delay("ada"))
        fail(lockout, "ada", f"10.2.0.{number}")
    assert delays == [0.0] * 10 + [0.25, 0.5, 1, 2, 4] + [4.0] * 5
    assert lockout.delay("grace") == 0
    assert not is_locked(lockout, "ada", HERE)
    clock.now += 900.1
    assert lockout.delay("ada") == 0
    assert Lockout(clock).delay("ada") == 0


def test_memory_is_bounded_and_locks_outlive_noise(clock: Clock) -> None:
    lockout = Lockout(clock, keys=100, slow_after=5)
    fail(lockout, "ada", HERE, 5)
    for number in range(5000):
        fail(lockout, "x" * 256 + str(number), f"10.3.{number // 250}.{number % 250}")
    assert is_locked(lockout, "ada", HERE)
    sizes = [len(c._counts) for c in (lockout._pairs, lockout._addresses, lockout._users)]
    assert sizes == [100, 100, 100]
    assert {len(key) for key in lockout._pairs._counts} == {36}, "hashes, however long the name"


def test_a_flood_of_locks_is_bounded_too(clock: Clock) -> None:
    lockout = Lockout(clock, failures=1, keys=50)
    for number in range(500):
        fail(lockout, f"user{number}", f"10.3.0.{number % 250}")
        clock.now += 0.01
    assert len(lockout._pairs._counts) == 50
    assert is_locked(lockout, "user499", "10.3.0.249")


BAD = {
    "negative failures": {"failures": -1},
    "negative": {"address_failures": -1},
    "no window": {"window": 0.0},
    "no lock": {"lock": 0.0},
    "not a number": {"lock": float("nan")},
    "no memory": {"keys": 0},
}


@pytest.mark.parametrize("numbers", BAD.values(), ids=BAD)
def test_numbers_that_make_no_sense(numbers: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="lock-out: "):
        Lockout(**numbers)  # type: ignore[arg-type]


# --- around a back-end ---------------------------------------------------------------------------


@dataclass
class Doorkeeper:
    """A back-end that knows one passcode, and counts how often it is asked."""

    kinds: frozenset[IdentityType] = frozenset({IdentityType.PASSCODE})
    failure: Exception | None = None
    asked: int = 0
    closed: bool = False

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        if claim.secondary != b"tiger":
            raise IdentityRefused("wrong passcode")
        return Identity(claim.user, claim.kind)

    def close(self) -> None:
        self.closed = True


@dataclass
class Door:
    """A locking back-end with everything a test looks at."""

    clock: Clock
    behind: Doorkeeper = field(default_factory=Doorkeeper)
    limits: dict[str, int] = field(default_factory=dict)
    alerts: list[tuple[str, str]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        lockout = Lockout(self.clock, **self.limits)
        self.backend = LockingBackend(
            self.behind,
            lockout,
            lambda user, address: self.alerts.append((user, address)),
            self.slept.append,
        )

    def knock(self, passcode: bytes, user: str = "ada", address: str = HERE, kind: int = 2) -> str:
        claim = Claim(IdentityType(kind), user.encode(), passcode)
        try:
            return self.backend.verify(claim, PeerFacts(address=address)).user
        except (IdentityRefused, LimitReached, ServiceUnavailable) as exc:
            return str(exc)


def test_a_locked_user_is_not_even_asked_about(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(clock)
    assert [door.knock(b"planted-guess") for _ in range(5)] == ["wrong passcode"] * 5
    assert "locked after 5 failures" in door.knock(b"tiger")
    assert door.behind.asked == 5
    assert door.knock(b"tiger", address=THERE) == "ada"
    assert door.alerts == [("ada", HERE)]
    clock.now += 901
    assert door.knock(b"tiger") == "ada"
    assert [record.getMessage() for record in caplog.records] == [
        "5 failures within 900 s: user 'ada' from 10.1.2.3 locked for 900 s"
    ]
    assert "planted" not in caplog.text


@pytest.mark.parametrize(
    "failure", [ServiceUnavailable("directory", "is away"), LimitReached("too many")], ids=str
)
def test_what_is_nobody_s_guess_does_not_count(clock: Clock, failure: Exception) -> None:
    door = Door(clock, Doorkeeper(failure=failure))
    for _ in range(50):
        door.knock(b"tiger")
    door.behind.failure = None
    assert door.knock(b"tiger") == "ada"
    assert door.alerts == []


def test_tickets_and_names_that_are_none_count_for_the_address_only(clock: Clock) -> None:
    door = Door(clock, limits={"failures": 2, "address_failures": 10})
    for _ in range(5):
        assert door.knock(b"", kind=3) == "wrong passcode"
        assert door.knock(b"x", user="a\nb") == "wrong passcode"
    assert door.alerts == [("", HERE)]
    assert door.knock(b"tiger") == "address 10.1.2.3: locked after 10 failures, for 900 s more"


def test_the_delay_comes_before_the_back_end_is_asked(clock: Clock) -> None:
    door = Door(clock, limits={"slow_after": 1})
    door.knock(b"wrong", address=THERE)
    assert door.slept == []
    assert door.knock(b"tiger") == "ada", "later, but not refused"
    assert door.slept == [0.25]


def test_of_many_guesses_at_once_those_beyond_the_limit_are_worth_nothing(clock: Clock) -> None:
    """All of them pass the check before any has failed; the right one is the last to come back."""
    door = Door(clock)
    waiting, go = threading.Semaphore(0), threading.Event()
    keep = door.behind.verify

    def held(claim: Claim, peer: PeerFacts) -> Identity:
        waiting.release()
        assert go.wait(60)
        if claim.secondary == b"tiger":
            for thread in guesses:
                thread.join(60)
        return keep(claim, peer)

    door.behind.verify = held  # type: ignore[method-assign]
    results: list[str] = []
    guesses = [threading.Thread(target=door.knock, args=(b"x%d" % n,)) for n in range(9)]
    right = threading.Thread(target=lambda: results.append(door.knock(b"tiger")))
    for thread in (*guesses, right):
        thread.start()
    for _ in range(10):
        assert waiting.acquire(timeout=60)
    go.set()
    right.join(60)
    assert "locked after 5 failures" in results[0]
    assert door.alerts == [("ada", HERE)]


def test_it_stands_in_for_the_back_end_behind(clock: Clock) -> None:
    door = Door(clock)
    assert door.backend.kinds == {IdentityType.PASSCODE}
    door.backend.close()
    assert door.behind.closed
