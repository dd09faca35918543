"""An append-only journal with replay: what has been appended is on the disk.

Records are JSON objects, one a line, in segment files ``NAME-<first sequence number>.ndjson`` that
an engineer can read::

    {"seq": 41, "time": "2026-11-22T09:00:00.000Z", ...}

Rules, in order:

1. `Journal.append` returns when its line is on the disk (fdatasync). Threads that append at the
   same time share one write and one fdatasync.
2. When the write fails nothing of it stays: the segment is cut back to its last good length, the
   callers get `ServiceUnavailable`, and the next append tries again.
3. On opening, a line torn by a crash is cut off the last segment and counted. A damaged line with
   good ones after it stays where it is and is skipped when read.
4. Readers see durable records only. A reader's cursor is a small file that may lag behind:
   after a crash records are seen again, never missed.
5. One process at a time: the folder is locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicom_secure_node.durable.files import fsync_folder, make_folder, write_all, write_atomically
from dicom_secure_node.durable.reader import Reader
from dicom_secure_node.durable.segments import (
    Entry,
    Segment,
    check_format,
    encode,
    find_segments,
    number,
    recover,
    segment_path,
)
from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class _Batch:
    """Records that share one write; `first` is known once they are durable."""

    bodies: list[bytes] = field(default_factory=list)
    done: bool = False
    first: int = 0
    error: OSError | None = None


class Journal:
    """An append-only journal in a folder of its own or shared with journals of other names.

    Parameters
    ----------
    folder : Path
        Made if absent.
    name : str
        Begins the names of the files.
    service : str
        How errors call it, e.g. ``audit store``.
    segment_bytes : int
        A segment of at least this size is followed by a new one.

    Raises
    ------
    ServiceUnavailable
        The folder cannot be used, or another process (or journal object) uses it.
    ConfigurationError
        A newer release wrote it.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "journal",
        *,
        service: str = "journal",
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        if not name or "/" in name:
            raise ConfigurationError(f"journal name {name!r}, wanted a plain file name")
        self.folder = folder
        self.name = name
        self.service = service
        self.torn = 0  # lines cut off or skipped because a crash or the disk damaged them
        self._segment_bytes = segment_bytes
        self._changed = threading.Condition()
        self._collecting = _Batch()
        self._writing = False
        self._closed = False
        self._wakes = 0
        self._descriptor = -1
        try:
            make_folder(folder)
            self._lock = self._take_lock()
            try:
                check_format(folder, name)
                self._firsts = find_segments(folder, name)
                self._size, self._next = self._recover()
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as exc:
            raise ServiceUnavailable(service, f"{folder}: {exc.strerror or exc}") from exc

    # --- Appending ---

    def append(self, record: Mapping[str, Any] | bytes) -> int:
        """Append one record and return its sequence number; it is on the disk then.

        Parameters
        ----------
        record : mapping or bytes
            A mapping for JSON, or the text of a JSON object on one line, ready made. It has no
            key ``seq``; the journal adds it.

        Raises
        ------
        ServiceUnavailable
            The disk refused; nothing was kept.
        """
        return self.append_all((record,))

    def append_all(self, records: Sequence[Mapping[str, Any] | bytes]) -> int:
        """Append records with one write and return the number of the first; all are on the disk.

        They are numbered one after the other. A caller who is the only one to append knows the
        first number before: `next_sequence`.

        Raises
        ------
        ServiceUnavailable
            The disk refused; nothing was kept.
        """
        bodies = [encode(record) for record in records]
        with self._changed:
            batch = self._collecting
            index = len(batch.bodies)
            batch.bodies.extend(bodies)
            while self._writing and not batch.done:
                self._changed.wait()
            leading = not batch.done
            if leading:  # nobody writes: this thread does, for everybody who has joined
                self._writing = True
                self._collecting = _Batch()
        if leading:
            self._write(batch)
        if batch.error is not None:
            reason = batch.error.strerror or str(batch.error)
            raise ServiceUnavailable(self.service, reason) from batch.error
        return batch.first + index

    def _write(self, batch: _Batch) -> None:
        """Bring one batch to the disk and wake its threads, whatever happened."""
        size = 0
        try:
            size = self._write_lines(batch.bodies)
        except OSError as exc:
            logger.error("%s: cannot append: %s", self.service, exc)
            batch.error = exc
        except BaseException:  # ctrl-C in the thread that leads must not leave the others waiting
            batch.error = InterruptedError("append was interrupted")
            raise
        finally:
            with self._changed:
                if batch.error is None:
                    batch.first = self._next
                    self._next += len(batch.bodies)
                    self._size += size
                batch.done = True
                self._writing = False
                self._changed.notify_all()

    def _write_lines(self, bodies: list[bytes]) -> int:
        """Append the bodies as numbered lines; return the octets written, all on the disk."""
        descriptor = self._segment_for_writing()
        data = number(bodies, self._next)
        try:
            write_all(descriptor, data)
            os.fdatasync(descriptor)
        except BaseException:
            self._cut_back()
            raise
        return len(data)

    def _segment_for_writing(self) -> int:
        """Return the descriptor to append to; opens, heals or rotates the segment."""
        if self._closed:
            raise OSError(f"{self.service} is closed")
        if self._firsts and self._size < self._segment_bytes:
            if self._descriptor < 0:
                self._descriptor = self._open_again()
            return self._descriptor
        self._close_descriptor()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(self._path(self._next), flags, 0o640)
        try:
            fsync_folder(self.folder)
        except BaseException:
            os.close(descriptor)
            raise
        with self._changed:
            self._firsts.append(self._next)
            self._size = 0
        self._descriptor = descriptor
        return descriptor

    def _open_again(self) -> int:
        """Open the last segment; what a failed write left beyond its good length goes first."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path(self._firsts[-1]), flags)
        try:
            os.ftruncate(descriptor, self._size)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _cut_back(self) -> None:
        """Take back what a failed write left; failing that, opening again will."""
        try:
            os.ftruncate(self._descriptor, self._size)
            os.fdatasync(self._descriptor)
        except OSError:
            self._close_descriptor()

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Let the folder go. Waits for a write under way; later appends fail."""
        with self._changed:
            while self._writing:
                self._changed.wait()
            if self._closed:
                return
            self._closed = True
            self._close_descriptor()
            os.close(self._lock)
            self._changed.notify_all()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Reading ---

    @property
    def next_sequence(self) -> int:
        """Return the number the next record will get; all before it are durable."""
        with self._changed:
            return self._next

    @property
    def first_sequence(self) -> int:
        """Return the number of the oldest record kept, or `next_sequence` if there is none."""
        with self._changed:
            return self._firsts[0] if self._firsts else self._next

    def wait_for(self, sequence: int, seconds: float) -> bool:
        """Wait until record `sequence` is durable; False at the time-out, on close or `wake`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            wakes = self._wakes
            while self._next <= sequence:
                left = deadline - time.monotonic()
                if left <= 0 or self._closed or self._wakes != wakes:
                    return False
                self._changed.wait(left)
            return True

    def wake(self) -> None:
        """End every `wait_for`, so that the waiting threads see whether they should stop."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def read_from(self, sequence: int) -> Iterator[Entry]:
        """Yield the durable records from `sequence` (or the oldest kept) to the newest."""
        with Reader(self, sequence) as reader:
            while entries := reader.read(256):
                yield from entries

    def segments(self) -> tuple[Segment, ...]:
        """Return the segment files, oldest first."""
        with self._changed:
            firsts = tuple(self._firsts)
        found = []
        for first in firsts:
            path = self._path(first)
            with contextlib.suppress(FileNotFoundError):  # discarded meanwhile
                found.append(Segment(first, path, path.stat().st_mtime))
        return tuple(found)

    def segment_of(self, sequence: int) -> tuple[int, Path]:
        """Return first number and path of the segment that holds, or would hold, `sequence`."""
        with self._changed:
            first = self._firsts[max(0, bisect_right(self._firsts, sequence) - 1)]
        return first, self._path(first)

    def segment_after(self, first: int) -> int | None:
        """Return the first number of the segment after the one that begins with `first`."""
        with self._changed:
            index = bisect_right(self._firsts, first)
            return self._firsts[index] if index < len(self._firsts) else None

    def durable_length(self, first: int) -> int | None:
        """Return the durable octets of a segment; None: all of the file, it is finished."""
        with self._changed:
            return self._size if self._firsts and self._firsts[-1] == first else None

    def discard_before(self, sequence: int) -> int:
        """Delete the segments whose every record is before `sequence`; return how many.

        Raises
        ------
        ServiceUnavailable
            A file could not be deleted.
        """
        with self._changed:
            # A segment ends where the next begins; the last one stays to carry the number on.
            count = max(0, bisect_right(self._firsts, sequence) - 1)
            doomed, self._firsts = self._firsts[:count], self._firsts[count:]
        if not doomed:
            return 0
        try:
            for first in doomed:
                self._path(first).unlink(missing_ok=True)
            fsync_folder(self.folder)
        except OSError as exc:
            raise ServiceUnavailable(self.service, exc.strerror or str(exc)) from exc
        return count

    # --- Cursors ---

    def cursor(self, reader: str) -> int | None:
        """Return the stored cursor of `reader`: the number it wants next, or None.

        A cursor that cannot be read counts as 0: seen again is better than missed.
        """
        try:
            return int(self._cursor_path(reader).read_text("ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            logger.warning("%s: cursor of %r cannot be read: %s", self.service, reader, exc)
            return 0

    def store_cursor(self, reader: str, sequence: int) -> None:
        """Store the number `reader` wants next, atomically.

        Raises
        ------
        ServiceUnavailable
            The disk refused; the old cursor stands.
        """
        try:
            write_atomically(self._cursor_path(reader), b"%d\n" % sequence, 0o640)
        except OSError as exc:
            raise ServiceUnavailable(self.service, exc.strerror or str(exc)) from exc

    def _cursor_path(self, reader: str) -> Path:
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in reader)
        return self.folder / f"{self.name}.{safe}.cursor"

    # --- Opening ---

    def _path(self, first: int) -> Path:
        return segment_path(self.folder, self.name, first)

    def _take_lock(self) -> int:
        path = self.folder / f"{self.name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(descriptor)
            reason = f"{self.folder} is in use by another process"
            raise ServiceUnavailable(self.service, reason) from exc
        return descriptor

    def _recover(self) -> tuple[int, int]:
        """Mend the last segment; return its length and the number of the next record."""
        if not self._firsts:
            return 0, 1
        path = self._path(self._firsts[-1])
        found = recover(path, self._firsts[-1])
        self.torn = found.torn + found.damaged
        if found.torn:
            logger.warning("%s: cut a record torn by a crash off %s", self.service, path.name)
        if found.damaged:
            logger.error("%s: %d damaged lines in %s", self.service, found.damaged, path.name)
        return found.length, found.following
