"""Rows on their way into the index: many in one transaction, a moment after their files.

A commit costs as much as receiving a small instance. The file is what is acknowledged, and the
index is made from the files; after a crash the next start adds the rows that are missing, as it
does after a power cut (see `docs/decisions/0014-rows-follow-their-files.md`).
"""

from __future__ import annotations

import logging
import threading

from dicom_secure_node.archive.index import Entry, Index
from dicom_secure_node.errors import ServiceUnavailable

logger = logging.getLogger(__name__)

_GATHER_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_MOST = 4096  # rows that may wait; then whoever adds one writes


class PendingRows:
    """Adds rows to an index, soon; safe to use from any thread.

    Whoever reads the index calls `flush` first, and sees everything that was added.

    Parameters
    ----------
    index : Index

    Attributes
    ----------
    in_trouble : bool
        The index could not be written: rows are kept, and `add` raises until it can.
    """

    def __init__(self, index: Index) -> None:
        self.in_trouble = False
        self._index = index
        self._rows: list[Entry] = []
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._closed = False
        self._writer: threading.Thread | None = None  # none before a fork

    def add(self, entry: Entry) -> None:
        """Take a row.

        Raises
        ------
        ServiceUnavailable
            Rows taken before cannot be written; this one is kept, too. Or the index is closed.
        """
        with self._changed:
            if self._closed:  # nobody would write it
                raise ServiceUnavailable("archive index", "closed")
            self._rows.append(entry)
            if not self.in_trouble and len(self._rows) < _MOST:
                if self._writer is None:
                    self._start()
                elif len(self._rows) == 1:
                    self._changed.notify_all()
                return
        self.flush()

    def flush(self) -> None:
        """Write what is there.

        Raises
        ------
        ServiceUnavailable
            It cannot be written, and is kept.
        """
        with self._writing:  # one after the other, and nobody returns before the other is done
            with self._changed:
                rows, self._rows = self._rows, []
            if not rows:
                return
            try:
                self._index.add(rows)
            except BaseException:
                with self._changed:
                    self._rows[:0] = rows
                    self.in_trouble = True
                raise
            self.in_trouble = False

    def close(self) -> None:
        """Write what is there and take no more.

        Raises
        ------
        ServiceUnavailable
            It cannot be written.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join()
        self.flush()

    def _start(self) -> None:
        self._writer = threading.Thread(target=self._write, name="archive index", daemon=True)
        self._writer.start()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._rows or self._closed)
                pause = _RETRY_SECONDS if self.in_trouble else _GATHER_SECONDS
                if self._changed.wait_for(lambda: self._closed, pause):
                    return
            try:
                self.flush()
            except ServiceUnavailable as exc:
                logger.error("rows are kept until the index can be written: %s", exc)
