"""Floods of alerts, tamed: the first of a kind at once, the rest as one sum (PS3.15 A.5.3.11).

A peer can cause an alert with every connection it opens. Each alert costs a durable write and a
place in the spool, so a flood must neither stop the node nor push other messages out.

Rules, in order:

1. The first alert of a key is let through and opens a window of `window` seconds.
2. Further ones of that key within the window are counted, and `due` gives their sum when it ends;
   after a sum the window starts anew, so a lasting flood gives one sum a window.
3. A peer that varies the description shares one key per kind and address after `texts` of them.
4. Memory is bounded: beyond `keys` keys everything is counted under one key per kind,
   ``MANY_ADDRESSES``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

Key = tuple[str, str, str]  # code value of the kind, address, description

MANY_REASONS = "further alerts for various reasons"
MANY_ADDRESSES = "further alerts from many addresses"


@dataclass(frozen=True, slots=True)
class Summary:
    """Alerts that were counted in place of being reported.

    Attributes
    ----------
    key : (str, str, str)
        Kind, address and description; the address is empty for `MANY_ADDRESSES`.
    since : datetime
        When the window began, UTC.
    """

    key: Key
    count: int
    since: datetime


@dataclass(slots=True)
class _Window:
    since: datetime
    count: int = 0


class AlertLimiter:
    """Lets the first alert of a key through and counts the rest; safe to share by threads.

    Parameters
    ----------
    clock : callable
        Returns the time, aware.
    window : float
        Seconds.
    keys : int
        Distinct keys remembered.
    texts : int
        Distinct descriptions of one kind and address.
    """

    def __init__(
        self,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        window: float = 60,
        keys: int = 1024,
        texts: int = 8,
    ) -> None:
        self._clock = clock
        self._window = timedelta(seconds=window)
        self._keys = keys
        self._texts = texts
        self._lock = threading.Lock()
        self._open: dict[Key, _Window] = {}
        self._described: Counter[tuple[str, str]] = Counter()

    def admit(self, key: Key) -> bool:
        """Return True when the alert is to be reported now, False when it has been counted."""
        now = self._clock()
        with self._lock:
            found = self._open.get(key)
            if found is None:
                key, alone = self._room_for(key)
                if alone:
                    self._start(key, now)
                    return True
                found = self._open.get(key) or self._start(key, now)
            elif found.count == 0 and now - found.since >= self._window:
                found.since = now  # nothing was held back: the same as new
                return True
            found.count += 1
            return False

    def due(self, *, everything: bool = False) -> list[Summary]:
        """Return the sums whose window has ended; with `everything` those still open too."""
        now = self._clock()
        sums = []
        with self._lock:
            for key, window in list(self._open.items()):
                if not everything and now - window.since < self._window:
                    continue
                if window.count:
                    sums.append(Summary(key, window.count, window.since))
                    window.since, window.count = now, 0
                else:
                    self._forget(key)
        return sums

    def _room_for(self, key: Key) -> tuple[Key, bool]:
        """Return the key to count a new alert under, and whether it has that for itself."""
        kind, address, _ = key
        if len(self._open) >= self._keys:
            return (kind, "", MANY_ADDRESSES), False
        if self._described[kind, address] >= self._texts:
            return (kind, address, MANY_REASONS), False
        return key, True

    def _start(self, key: Key, now: datetime) -> _Window:
        window = self._open[key] = _Window(now)
        self._described[key[:2]] += 1
        return window

    def _forget(self, key: Key) -> None:
        del self._open[key]
        self._described[key[:2]] -= 1
        if not self._described[key[:2]]:
            del self._described[key[:2]]
