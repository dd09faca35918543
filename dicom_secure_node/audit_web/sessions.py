"""Who is logged in: a random word in a cookie, and what it stands for in memory.

A restart ends every session. The word itself is not kept, only its digest.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_SESSIONS = 512
MOST_OF_ONE_USER = 8


@dataclass
class Session:
    """One login.

    Attributes
    ----------
    user : str
        Name in the users file.
    stamp : str
        The user's hash at login: another passcode ends what began with the old one.
    token : str
        Goes into every form that changes something.
    begun, seen : float
        Monotonic seconds.
    """

    user: str
    stamp: str = field(repr=False)
    token: str = field(repr=False)
    begun: float
    seen: float


class Sessions:
    """The sessions of one server; one thread at a time.

    Parameters
    ----------
    idle, longest : float
        Seconds a session lasts without a request, and at all.
    clock : callable
        Seconds, never going back.
    """

    def __init__(
        self, idle: float, longest: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._idle = idle
        self._longest = longest
        self._clock = clock
        self._open: dict[bytes, Session] = {}

    def begin(self, user: str, stamp: str) -> str:
        """Begin a session and return the word for the cookie."""
        now = self._clock()
        self._end_old(now)
        own = [key for key, one in self._open.items() if one.user == user]
        for key in own[: max(0, len(own) + 1 - MOST_OF_ONE_USER)]:
            del self._open[key]
        while len(self._open) >= MOST_SESSIONS:
            del self._open[next(iter(self._open))]
        word = secrets.token_urlsafe(32)
        self._open[_key(word)] = Session(user, stamp, secrets.token_urlsafe(32), now, now)
        return word

    def find(self, word: str) -> Session | None:
        """Return the session of a cookie, if it still lasts, and count it as used."""
        found = self._open.get(_key(word))
        now = self._clock()
        if found is None or self._over(found, now):
            self.end(word)
            return None
        found.seen = now
        return found

    def end(self, word: str) -> None:
        """End a session."""
        self._open.pop(_key(word), None)

    def _over(self, one: Session, now: float) -> bool:
        return now - one.seen >= self._idle or now - one.begun >= self._longest

    def _end_old(self, now: float) -> None:
        for key in [key for key, one in self._open.items() if self._over(one, now)]:
            del self._open[key]


def _key(word: str) -> bytes:
    return hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()
