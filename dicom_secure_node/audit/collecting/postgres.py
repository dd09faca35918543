"""The index in PostgreSQL, for sites whose index should outlive or outgrow one machine.

On another machine it is also a second witness of where the log ended.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from dicom_secure_node.audit.collecting import judge
from dicom_secure_node.audit.collecting.index import (
    COLUMNS,
    FORGET,
    FORMAT,
    TABLES,
    TERMS,
    Row,
    Term,
)
from dicom_secure_node.audit.collecting.records import Head
from dicom_secure_node.errors import MissingExtra, ServiceUnavailable

_SERVICE = "audit repository index"
_CONNECT_SECONDS = 10
_NAMES = ("collect_term", "collect_record", "collect_state")


class PostgresIndex:
    """`index.Index` in a PostgreSQL database; its tables begin with ``collect_``.

    Parameters
    ----------
    url : str
        ``postgresql://user:password@host/database``; it is in no error and no log.
    """

    def __init__(self, url: str, *, writing: bool = False) -> None:
        try:
            self._psycopg: Any = importlib.import_module("psycopg")
        except ModuleNotFoundError as exc:
            raise MissingExtra("an index in PostgreSQL", "postgres") from exc
        with self._errors("connecting"):
            # autocommit: what belongs together is in a `transaction` of its own.
            self._connection: Any = self._psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                application_name="dicom-secure-node",
                keepalives_idle=15,
                keepalives_interval=5,
                keepalives_count=3,
            )
            try:
                if writing:
                    self._prepare()
                else:
                    self._connection.read_only = True
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        with self._connection.transaction():
            self._make_tables()
            if self._state("format") not in ("", FORMAT):
                self._run(f"DROP TABLE {', '.join(_NAMES)}")
                self._make_tables()
            if not self._state("format"):
                self._set(format=FORMAT, judge=judge.EDITION)

    def _make_tables(self) -> None:
        self._run(TERMS.format(collation='COLLATE "C"', options=""))
        for statement in TABLES:
            self._run(statement)

    # --- of Index ---

    def head(self) -> Head:
        with self._errors():
            sql = "SELECT name, value FROM collect_state WHERE name IN ('sequence', 'chain')"
            found = dict(self._run(sql).fetchall())
            return Head(int(found.get("sequence", 0)), found.get("chain", ""))

    def claim(self, identity: str) -> bool:
        with self._errors(), self._connection.transaction():
            found = self._state("log")
            if not found:
                self._set(log=identity)
            return found in ("", identity)

    def judged_by(self) -> str:
        with self._errors():
            return self._state("judge")

    def add(self, rows: Sequence[Row], terms: Sequence[Term], head: Head) -> None:
        with self._errors(), self._connection.transaction():
            if rows:
                self._delete(rows[0].sequence, rows[-1].sequence)
                self._copy(f"collect_record ({COLUMNS})", (row.values() for row in rows))
                self._copy("collect_term (kind, value, sequence)", iter(terms))
            self._set(sequence=str(head.sequence), chain=head.chain)

    def forget(self, first: int, last: int, head: Head | None = None) -> None:
        with self._errors(), self._connection.transaction():
            self._delete(first, last)
            if head is not None:
                self._set(sequence=str(head.sequence), chain=head.chain)

    def clear(self) -> None:
        with self._errors(), self._connection.transaction():
            self._run("TRUNCATE collect_term, collect_record")
            self._set(sequence="0", chain="", judge=judge.EDITION)

    def select(self, what: str, sql: str, values: Sequence[Any]) -> list[Sequence[Any]]:
        with self._errors(what):
            found: list[Sequence[Any]] = self._run(sql.replace("?", "%s"), values).fetchall()
            return found

    def close(self) -> None:
        self._connection.close()

    # --- inside ---

    def _run(self, sql: str, values: Sequence[Any] | None = None) -> Any:
        return self._connection.execute(sql, values)

    def _state(self, name: str) -> str:
        sql = "SELECT value FROM collect_state WHERE name = %s"
        found = self._run(sql, (name,)).fetchone()
        return str(found[0]) if found else ""

    def _set(self, **values: str) -> None:
        sql = "INSERT INTO collect_state VALUES (%s, %s) "
        sql += "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
        for item in values.items():
            self._run(sql, item)

    def _delete(self, first: int, last: int) -> None:
        for statement in FORGET:
            self._run(statement.replace("?", "%s"), (first, last))

    def _copy(self, target: str, found: Iterator[Sequence[Any]]) -> None:
        with self._connection.cursor().copy(f"COPY {target} FROM STDIN") as copy:
            for values in found:
                copy.write_row(values)

    @contextlib.contextmanager
    def _errors(self, doing: str = "") -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as exc:
            # The first line: further ones may repeat what was in the statement.
            words = (str(exc).splitlines() or [type(exc).__name__])[0]
            raise ServiceUnavailable(_SERVICE, f"{doing}: {words}" if doing else words) from exc
