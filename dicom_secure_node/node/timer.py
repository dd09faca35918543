"""pynetdicom's timer by a clock that nobody sets.

Its own asks for the time of day: when that is put right by more than a time-out, idle associations
are cut off, or stay for as long as it was put back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pynetdicom.timer import Timer


class SteadyTimer(Timer):
    """`Timer` by a monotonic clock.

    Parameters
    ----------
    timeout : float or None
        Seconds; None never expires.
    clock : callable
        Returns seconds that only ever grow.
    """

    def __init__(self, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(timeout)
        self._clock = clock

    @property
    def remaining(self) -> float:
        """Return the seconds that are left; 1 when the timer never expires."""
        if self.timeout is None:
            return 1
        if self._start_time is None:
            return self.timeout
        end = self._clock() if self._end_time is None else self._end_time
        return self.timeout - (end - self._start_time)

    def start(self) -> None:
        """Reset the timer and start it."""
        self._start_time, self._end_time = self._clock(), None

    def stop(self) -> None:
        """Stop the timer where it is."""
        self._end_time = self._clock()
