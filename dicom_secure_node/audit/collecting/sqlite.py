"""The index in SQLite, a file beside the log."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dicom_secure_node.audit.collecting import judge
from dicom_secure_node.audit.collecting.index import FORGET, FORMAT, TABLES, TERMS, Row, Term
from dicom_secure_node.audit.collecting.records import Head
from dicom_secure_node.errors import ServiceUnavailable

_SERVICE = "audit repository index"
_BUSY_SECONDS = 30


class SQLiteIndex:
    """`index.Index` in one file; write-ahead log, so that readers never wait for the writer.

    A commit is not synced: after a power cut the index may lack the newest rows, and gets them
    from the log again.
    """

    def __init__(self, path: Path, *, writing: bool = False) -> None:
        self._path = path
        with self._errors():
            mode = "rwc" if writing else "ro"
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                uri=True,
            )
            try:
                if writing:
                    self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA trusted_schema = OFF")
        self._make_tables()
        if self._state("format") not in ("", FORMAT):
            with self._transaction():
                for table in ("collect_term", "collect_record", "collect_state"):
                    run(f"DROP TABLE {table}")
                self._make_tables()
        if not self._state("format"):
            with self._transaction():
                self._set(format=FORMAT, judge=judge.EDITION)

    def _make_tables(self) -> None:
        self._connection.execute(TERMS.format(collation="", options="WITHOUT ROWID"))
        for statement in TABLES:
            self._connection.execute(statement)

    # --- of Index ---

    def head(self) -> Head:
        with self._errors():
            return Head(int(self._state("sequence") or 0), self._state("chain"))

    def claim(self, identity: str) -> bool:
        with self._errors():
            found = self._state("log")
            if not found:
                with self._transaction():
                    self._set(log=identity)
            return found in ("", identity)

    def judged_by(self) -> str:
        with self._errors():
            return self._state("judge")

    def add(self, rows: Sequence[Row], terms: Sequence[Term], head: Head) -> None:
        run = self._connection.executemany
        with self._errors(), self._transaction():
            run(
                "INSERT OR REPLACE INTO collect_record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [row.values() for row in rows],
            )
            run("INSERT OR REPLACE INTO collect_term VALUES (?, ?, ?)", terms)
            self._set(sequence=str(head.sequence), chain=head.chain)

    def forget(self, first: int, last: int, head: Head | None = None) -> None:
        with self._errors(), self._transaction():
            for statement in FORGET:
                self._connection.execute(statement, (first, last))
            if head is not None:
                self._set(sequence=str(head.sequence), chain=head.chain)

    def clear(self) -> None:
        with self._errors(), self._transaction():
            self._connection.execute("DELETE FROM collect_term")
            self._connection.execute("DELETE FROM collect_record")
            self._set(sequence="0", chain="", judge=judge.EDITION)

    def select(self, what: str, sql: str, values: Sequence[Any]) -> list[Sequence[Any]]:
        with self._errors(what):
            return self._connection.execute(sql, values).fetchall()

    def close(self) -> None:
        self._connection.close()

    # --- inside ---

    def _state(self, name: str) -> str:
        sql = "SELECT value FROM collect_state WHERE name = ?"
        found = self._connection.execute(sql, (name,)).fetchone()
        return str(found[0]) if found else ""

    def _set(self, **values: str) -> None:
        sql = "INSERT OR REPLACE INTO collect_state VALUES (?, ?)"
        self._connection.executemany(sql, values.items())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _errors(self, what: str = "") -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            doing = f"{what}: " if what else ""
            raise ServiceUnavailable(_SERVICE, f"{self._path}: {doing}{exc}") from exc
