"""User name and passcode, verified against a users file (PS3.15 B.5).

What the peer can learn is yes or no: an unknown or disabled name costs the same hash as a
known one, and the answer on the wire is the same (1/2/1). Log and audit get the reason.

Hashing is slow on purpose. Only so many claims may be at it or wait for it (`Places`); beyond that
a requestor hears *temporary congestion* (2/3/1). Associations without a passcode do not notice.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

from dicom_secure_node.errors import IdentityRefused, LimitReached, ServiceUnavailable
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.userfile import MAX_PASSCODE_LENGTH, UserFile, passcode_matches


class Room(Protocol):
    """What the back-end needs of `Places`, which may be in another process."""

    def take(self, address: str) -> None: ...

    def give_back(self, address: str) -> None: ...


class Places:
    """Claims that may be verified or wait for it; safe to share by threads.

    Parameters
    ----------
    total : int
        In all.
    each : int
        Of them from one address.
    """

    def __init__(self, total: int = 24, each: int = 8) -> None:
        self._total = total
        self._each = each
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, address: str) -> None:
        """Take a place for a claim from `address`.

        Raises
        ------
        LimitReached
            There is none.
        """
        with self._lock:
            if self._taken.total() >= self._total or self._taken[address] >= self._each:
                raise LimitReached("too many passcodes to verify at a time", diagnostic=1)
            self._taken[address] += 1

    def give_back(self, address: str) -> None:
        """Give a place back."""
        with self._lock:
            self._taken[address] -= 1
            if self._taken[address] <= 0:
                del self._taken[address]

    def __len__(self) -> int:
        with self._lock:
            return self._taken.total()


class PasscodeBackend:
    """Verifies type 2 against a users file.

    Parameters
    ----------
    file : Path
        The users file (TOML, see `userfile`); read again when it changes.
    places : Room, optional
        Counts the claims that are verified or wait.
    turn : context manager, optional
        Held during a hash, which takes 64 MiB for about 0.3 s: one at a time in this process,
        and with this one at a time in several.
    seconds : float
        How long one claim may take, waiting included.

    Raises
    ------
    ConfigurationError
        The file is absent or wrong.
    """

    kinds = frozenset({IdentityType.PASSCODE})

    def __init__(
        self,
        file: Path,
        *,
        places: Room | None = None,
        turn: AbstractContextManager[object] | None = None,
        seconds: float = 10.0,
    ) -> None:
        self._file = UserFile(file)
        self._seconds = seconds
        self._places = Places() if places is None else places
        self._turn = nullcontext() if turn is None else turn
        self._closed = False

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
        """Return the user named in `claim` if the passcode is theirs; see `Backend`."""
        name = claim.user
        if not claim.secondary:
            raise IdentityRefused(f"user {name!r}: the passcode is empty")
        if len(claim.secondary) > MAX_PASSCODE_LENGTH:
            raise IdentityRefused(f"user {name!r}: the passcode is too long")
        users = self._file.users
        user = users.rows.get(name)
        usable = user is not None and not user.disabled
        # A name we do not take is hashed against nobody: the same work, never a match.
        phc = user.hash if user is not None and usable else users.nobody
        matches = self._hashed(claim.secondary, phc, peer.address)
        if user is None:
            raise IdentityRefused(f"user {name!r}: unknown user")
        if not usable:
            raise IdentityRefused(f"user {name!r}: disabled")
        if not matches:
            raise IdentityRefused(f"user {name!r}: wrong passcode")
        return Identity(name, claim.kind, how="passcode file (B.5)")

    def close(self) -> None:
        """Verify nothing more; claims still waiting are refused in time."""
        self._closed = True

    def _hashed(self, passcode: bytes, phc: str, address: str) -> bool:
        if self._closed:
            raise ServiceUnavailable("passcode verification", "is closed")
        self._places.take(address)
        future: Future[bool] = Future()
        # A daemon: nobody waits for a hash when the node ends.
        threading.Thread(
            target=self._work, args=(future, passcode, phc, address), name="passcode", daemon=True
        ).start()
        try:
            return future.result(self._seconds)
        except TimeoutError as exc:
            raise LimitReached("verifying the passcode took too long", diagnostic=1) from exc

    def _work(self, future: Future[bool], passcode: bytes, phc: str, address: str) -> None:
        try:
            with self._turn:
                future.set_result(passcode_matches(passcode, phc))
        except Exception as exc:
            future.set_exception(exc)
        finally:  # the place is free when the work is over, not when nobody waits any more
            with suppress(ServiceUnavailable):  # the process that counts has gone, and so do we
                self._places.give_back(address)
