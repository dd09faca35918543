"""How much of what peers send is held in memory at a time, over all associations."""

from __future__ import annotations

import threading


class MemoryBudget:
    """Counts bytes of data sets that wait in memory for an application; for all threads.

    Data sets that go to the archive are no concern of it: they are on the disk.

    Parameters
    ----------
    total : int
        Bytes.

    Attributes
    ----------
    left : int
        Bytes for which there is room.
    """

    def __init__(self, total: int) -> None:
        self.left = total
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Count `count` bytes more; False when there is no room for them."""
        with self._lock:
            if count > self.left:
                return False
            self.left -= count
            return True

    def give_back(self, count: int) -> None:
        """Count `count` bytes less."""
        with self._lock:
            self.left += count
