"""A place in a journal that moves forward over its durable records."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dicom_secure_node.durable.segments import Entry, sequence_of
from dicom_secure_node.errors import ServiceUnavailable

if TYPE_CHECKING:
    from dicom_secure_node.durable.journal import Journal

_READ_BYTES = 256 * 1024


class Reader:
    """A place in the journal that moves forward; one thread at a time."""

    def __init__(self, journal: Journal, sequence: int) -> None:
        self._journal = journal
        self._descriptor = -1
        self._segment = 0  # first number of the segment that is open
        self._offset = 0  # octets of it read so far
        self._lines = b""  # octets read and not yet taken, from _position on
        self._position = 0
        self._finished = False  # nothing will be appended to the segment that is open
        self.seek(sequence)

    @property
    def next_sequence(self) -> int:
        """Return the number of the record the reader has not seen yet."""
        return self._next

    def seek(self, sequence: int) -> None:
        """Move so that `sequence` is read next, or the oldest record kept if that is later."""
        self._close_file()
        self._next = max(sequence, self._journal.first_sequence)

    def read(self, limit: int) -> list[Entry]:
        """Return up to `limit` further durable records, in order; empty at the end.

        Raises
        ------
        ServiceUnavailable
            A segment cannot be read.
        """
        end = self._journal.next_sequence
        entries: list[Entry] = []
        try:
            while len(entries) < limit and self._next < end:
                entry = self._step(end)
                if entry is not None:
                    entries.append(entry)
        except OSError as exc:
            self._close_file()
            reason = exc.strerror or str(exc)
            raise ServiceUnavailable(self._journal.service, reason) from exc
        return entries

    def _step(self, end: int) -> Entry | None:
        """Take one line of the segment `_next` is in; None where it holds nothing for us."""
        if self._descriptor < 0:
            self._open()
        stop = self._lines.find(b"\n", self._position)
        if stop < 0:
            if not self._fill():
                # The end of this segment. Numbers missing before the next one were damaged.
                following = self._journal.segment_after(self._segment) if self._finished else None
                self._next = max(self._next, end if following is None else following)
                self._close_file()
            return None
        line = self._lines[self._position : stop + 1]
        self._position = stop + 1
        sequence = sequence_of(line)
        if sequence is None or sequence < self._next:
            return None
        self._next = sequence + 1
        return Entry(sequence, line[:-1])

    def _open(self) -> None:
        self._segment, path = self._journal.segment_of(self._next)
        self._next = max(self._next, self._segment)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset, self._position, self._lines = 0, 0, b""

    def _fill(self) -> bool:
        """Read further octets, none beyond what is durable; False at the end."""
        durable = self._journal.durable_length(self._segment)
        self._finished = durable is None
        wanted = _READ_BYTES if durable is None else min(_READ_BYTES, durable - self._offset)
        more = os.pread(self._descriptor, wanted, self._offset) if wanted > 0 else b""
        self._lines = self._lines[self._position :] + more
        self._position = 0
        self._offset += len(more)
        return bool(more)

    def _close_file(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Close the file under the reader."""
        self._close_file()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
