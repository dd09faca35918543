"""User name and passcode, verified against a users file (PS3.15 B.5).

What the peer can learn is yes or no: an unknown or disabled name costs the same hash as a
known one, and the answer on the wire is the same (1/2/1). Log and audit get the reason.

Hashing is slow on purpose, so it runs on a few threads of its own: at most `workers` hashes
at a time, at most `queue` more waiting. Beyond that a requestor hears *temporary congestion*
(2/3/1), and associations without a passcode do not notice.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
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
    workers : int
        Hashes computed at a time; each takes 64 MiB for about 0.2 s.
    queue : int
        Claims that may wait for a worker.
    seconds : float
        How long one claim may take, waiting included.

    Raises
    ------
    ConfigurationError
        The file is absent or wrong.
    """

    kinds = frozenset({IdentityType.PASSCODE})

    def __init__(
        self, file: Path, *, workers: int = 2, queue: int = 20, seconds: float = 10.0
    ) -> None:
        self._file = UserFile(file)
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(workers + queue)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="passcode")

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:  # noqa: ARG002
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
        matches = self._hashed(claim.secondary, phc)
        if user is None:
            raise IdentityRefused(f"user {name!r}: unknown user")
        if not usable:
            raise IdentityRefused(f"user {name!r}: disabled")
        if not matches:
            raise IdentityRefused(f"user {name!r}: wrong passcode")
        return Identity(name, claim.kind, how="passcode file (B.5)")

    def close(self) -> None:
        """Stop the hashing threads; claims still waiting are refused as unavailable."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _hashed(self, passcode: bytes, phc: str) -> bool:
        if not self._places.acquire(blocking=False):
            raise LimitReached("too many passcodes to verify at a time", diagnostic=1)
        try:
            future = self._pool.submit(passcode_matches, passcode, phc)
        except RuntimeError as exc:
            self._places.release()
            raise ServiceUnavailable("passcode verification", "is closed") from exc
        # The place is free when the work is over, not when we cease to wait for it.
        future.add_done_callback(self._leave)
        try:
            return future.result(self._seconds)
        except TimeoutError as exc:
            future.cancel()
            raise LimitReached("verifying the passcode took too long", diagnostic=1) from exc
        except CancelledError as exc:
            raise ServiceUnavailable("passcode verification", "is closed") from exc

    def _leave(self, future: Future[bool]) -> None:  # noqa: ARG002
        self._places.release()
