"""The log: append-only, durable when it says so, each line tied to all before it.

Rules, in order:

1. `RecordLog.append` returns when its messages are on the disk; when the disk refuses, nothing of
   them is kept.
2. Nothing is ever changed or removed but by `discard_before`, in whole segments from the
   oldest on, and only after a note that says so, with the hash of the last one deleted, is on the
   disk in the log itself. That note ties what is left to what was.
3. Every start and stop is noted, and so is what a start finds missing (`note_lost`).
4. One process writes.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dicom_secure_node.audit.collecting import chain, files
from dicom_secure_node.audit.collecting.records import Arrival, Head, Lost
from dicom_secure_node.durable.files import kept_name
from dicom_secure_node.durable.journal import SEGMENT_BYTES, Journal
from dicom_secure_node.errors import ServiceUnavailable

SERVICE = "audit repository log"


class RecordLog:
    """The log, opened for writing.

    Parameters
    ----------
    folder : Path
        Made if absent; locked against a second process.
    now : datetime
        For the note of a new log.
    segment_bytes : int
        A file of at least this size is followed by a new one; retention deletes whole files.

    Attributes
    ----------
    identity : str
        Random, made with the log: an index belongs to one log.

    Raises
    ------
    ServiceUnavailable
        The folder cannot be used, or another process writes there.
    """

    def __init__(self, folder: Path, now: datetime, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        # Notes come from other threads than messages: numbers and hashes are handed out in turn.
        self._turn = threading.Lock()
        self._journal = Journal(folder, files.NAME, service=SERVICE, segment_bytes=segment_bytes)
        try:
            last = files.last_line(folder)
            self._chain = chain.GENESIS if last is None else last.chain
            self.identity = kept_name(folder / f"{files.NAME}.id")
            if last is None:
                self.note("begin", now, {"log": self.identity})
        except OSError as exc:
            self._journal.close()
            raise ServiceUnavailable(SERVICE, f"{folder}: {exc.strerror or exc}") from exc
        except BaseException:
            self._journal.close()
            raise

    @property
    def head(self) -> Head:
        """Return number and hash of the last line."""
        with self._turn:
            return Head(self._journal.next_sequence - 1, self._chain)

    def append(self, arrivals: Sequence[Arrival]) -> Head:
        """Append messages in order and return the new head; they are on the disk then.

        Raises
        ------
        ServiceUnavailable
            The disk refused; none was kept.
        """
        return self._append([chain.message_fields(one) for one in arrivals])

    def note(self, note: str, at: datetime, facts: Mapping[str, Any] | None = None) -> Head:
        """Append one of the log's own notes."""
        return self._append([chain.note_fields(note, at, facts or {})])

    def note_lost(self, at: datetime, lost: Lost) -> Head:
        """Note that an index knew records that are not, or no longer, in the log."""
        facts = {"first": lost.agreed.sequence + 1, "last": lost.known.sequence}
        return self.note("lost", at, {**facts, "head": lost.known.chain})

    def _append(self, bodies: Sequence[bytes]) -> Head:
        with self._turn:
            first = self._journal.next_sequence
            before, sealed = self._chain, []
            for number, fields in enumerate(bodies, first):
                before = chain.link(before, chain.head_of(number, fields))
                sealed.append(chain.sealed(fields, before))
            self._journal.append_all(sealed)
            self._chain = before
            return Head(first + len(bodies) - 1, before)

    def discard_before(self, oldest: datetime, now: datetime) -> int:
        """Delete the segments in which every record is older than `oldest`.

        Returns
        -------
        int
            Number of the last record deleted, 0 where nothing was old enough.

        Raises
        ------
        ServiceUnavailable
            The disk refused the note (nothing is deleted) or the deletion (it is tried again).
        """
        firsts = [part.first for part in self._journal.segments()]
        limit = chain.instant(oldest)
        last = 0
        for _, following in itertools.pairwise(firsts):
            # Everything before a record that is old is older.
            line = files.first_line(self.folder, following)
            if line is None or str(line.facts.get("at", "")) >= limit or not line.facts.get("at"):
                break
            last = following - 1
        if not last:
            return 0
        end = files.last_line(self.folder, last + 1)
        facts = {"first": firsts[0], "last": last, "head": end.chain if end else ""}
        self.note("deleted", now, {**facts, "log": self.identity})
        self._journal.discard_before(last + 1)
        return last

    def close(self) -> None:
        """Let the folder go."""
        self._journal.close()
