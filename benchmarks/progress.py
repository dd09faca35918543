"""How far a run is, for who waits."""

from __future__ import annotations

import shutil
import sys
import time


class Progress:
    """Tells on stderr of each step: on one line of a terminal, else on a line of its own."""

    def __init__(self) -> None:
        self.steps = 0  # in all; 0: nobody knows
        self._done = 0
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._start

    def step(self, text: str) -> None:
        """Tell of one more step that is done."""
        self._done += 1
        of = f" of {self.steps}" if self.steps else ""
        self._say(f"[{self._done}{of}, {minutes(self.seconds)}] {text}")

    def end(self) -> None:
        """Leave the line of the terminal free."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")

    def _say(self, line: str) -> None:
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\033[K{line[:width]}")
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def minutes(seconds: float) -> str:
    """Return a time as ``3:07``, in minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
