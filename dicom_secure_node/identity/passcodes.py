"""User name and passcode, verified against a users file (PS3.15 B.5).

What the peer can learn is yes or no: an unknown or disabled name costs the same hash as a
known one, and the answer on the wire is the same (1/2/1). Log and audit get the reason.

Hashing is slow on purpose. Only `places` claims may be at it or wait for it, only `each` of them
from one address; beyond that a requestor hears *temporary congestion* (2/3/1). Associations
without a passcode do not notice.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from pathlib import Path

from dicom_secure_node.errors import IdentityRefused, LimitReached, ServiceUnavailable
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.userfile import MAX_PASSCODE_LENGTH, UserFile, passcode_matches


class PasscodeBackend:
    """Verifies type 2 against a users file.

    Parameters
    ----------
    file : Path
        The users file (TOML, see `userfile`); read again when it changes.
    places : int
        Claims that may be verified or wait; a hash takes 64 MiB for about 0.3 s, one at a time.
    each : int
        Of them from one address.
    seconds : float
        How long one claim may take, waiting included.

    Raises
    ------
    ConfigurationError
        The file is absent or wrong.
    """

    kinds = frozenset({IdentityType.PASSCODE})

    def __init__(
        self, file: Path, *, places: int = 24, each: int = 8, seconds: float = 10.0
    ) -> None:
        self._file = UserFile(file)
        self._seconds = seconds
        self._limits = (places, each)
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()
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
        self._take(address)
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
            future.set_result(passcode_matches(passcode, phc))
        except Exception as exc:
            future.set_exception(exc)
        finally:  # the place is free when the work is over, not when nobody waits any more
            with self._lock:
                self._taken[address] -= 1
                if not self._taken[address]:
                    del self._taken[address]

    def _take(self, address: str) -> None:
        places, each = self._limits
        with self._lock:
            if self._closed:
                raise ServiceUnavailable("passcode verification", "is closed")
            if self._taken.total() >= places or self._taken[address] >= each:
                raise LimitReached("too many passcodes to verify at a time", diagnostic=1)
            self._taken[address] += 1
