"""The process that indexes, as the collector sees it: kept running, told where the log ends."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from typing import Any

from dicom_secure_node.audit.collecting import indexer
from dicom_secure_node.audit.collecting.records import Lost
from dicom_secure_node.audit.collecting.store import RecordStore

logger = logging.getLogger(__name__)

_TELL_SECONDS = 0.05
_BACK_OFF = (0.5, 2.0, 10.0, 30.0)
_STEADY_SECONDS = 60.0


class Indexing:
    """Keeps an `indexer` process running.

    Parameters
    ----------
    judges : int
        How many processes judge.
    lost : callable
        Told what the index knows better than the log.
    """

    def __init__(self, store: RecordStore, judges: int, lost: Callable[[Lost], None]) -> None:
        self._store = store
        self._judges = judges
        self._lost = lost
        self._stopping = threading.Event()
        self._moved = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-indexing")
        # spawn: a fork would take locks along that other threads hold.
        self._spawn = multiprocessing.get_context("spawn")

    def start(self) -> None:
        """Start the process."""
        self._moved.set()
        self._thread.start()

    def moved(self) -> None:
        """Take notice that the log has grown."""
        self._moved.set()

    def stop(self) -> None:
        """End the process after the batch it is at; the rest is indexed after the next start."""
        self._stopping.set()
        self._moved.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            begun = time.monotonic()
            code = self._serve()
            if self._stopping.is_set():
                return
            steady = time.monotonic() - begun > _STEADY_SECONDS
            failures = 0 if steady else failures + 1
            seconds = _BACK_OFF[min(failures, len(_BACK_OFF) - 1)]
            logger.error("the process that indexes ended (%s), again in %g s", code, seconds)
            self._stopping.wait(seconds)

    def _serve(self) -> int | None:
        """Run one process to its end and return its exit code."""
        ours, theirs = self._spawn.Pipe()
        store = self._store
        process = self._spawn.Process(
            target=indexer.main,
            args=(store.folder, store.index_url, store.log.identity, self._judges, theirs),
            name="audit-indexer",
        )
        process.start()
        theirs.close()
        try:
            self._tell(ours)
            ours.send(None)
        except (EOFError, OSError):
            pass  # it is gone
        finally:
            process.join(10)
            if process.exitcode is None:
                process.terminate()
                process.join()
            ours.close()
        return process.exitcode

    def _tell(self, ours: Any) -> None:
        """Pass ends of the log down and what was lost up, until told to stop or it is gone."""
        told = None
        while not self._stopping.is_set():
            self._moved.wait(1.0)
            self._moved.clear()
            head = self._store.log.head
            if head != told:
                ours.send(head)
                told = head
            while ours.poll():
                self._lost(ours.recv())
            self._stopping.wait(_TELL_SECONDS)
