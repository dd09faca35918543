"""What a verb needs that runs until it is told to stop: signals, and a log on stderr."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
import warnings
from copy import copy

from dicom_secure_node.commands.output import one_line

_LOOK_SECONDS = 0.5
_M_ARENA_MAX, _ARENAS = -8, 2  # of mallopt(3)


class Signals:
    """The signals that end a program, as something to wait for."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._number = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def _take(self, number: int, _: object) -> None:
        self._number = number
        self._arrived.set()
        signal.signal(number, signal.SIG_DFL)  # the second one means it

    @property
    def arrived(self) -> bool:
        """Return whether there was one."""
        return self._arrived.is_set()

    def wait(self) -> int:
        """Return the number of the first signal."""
        # A signal between Python's last look and the system call that waits interrupts nothing:
        # without an end to the wait it would not be seen before the next one.
        while not self._arrived.wait(_LOOK_SECONDS):
            pass
        return self._number


def keep_memory_together() -> None:
    """Have the C library serve all threads from two arenas; before there are any threads.

    By default it makes up to eight for each core. An association is a thread, so each arena would
    grow to the most an association ever needed, and stay there. An administrator's own choice,
    MALLOC_ARENA_MAX, stands.
    """
    call = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc
    if call is not None and "MALLOC_ARENA_MAX" not in os.environ:
        call(_M_ARENA_MAX, _ARENAS)


def log_to_stderr(verbose: bool) -> None:
    """Log this package to stderr, one line a record."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
    # Python remembers each text it has warned with, and a peer chooses the texts.
    warnings.filterwarnings("ignore", module="pydicom")
    # The node reports refusals itself, with their reasons; these repeat what peers send.
    for name in ("pynetdicom", "pydicom", "py.warnings"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.CRITICAL)


class _OneLine(logging.Formatter):
    """Escapes control characters: a peer's text cannot forge lines of the log."""

    def format(self, record: logging.LogRecord) -> str:
        clean = copy(record)
        clean.msg, clean.args = one_line(record.getMessage()), ()
        return super().format(clean)
