"""The repository's records as one thing: append, search, verify, delete the oldest.

Whoever collects opens it with ``writing``; whoever reads needs no more than the folder, and may
read while another process writes. Reading changes nothing::

    with RecordStore(folder) as store:
        for record in store.query(Filter(failures=True, user="ada*"), limit=50):
            print(record.sequence, record.received_at, record.summary.event)
        older = store.query(Filter(failures=True, user="ada*"), before=record.sequence, limit=50)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicom_secure_node.audit.collecting import chain, files, index, verify
from dicom_secure_node.audit.collecting.index import Index, Row
from dicom_secure_node.audit.collecting.log import RecordLog
from dicom_secure_node.audit.collecting.postgres import PostgresIndex
from dicom_secure_node.audit.collecting.records import (
    Arrival,
    Count,
    Filter,
    Finding,
    Head,
    Record,
    Status,
)
from dicom_secure_node.audit.collecting.repeats import Repeats
from dicom_secure_node.audit.collecting.sqlite import SQLiteIndex
from dicom_secure_node.durable.journal import SEGMENT_BYTES
from dicom_secure_node.errors import ConfigurationError, InvalidInput, ServiceUnavailable

PAGE = 256


def open_index(folder: Path, url: str = "", *, writing: bool = False) -> Index:
    """Return the index of a log: at a PostgreSQL URL, or beside the log in SQLite.

    Raises
    ------
    ConfigurationError
        The URL is of another kind.
    MissingExtra
        PostgreSQL without its package.
    ServiceUnavailable
        It cannot be reached, or, for reading, there is none yet.
    """
    if not url:
        return SQLiteIndex(folder / "index.sqlite", writing=writing)
    if url.partition("://")[0] not in ("postgresql", "postgres"):
        # The URL may hold a password: it is not repeated.
        raise ConfigurationError("found a URL of another kind, wanted postgresql://...", "index")
    return PostgresIndex(url, writing=writing)


class RecordStore:
    """The records in a folder.

    Parameters
    ----------
    folder : Path
        Of the log.
    index_url : str
        ``postgresql://...``; empty for SQLite in the folder.
    writing : bool
        Whether to append; one process at a time. Made if absent then.
    keep_days : float
        What `discard_old` leaves; 0 keeps everything.
    segment_bytes : int
        Size of the log's files; the oldest are deleted as a whole.
    clock : callable
        Returns the time, aware.

    Raises
    ------
    ServiceUnavailable
        The folder cannot be used, or another process writes there.
    """

    def __init__(
        self,
        folder: Path,
        index_url: str = "",
        *,
        writing: bool = False,
        keep_days: float = 0,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = folder
        self.index_url = index_url
        self._keep = timedelta(days=keep_days)
        self._clock = clock
        self._index: Index | None = None
        self._log = RecordLog(folder, clock(), segment_bytes=segment_bytes) if writing else None

    # --- writing ---

    def append(self, arrivals: Sequence[Arrival]) -> Head:
        """Keep messages, in order; they are on the disk when this returns.

        Returns
        -------
        Head
            Number and hash of the last one.

        Raises
        ------
        ServiceUnavailable
            The disk refused; none was kept.
        """
        return self.log.append(arrivals)

    def discard_old(self) -> int:
        """Delete what is older than `keep_days`, in whole files from the oldest on.

        Returns
        -------
        int
            Number of the last record deleted, 0 where there was nothing to delete.
        """
        if not self._keep:
            return 0
        now = self._clock()
        return self.log.discard_before(now - self._keep, now)

    @property
    def log(self) -> RecordLog:
        """Return the log, opened for writing."""
        if self._log is None:
            raise ServiceUnavailable("audit repository log", "opened for reading only")
        return self._log

    # --- reading ---

    def query(
        self, asked: Filter | None = None, *, before: int | None = None, limit: int | None = None
    ) -> Iterator[Record]:
        """Yield the records that match, newest first.

        Parameters
        ----------
        before : int, optional
            Only records with smaller numbers: the last one of a page, for the next page.
        limit : int, optional
            At most so many.

        Raises
        ------
        ServiceUnavailable
            The index cannot be asked.
        """
        left = limit
        while left is None or left > 0:
            wanted = PAGE if left is None else min(PAGE, left)
            found = index.rows(self._ask(), asked or Filter(), before, wanted)
            for row, octets in zip(
                found, files.read_at(self.folder, (row.spot for row in found)), strict=True
            ):
                before = row.sequence
                if octets is not None:  # else deleted meanwhile
                    yield _record(row, octets)
                    left = left if left is None else left - 1
            if len(found) < wanted:
                return

    def get(self, sequence: int) -> Record | None:
        """Return one record by its number, or None."""
        found = next(self.query(before=sequence + 1, limit=1), None)
        return found if found is not None and found.sequence == sequence else None

    def counts(
        self, asked: Filter | None = None, span: timedelta = timedelta(hours=1)
    ) -> list[Count]:
        """Return how many records match in each span of time that has any, oldest first.

        Spans are counted from the epoch in UTC: of a day begins at midnight UTC.
        """
        return list(index.counts(self._ask(), asked or Filter(), span))

    def events(self, asked: Filter | None = None) -> list[tuple[str, int]]:
        """Return the codes of EventID among the records that match, with their numbers."""
        return index.events(self._ask(), asked or Filter())

    def head(self) -> Head:
        """Return number and hash of the last record, as the log has it now."""
        if self._log is not None:
            return self._log.head
        line = files.last_line(self.folder)
        return Head(line.sequence, line.chain) if line else Head(0, chain.GENESIS)

    def first(self) -> int:
        """Return the number of the oldest record kept; 1 in an empty log."""
        return next(iter(files.segments(self.folder)), 1)

    def status(self) -> Status:
        """Return how far log and index have come."""
        return Status(self.first(), self.head().sequence, self._ask().head().sequence)

    def verify(
        self,
        expected: Iterable[Head] = (),
        *,
        indexed: bool = True,
        repeats: Repeats | None = None,
    ) -> Iterator[Finding]:
        """Yield everything that is wrong with log and index.

        Parameters
        ----------
        expected : iterable of Head
            Heads that were noted elsewhere: all before each has to be what it was then.
        indexed : bool
            Compare the index as well, which judges each message once more.
        repeats : Repeats, optional
            Is shown every message, in order.
        """
        yield from verify.verify(self.folder, expected, self._ask() if indexed else None, repeats)

    def _ask(self) -> Index:
        if self._index is None:
            self._index = open_index(self.folder, self.index_url)
        return self._index

    def close(self) -> None:
        """Let log and index go."""
        if self._log is not None:
            self._log.close()
        if self._index is not None:
            self._index.close()
            self._index = None

    def __enter__(self) -> RecordStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _record(row: Row, octets: bytes) -> Record:
    """Return the record at a row's place; what the log has there is shown, not the index."""
    try:
        line = chain.parse(octets.removesuffix(b"\n"))
        arrival = line.arrival()
        intact = line.sequence == row.sequence and line.chain == row.chain
    except InvalidInput:
        arrival = Arrival(b"", index.moment(row.received), "", "")
        intact = False
    return Record(
        row.sequence,
        arrival.raw,
        arrival.received_at,
        arrival.peer,
        arrival.transport,
        arrival.sender,
        row.chain,
        row.valid,
        row.rules,
        intact,
    )
