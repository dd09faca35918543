"""Lock-out after repeated failures, so that passcodes cannot be guessed one by one.

Three counters, each over a sliding window:

1. *User and address together* lock that pair. Nobody can lock a user out from elsewhere: the
   lock holds only where the failures came from.
2. *An address*, over all its users, locks the address: one passcode tried on many names.
3. *A user*, over all addresses, makes each further attempt wait a little (only where
   `slow_after` is set). It delays the rightful owner too, therefore it never locks.

A success forgets the failures of its pair, and neither of the others: who has one account
could otherwise wash the address clean between guesses. Spellings that a directory takes for one
name ("ada", "ADA ", "àda") count as one, and so do the addresses of one IPv6 /64.

Everything is in memory and bounded; a restart forgets. Time is monotonic: setting the machine's
clock neither opens a lock nor prolongs it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import threading
import time
import unicodedata
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from dicom_secure_node.errors import ConfigurationError, IdentityRefused
from dicom_secure_node.identity.claims import Backend, Claim, Identity, IdentityType, PeerFacts

logger = logging.getLogger(__name__)

_LONGEST_DELAY = 4.0  # seconds


@dataclass(frozen=True)
class Locked:
    """A lock has just begun: worth a Security Alert (PS3.15 A.5.3.11).

    Attributes
    ----------
    user : str
        Whose name was tried; empty where the whole address is locked.
    address : str
        Where it was tried from.
    reason : str
        In words fit for log and audit.
    """

    user: str
    address: str
    reason: str


@dataclass
class _Count:
    failures: deque[float]  # when, as the clock says
    locked_until: float = float("-inf")


@dataclass
class _Counters:
    """Failures by key. The oldest keys are forgotten first, those under a lock last."""

    limit: int  # failures within `window` that lock; 0 for never
    window: float  # seconds
    lock: float  # seconds
    keys: int
    _counts: OrderedDict[bytes, _Count] = field(default_factory=OrderedDict)

    def locked_for(self, key: bytes, now: float) -> float:
        """Return for how many seconds more `key` is locked, 0 where it is not."""
        count = self._counts.get(key)
        return max(0.0, count.locked_until - now) if count else 0.0

    def recent(self, key: bytes, now: float) -> int:
        """Return how many failures of `key` are in the window, at most `limit`."""
        count = self._counts.get(key)
        return sum(when > now - self.window for when in count.failures) if count else 0

    def add(self, key: bytes, now: float) -> bool:
        """Count a failure; return whether it began a lock."""
        if not self.limit:
            return False
        count = self._counts.setdefault(key, _Count(deque(maxlen=self.limit)))
        self._counts.move_to_end(key)
        count.failures.append(now)
        began = self.recent(key, now) >= self.limit and count.locked_until <= now
        if began:
            count.locked_until = now + self.lock
            if self.lock:
                count.failures.clear()  # what comes after the lock starts afresh
        if len(self._counts) > self.keys:
            oldest = next(iter(self._counts))
            unlocked = (k for k, c in self._counts.items() if c.locked_until <= now)
            del self._counts[next(unlocked, oldest)]
        return began

    def forget(self, key: bytes) -> None:
        self._counts.pop(key, None)


class Counts(Protocol):
    """What a back-end needs of `Lockout`, which may be in another process."""

    def check(self, user: str, address: str) -> None: ...

    def delay(self, user: str) -> float: ...

    def failed(self, user: str, address: str) -> Locked | None: ...

    def succeeded(self, user: str, address: str) -> None: ...


class Lockout:
    """Counts failed verifications and says who has to wait. May be shared by threads.

    Parameters
    ----------
    clock : callable, optional
        Seconds, never going back.
    failures : int
        Failures of one user from one address that lock the two together; 0 for never.
    window : float
        Seconds within which failures count.
    lock : float
        Seconds a lock holds.
    address_failures : int
        Failures of one address, over all users, that lock the address; 0 for never. Behind an
        address translation all share it.
    slow_after : int
        Failures of one user, over all addresses, after which attempts wait; 0 for never.
    keys : int
        Users, addresses and pairs of both that are remembered, each.

    Raises
    ------
    ConfigurationError
        A number makes no sense.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        failures: int = 5,
        window: float = 900.0,
        lock: float = 900.0,
        address_failures: int = 30,
        slow_after: int = 0,
        keys: int = 10_000,
    ) -> None:
        if min(failures, address_failures, slow_after) < 0 or keys < 1:
            raise ConfigurationError("lock-out: found a limit below 0, wanted a number of failures")
        if not (window > 0 and lock > 0):
            raise ConfigurationError("lock-out: window and lock are seconds, wanted more than 0")
        self._clock = clock
        self._slow_after = slow_after
        self._guard = threading.Lock()
        self._pairs = _Counters(failures, window, lock, keys)
        self._addresses = _Counters(address_failures, window, lock, keys)
        # Never locks; counts a few past the threshold, to where the delay no longer grows.
        self._users = _Counters(slow_after + 5 if slow_after else 0, window, 0.0, keys)

    def check(self, user: str, address: str) -> None:
        """Raise IdentityRefused while `user` at `address`, or all of `address`, is locked."""
        with self._guard:
            now = self._clock()
            pair = self._pairs.locked_for(_pair_key(user, address), now)
            whole = self._addresses.locked_for(_address_key(address), now)
        if pair:
            raise IdentityRefused(
                f"user {user!r} from {address}: locked after {self._pairs.limit} failures, "
                f"for {pair:.0f} s more"
            )
        if whole:
            raise IdentityRefused(
                f"address {address}: locked after {self._addresses.limit} failures, "
                f"for {whole:.0f} s more"
            )

    def delay(self, user: str) -> float:
        """Return how many seconds an attempt as `user` should wait, from anywhere."""
        with self._guard:
            over = self._users.recent(_user_key(user), self._clock()) - self._slow_after
        return min(_LONGEST_DELAY, 0.25 * 2.0**over) if self._slow_after and over >= 0 else 0.0

    def failed(self, user: str, address: str) -> Locked | None:
        """Count a failure; return the lock it began, if it began one.

        `user` is empty where nobody readable was named: then only the address counts.
        """
        with self._guard:
            now = self._clock()
            pair = bool(user) and self._pairs.add(_pair_key(user, address), now)
            whole = self._addresses.add(_address_key(address), now)
            if user:
                self._users.add(_user_key(user), now)
        words = "{} failures within {:.0f} s: {} locked for {:.0f} s"
        if whole:  # it says more than the pair's, which began at the same moment or earlier
            kind, who, name = self._addresses, f"address {address}", ""
        elif pair:
            kind, who, name = self._pairs, f"user {user!r} from {address}", user
        else:
            return None
        return Locked(name, address, words.format(kind.limit, kind.window, who, kind.lock))

    def succeeded(self, user: str, address: str) -> None:
        """Forget the failures of `user` at `address`.

        Raises
        ------
        IdentityRefused
            A lock began while this attempt was being verified: of many guesses sent at once,
            those beyond the limit are worth nothing, not even the right one.
        """
        self.check(user, address)
        with self._guard:
            self._pairs.forget(_pair_key(user, address))


def _user_key(user: str) -> bytes:
    """Return one key for all spellings a directory may take for one name.

    Directories compare without case, accents (some), width, surplus blanks and invisible marks
    (RFC 4518). Two people under one key only share a counter.
    """
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", user).casefold())
    kept = (c for c in letters if unicodedata.category(c)[0] not in "MZC" and c != "\ufffc")
    return hashlib.sha256("".join(kept).encode("utf-8", "surrogatepass")).digest()


def _address_key(address: str) -> bytes:
    """Return one key for an IPv4 address, or for the IPv6 network a peer can pick from."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address.encode("utf-8", "surrogatepass")[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return found.packed[:8]
        found = found.ipv4_mapped
    return found.packed


def _pair_key(user: str, address: str) -> bytes:
    return _user_key(user) + _address_key(address)


class LockingBackend:
    """Puts a lock-out before a back-end that verifies what can be guessed: passcodes.

    Only `IdentityRefused` counts as a failure: a directory that is away, or too much to do,
    is nobody's guess.

    Parameters
    ----------
    backend : Backend
        What verifies.
    lockout : Counts
        What counts.
    on_locked : callable
        Told user (empty: the whole address) and address when a lock begins.
    sleep : callable, optional
        Waits for so many seconds, in the association's own thread.
    """

    def __init__(
        self,
        backend: Backend,
        lockout: Counts,
        on_locked: Callable[[str, str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._backend = backend
        self._lockout = lockout
        self._on_locked = on_locked
        self._sleep = sleep

    @property
    def kinds(self) -> frozenset[IdentityType]:
        """The types of the back-end behind."""
        return self._backend.kinds

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
        """Return what the back-end says, unless it is not to be asked; see `Backend`."""
        user = _named(claim)
        self._lockout.check(user, peer.address)
        if delay := self._lockout.delay(user):
            self._sleep(delay)
        try:
            identity = self._backend.verify(claim, peer)
        except IdentityRefused:
            self._count(user, peer.address)
            raise
        self._lockout.succeeded(user, peer.address)
        return identity

    def close(self) -> None:
        """Close the back-end behind, where it can be closed."""
        close = getattr(self._backend, "close", None)
        if close is not None:
            close()

    def _count(self, user: str, address: str) -> None:
        locked = self._lockout.failed(user, address)
        if locked is not None:
            logger.warning("%s", locked.reason)
            self._on_locked(locked.user, locked.address)


def _named(claim: Claim) -> str:
    """Return the user a claim names in clear; empty for a ticket, or a name that is none."""
    try:
        return claim.user
    except IdentityRefused:
        return ""
