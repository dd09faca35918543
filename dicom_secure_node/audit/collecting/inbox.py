"""What has been received and is not on the disk yet: small, and shared.

It is small on purpose: what is in it is lost when the machine loses its power, and a sender
that is not read from keeps its messages itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from dicom_secure_node.audit.collecting.records import Arrival

_OVERHEAD = 512  # octets a message costs beside its own


class Inbox:
    """Messages between those who receive and the one who writes.

    Parameters
    ----------
    octets : int
        How much may wait. One batch of a connection fits in any case, when nothing else waits.
    """

    def __init__(self, octets: int) -> None:
        self._limit = octets
        self._changed = threading.Condition()
        self._waiting: list[Arrival] = []
        self._octets = 0
        self._added = 0  # messages since the start
        self._settled = 0  # of them, on the disk
        self._held = False
        self._closed = False
        self._gave_up = False

    def put(self, arrivals: Sequence[Arrival]) -> int:
        """Add messages, waiting for room.

        Returns
        -------
        int
            For `wait_settled`; 0 when the inbox was closed before there was room.
        """
        size = _size(arrivals)
        with self._changed:
            while not self._closed and not self._room(size):
                self._changed.wait()
            return self._add(arrivals, size)

    def offer(self, arrivals: Sequence[Arrival]) -> bool:
        """Add messages if there is room; nobody waits."""
        size = _size(arrivals)
        with self._changed:
            return self._room(size) and self._add(arrivals, size) > 0

    def wait_settled(self, added: int) -> bool:
        """Wait until what was added up to then is on the disk; False when it never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._settled >= added or self._gave_up)
            return self._settled >= added

    def settle(self, number: int) -> None:
        """Take notice that the next `number` messages are on the disk."""
        with self._changed:
            self._settled += number
            self._changed.notify_all()

    def give_up(self) -> None:
        """Tell those who wait that nothing more will be written."""
        with self._changed:
            self._closed = self._gave_up = True
            self._changed.notify_all()

    def take(self, gather: float) -> list[Arrival]:
        """Wait for messages and return them all; none when the inbox is closed and empty.

        Parameters
        ----------
        gather : float
            Seconds to wait after the first, so that those that come with it share a write.
        """
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            deadline = time.monotonic() + gather
            while not self._closed and self._octets < self._limit // 4:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            taken, self._waiting, self._octets = self._waiting, [], 0
            self._changed.notify_all()
            return taken

    def hold(self, held: bool) -> None:
        """Let nobody add anything, or let them again: the disk takes nothing."""
        with self._changed:
            self._held = held
            self._changed.notify_all()

    @property
    def held(self) -> bool:
        """Return whether nobody may add anything."""
        with self._changed:
            return self._held

    def close(self) -> None:
        """Take nothing more; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _room(self, size: int) -> bool:
        if self._held or self._closed:
            return False
        return not self._waiting or self._octets + size <= self._limit

    def _add(self, arrivals: Sequence[Arrival], size: int) -> int:
        if self._closed:
            return 0
        first = not self._waiting
        before, self._octets = self._octets, self._octets + size
        self._waiting += arrivals
        if first or before < self._limit // 4 <= self._octets:
            self._changed.notify_all()
        self._added += len(arrivals)
        return self._added


def _size(arrivals: Sequence[Arrival]) -> int:
    return sum(len(one.raw) + _OVERHEAD for one in arrivals)
