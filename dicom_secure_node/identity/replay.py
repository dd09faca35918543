"""What may be used once, and has been.

A note is kept until the thing would be refused for its age anyway, also across a restart: the
notes are a journal in a folder (see `durable.journal`), on the disk before a use is allowed.
Keys are digests, so that the folder gives nothing away. Memory is bounded: when there are
too many live notes nobody comes in, rather than anybody twice.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from dicom_secure_node.durable.journal import Journal
from dicom_secure_node.errors import LimitReached

logger = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


class Uses(Protocol):
    """What a back-end needs of `ReplayStore`, which may be in another process."""

    def use(self, key: str, until: datetime) -> bool: ...

    def close(self) -> None: ...


class ReplayStore:
    """Remembers what was used; one object serves all threads.

    Parameters
    ----------
    folder : Path or None
        Where the notes are kept, made if absent and locked against other processes; None keeps
        them in memory only, and a restart forgets them.
    clock : callable
        Returns the time, aware.
    capacity : int
        Live notes to hold at most.
    segment_bytes : int
        Size of a file, about 130 bytes a note; files are deleted whole, when all in them is over.

    Raises
    ------
    ServiceUnavailable
        The folder cannot be used.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
        capacity: int = 100_000,
        segment_bytes: int = 256 * 1024,
    ) -> None:
        self._clock = clock
        self._capacity = capacity
        self._lock = threading.Lock()
        self._used: set[str] = set()
        self._ends: list[tuple[datetime, str]] = []  # a heap
        self._segments: dict[int, datetime] = {}  # first number: when its last note ends
        self._journal: Journal | None = None
        if folder is not None:
            self._journal = Journal(
                folder, "used", service="replay store", segment_bytes=segment_bytes
            )
            self._read_back(self._journal)

    def __len__(self) -> int:
        with self._lock:
            return len(self._used)

    def use(self, key: str, until: datetime) -> bool:
        """Note the use of `key`, and tell whether it is the first.

        Parameters
        ----------
        key : str
            What is used; of any length, and not kept itself.
        until : datetime
            Aware; from then on `key` is refused elsewhere and may be forgotten.

        Raises
        ------
        LimitReached
            There is no room for another note.
        ServiceUnavailable
            The disk refused; nothing was noted.
        """
        digest = hashlib.sha256(key.encode()).hexdigest()
        with self._lock:
            self._forget()
            if digest in self._used:
                return False
            if len(self._used) >= self._capacity:
                raise LimitReached("too many assertions or tokens in use at a time")
            self._add(digest, until)
        if self._journal is not None:
            try:
                number = self._journal.append({"key": digest, "until": until.isoformat()})
            except BaseException:
                with self._lock:
                    self._used.discard(digest)
                raise
            with self._lock:
                self._note_segment(self._journal, number, until)
        return True

    def close(self) -> None:
        """Let the folder go."""
        if self._journal is not None:
            self._journal.close()

    def _add(self, digest: str, until: datetime) -> None:
        self._used.add(digest)
        heapq.heappush(self._ends, (until, digest))

    def _forget(self) -> None:
        """Drop what is over, from memory and, a segment at a time, from the disk."""
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            self._used.discard(heapq.heappop(self._ends)[1])
        if self._journal is None:
            return
        firsts = sorted(self._segments)
        for first, following in itertools.pairwise(firsts):
            if self._segments[first] > now:
                break
            self._journal.discard_before(following)
            del self._segments[first]

    def _note_segment(self, journal: Journal, number: int, until: datetime) -> None:
        first, _ = journal.segment_of(number)
        self._segments[first] = max(until, self._segments.get(first, until))

    def _read_back(self, journal: Journal) -> None:
        now = self._clock()
        for entry in journal.read_from(journal.first_sequence):
            try:
                record = entry.record()
                digest, until = str(record["key"]), datetime.fromisoformat(record["until"])
            except (ValueError, KeyError, TypeError):
                logger.warning("replay store: record %d cannot be read", entry.sequence)
                continue
            self._note_segment(journal, entry.sequence, until)
            if until > now:
                self._add(digest, until)
