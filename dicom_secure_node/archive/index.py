"""The index of an archive: SQLite, and never the only place where anything is known.

A row may be missing after a power cut (the write-ahead log is not synced at each commit),
never wrong: the archive compares it with the files when the last end was not a clean one.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable

# One script for each step of the schema; PRAGMA user_version counts those that were run.
# Never change one that was released, append.
MIGRATIONS = (
    """
    CREATE TABLE instance (
        sop_instance TEXT NOT NULL,
        version INTEGER NOT NULL,
        sop_class TEXT NOT NULL,
        study TEXT NOT NULL,
        series TEXT NOT NULL,
        modality TEXT NOT NULL,
        study_date TEXT NOT NULL,
        study_description TEXT NOT NULL,
        accession TEXT NOT NULL,
        patient_id TEXT NOT NULL,
        patient_name TEXT NOT NULL,
        path TEXT NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        digest TEXT NOT NULL,
        transfer_syntax TEXT NOT NULL,
        calling_ae TEXT NOT NULL,
        called_ae TEXT NOT NULL,
        peer_address TEXT NOT NULL,
        peer_subject TEXT,
        tls TEXT,
        identity TEXT,
        association_id TEXT NOT NULL,
        listener TEXT NOT NULL,
        received_at TEXT NOT NULL,
        audited INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (sop_instance, version)
    );
    """,
    """
    CREATE INDEX instance_study ON instance (study, series);
    CREATE INDEX instance_unaudited ON instance (association_id) WHERE NOT audited;
    """,
    "ALTER TABLE instance ADD COLUMN findings TEXT",
)

_BUSY_SECONDS = 30  # another process of the node is writing


@dataclass(frozen=True)
class Entry:
    """One row: an instance, or one version of it.

    Attributes
    ----------
    version : int
        1 for the first bytes received under this UID.
    path : str
        Relative to the archive's folder.
    size : int
        Bytes of the data set.
    digest : str
        SHA-256 of the data set, hex.
    audited : bool
        Its arrival is in the audit trail.
    findings : mapping or None
        What the gates found out about it on arrival, JSON values; None where nobody looked. They
        are not in the file, so an index made anew has none.

    The others are those of `Provenance` and `Keys`.
    """

    sop_instance: str
    version: int
    sop_class: str
    study: str
    series: str
    modality: str
    study_date: str = field(repr=False)
    study_description: str = field(repr=False)
    accession: str = field(repr=False)
    patient_id: str = field(repr=False)
    patient_name: str = field(repr=False)
    path: str
    size: int
    digest: str
    transfer_syntax: str
    calling_ae: str
    called_ae: str
    peer_address: str
    peer_subject: str | None
    tls: Mapping[str, str | None] | None
    identity: str | None
    association_id: str
    listener: str
    received_at: datetime
    audited: bool = False
    findings: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Study:
    """One line of a list of studies."""

    study: str
    patient_id: str = field(repr=False)
    patient_name: str = field(repr=False)
    accession: str = field(repr=False)
    study_date: str = field(repr=False)
    study_description: str = field(repr=False)
    series: int
    instances: int
    size: int
    last_received: datetime


@dataclass(frozen=True)
class Unaudited:
    """Instances of one study that one association brought and no audit message tells of.

    Attributes
    ----------
    sop_classes : mapping
        SOP Class UID to the number of instances.
    first : Entry
        One of them: for the patient, the peer and the rest that they share.
    """

    association_id: str
    study: str
    sop_classes: Mapping[str, int]
    first: Entry

    @property
    def instances(self) -> int:
        """Return how many there are."""
        return sum(self.sop_classes.values())


@dataclass(frozen=True)
class Counts:
    """How much there is; `size` in bytes of data sets."""

    patients: int
    studies: int
    series: int
    instances: int
    size: int


_COLUMNS = tuple(f.name for f in fields(Entry))
_INSERT = (
    f"INSERT INTO instance ({', '.join(_COLUMNS)}) "  # noqa: S608 - our own column names
    f"VALUES ({', '.join('?' * len(_COLUMNS))})"
)
# Another process may have found the file before its row was written: what the gates found out is
# in no file, so such a row lacks it.
_ADD = (
    f"{_INSERT} ON CONFLICT (sop_instance, version) DO UPDATE SET findings = excluded.findings "
    "WHERE findings IS NULL AND association_id = excluded.association_id ON CONFLICT DO NOTHING"
)
_VALUES, _TLS = attrgetter(*_COLUMNS), _COLUMNS.index("tls")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM instance"  # noqa: S608


class Index:
    """The rows of one archive; safe to use from any thread.

    Parameters
    ----------
    path : Path
        Of the database, made when absent.

    Attributes
    ----------
    is_new : bool
        It was absent.

    Raises
    ------
    ServiceUnavailable
        It cannot be opened or written.
    ConfigurationError
        A newer release of this package wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self.is_new = not path.exists()
        try:
            # SQLite would let everybody read it; its log files take their mode from it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
        except OSError as exc:
            raise ServiceUnavailable("archive index", str(exc)) from exc
        with _translated():
            self._database = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = NORMAL")
                self._migrate(path)
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        """Write everything to the disk and close."""
        with self._lock, _translated():
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._database.close()

    def add(self, entries: Iterable[Entry]) -> None:
        """Add rows in one transaction; to one that is there only its findings are added."""
        rows = [_row(entry) for entry in entries]
        with self._transaction() as database:
            database.executemany(_ADD, rows)

    def replace(self, entries: Iterable[Entry]) -> None:
        """Add or replace rows in one transaction; what only the index knows is kept."""
        kept = ", ".join(
            f"{c} = excluded.{c}" for c in _COLUMNS if c not in ("audited", "findings")
        )
        rows = [_row(entry) for entry in entries]
        with self._transaction() as database:
            database.executemany(
                f"{_INSERT} ON CONFLICT (sop_instance, version) DO UPDATE SET {kept}", rows
            )

    def remove(self, paths: Iterable[str]) -> None:
        """Remove the rows of these files."""
        with self._transaction() as database:
            database.executemany("DELETE FROM instance WHERE path = ?", [(p,) for p in paths])

    def digests_below(self, folder: str) -> dict[str, str]:
        """Return path to digest of the rows whose path begins with `folder` and a slash."""
        return dict(
            self._query(
                "SELECT path, digest FROM instance WHERE path > ? AND path < ?",
                (f"{folder}/", f"{folder}0"),  # 0 is the character after the slash
            )
        )

    def folders(self) -> set[str]:
        """Return the folders of all paths."""
        rows = self._query("SELECT DISTINCT rtrim(path, replace(path, '/', '')) FROM instance")
        return {folder.rstrip("/") for (folder,) in rows}

    def find(self, sop_instance: str) -> tuple[Entry, ...]:
        """Return the versions of an instance, the oldest first; empty when unknown."""
        rows = self._query(f"{_SELECT} WHERE sop_instance = ? ORDER BY version", (sop_instance,))
        return tuple(_entry(row) for row in rows)

    def counts(self) -> Counts:
        """Return how much there is."""
        (row,) = self._query(
            "SELECT count(DISTINCT patient_id), count(DISTINCT study), count(DISTINCT series), "
            "count(*), coalesce(sum(size), 0) FROM instance"
        )
        return Counts(*row)

    def studies(self) -> list[Study]:
        """Return every study, the most recently received one first."""
        rows = self._query(
            "SELECT study, max(patient_id), max(patient_name), max(accession), max(study_date), "
            "max(study_description), count(DISTINCT series), count(*), sum(size), "
            "max(received_at) FROM instance GROUP BY study ORDER BY max(received_at) DESC"
        )
        return [_study(row) for row in rows]

    def unaudited(self) -> Iterator[Unaudited]:
        """Yield what no audit message tells of, by association and study."""
        groups = self._query(
            "SELECT association_id, study, min(rowid) FROM instance WHERE NOT audited "
            "GROUP BY association_id, study ORDER BY min(rowid)"
        )
        for association_id, study, rowid in groups:
            classes = self._query(
                "SELECT sop_class, count(*) FROM instance "
                "WHERE NOT audited AND association_id = ? AND study = ? "
                "GROUP BY sop_class ORDER BY sop_class",
                (association_id, study),
            )
            (first,) = self._query(f"{_SELECT} WHERE rowid = ?", (rowid,))
            yield Unaudited(association_id, study, dict(classes), _entry(first))

    def mark_audited(self, association_id: str) -> None:
        """Note that the audit trail tells of all that this association brought so far."""
        with self._transaction() as database:
            database.execute(
                "UPDATE instance SET audited = 1 WHERE association_id = ? AND NOT audited",
                (association_id,),
            )

    def _query(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._lock, _translated():
            return self._database.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _translated():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _migrate(self, path: Path) -> None:
        """Bring the schema up to date; all of it or nothing."""
        with self._transaction() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise ConfigurationError(
                    f"found schema {version} of a newer release, wanted at most {len(MIGRATIONS)}",
                    where=str(path),
                )
            for script in MIGRATIONS[version:]:
                for statement in script.split(";"):
                    database.execute(statement)
            database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def is_damaged(path: Path) -> bool:
    """Tell whether there is an index that SQLite cannot make sense of."""
    if not path.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as exc:  # locked, or the disk: says nothing of the content
        raise ServiceUnavailable("archive index", str(exc)) from exc
    except sqlite3.DatabaseError:
        return True
    return bool(verdict != "ok")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise ServiceUnavailable("archive index", str(exc)) from exc
    except (ValueError, OverflowError) as exc:  # of sqlite3, over a value it cannot keep
        raise ServiceUnavailable("archive index", type(exc).__name__) from exc


def _row(entry: Entry) -> tuple[object, ...]:
    *facts, received_at, audited, findings = _VALUES(entry)
    facts[_TLS] = None if entry.tls is None else json.dumps(dict(entry.tls))
    findings = None if findings is None else json.dumps(dict(findings))
    return (*facts, received_at.isoformat(), audited, findings)


def _study(row: tuple[Any, ...]) -> Study:
    facts = dict(zip((f.name for f in fields(Study)), row, strict=True))
    facts["last_received"] = datetime.fromisoformat(facts["last_received"])
    return Study(**facts)


def _entry(row: tuple[Any, ...]) -> Entry:
    facts = dict(zip(_COLUMNS, row, strict=True))
    for name in ("tls", "findings"):
        facts[name] = None if facts[name] is None else json.loads(facts[name])
    facts["received_at"] = datetime.fromisoformat(facts["received_at"])
    facts["audited"] = bool(facts["audited"])
    return Entry(**facts)
