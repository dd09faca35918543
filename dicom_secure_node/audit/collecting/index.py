"""The index of the log: what `query` searches. It can always be made again from the log.

The log is the record; the index says where in it to look. So it holds no message, only
places, hashes, verdicts and the terms one searches for. What a query returns is read from the
log, and a row whose hash is not that of its line is not shown as if it were.

`sqlite` and `postgres` are the two makes; what differs is how one connects and inserts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from dicom_secure_node.audit.collecting import chain, judge
from dicom_secure_node.audit.collecting.files import Spot
from dicom_secure_node.audit.collecting.records import Count, Filter, Head

FORMAT = "1"
"""Of the tables. The index of another format is made again."""

TABLES = (
    """
    CREATE TABLE IF NOT EXISTS collect_state (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS collect_record (
        sequence BIGINT PRIMARY KEY,
        received BIGINT NOT NULL,
        segment BIGINT NOT NULL,
        place BIGINT NOT NULL,
        length BIGINT NOT NULL,
        chain TEXT NOT NULL,
        event TEXT NOT NULL,
        outcome INTEGER,
        valid INTEGER NOT NULL,
        rules TEXT NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS collect_received ON collect_record (received)",
    "CREATE INDEX IF NOT EXISTS collect_event ON collect_record (event, sequence)",
    "CREATE INDEX IF NOT EXISTS collect_failures ON collect_record (sequence) WHERE outcome <> 0",
    "CREATE INDEX IF NOT EXISTS collect_invalid ON collect_record (sequence) WHERE valid = 0",
    "CREATE INDEX IF NOT EXISTS collect_term_sequence ON collect_term (sequence)",
)

TERMS = """
    CREATE TABLE IF NOT EXISTS collect_term (
        kind TEXT NOT NULL,
        value TEXT {collation} NOT NULL,
        sequence BIGINT NOT NULL,
        PRIMARY KEY (kind, value, sequence)
    ) {options}
"""
"""Terms are compared octet by octet; how to say so differs between the makes."""

FORGET = (
    "DELETE FROM collect_term WHERE sequence BETWEEN ? AND ?",
    "DELETE FROM collect_record WHERE sequence BETWEEN ? AND ?",
)
COLUMNS = "sequence, received, segment, place, length, chain, event, outcome, valid, rules"
_SELECT = f"SELECT {COLUMNS} FROM collect_record r"  # noqa: S608 - our own words
_COUNTS = """
    SELECT r.received / ? AS slot, COUNT(*), SUM(CASE WHEN r.outcome <> 0 THEN 1 ELSE 0 END)
    FROM collect_record r
"""
_EVENTS = "SELECT r.event, COUNT(*) AS n FROM collect_record r"
_HAS_TERM = "r.sequence IN (SELECT t.sequence FROM collect_term t WHERE t.kind = ? AND "
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Row:
    """What the index has of one message."""

    sequence: int
    received: int  # microseconds since the epoch
    spot: Spot
    chain: str
    event: str
    outcome: int | None
    valid: bool
    rules: tuple[str, ...]

    def values(self) -> tuple[Any, ...]:
        """Return the columns, in the order of `COLUMNS`."""
        spot = self.spot
        return (
            *(self.sequence, self.received, spot.segment, spot.offset, spot.length, self.chain),
            *(self.event, self.outcome, int(self.valid), json.dumps(self.rules)),
        )


Term = tuple[str, str, int]  # kind, value, sequence


def row_of(line: chain.Line, spot: Spot) -> tuple[Row, list[Term]]:
    """Judge a message of the log and return its row and terms.

    Raises
    ------
    InvalidInput
        The line holds no message.
    """
    arrival = line.arrival()
    found = judge.judge(arrival)
    row = Row(
        line.sequence,
        microseconds(arrival.received_at),
        spot,
        line.chain,
        found.event,
        found.outcome,
        found.valid,
        found.rules,
    )
    return row, [(kind, value, line.sequence) for kind, value in found.terms]


class Index(Protocol):
    """An index of either make. One thread at a time."""

    def head(self) -> Head:
        """Return the last line of the log that was looked at; 0 before the first."""

    def claim(self, identity: str) -> bool:
        """Bind a new index to the log `identity`; False where it belongs to another."""

    def judged_by(self) -> str:
        """Return the `judge.EDITION` its verdicts are of."""

    def add(self, rows: Sequence[Row], terms: Sequence[Term], head: Head) -> None:
        """Add rows; with them, or not at all, the head moves."""

    def forget(self, first: int, last: int, head: Head | None = None) -> None:
        """Remove the rows from `first` to `last`, and set the head where one is given."""

    def clear(self) -> None:
        """Remove everything but the log's identity; the edition is then the present one."""

    def select(self, what: str, sql: str, values: Sequence[Any]) -> list[Sequence[Any]]:
        """Run a SELECT; ``?`` stands for a value."""

    def close(self) -> None:
        """Close the connection."""


# --- Questions ---


def rows(index: Index, asked: Filter, before: int | None, limit: int) -> list[Row]:
    """Return the newest rows that match, with numbers less than `before`."""
    where, values = _conditions(asked)
    if before is not None:
        where, values = [*where, "r.sequence < ?"], [*values, before]
    sql = f"{_SELECT}{_where(where)} ORDER BY r.sequence DESC LIMIT ?"
    return [_row(found) for found in index.select("query", sql, [*values, limit])]


def rows_between(index: Index, first: int, last: int) -> dict[int, Row]:
    """Return the rows of a range by their number."""
    sql = f"{_SELECT} WHERE r.sequence BETWEEN ? AND ?"
    return {row.sequence: row for row in map(_row, index.select("rows", sql, [first, last]))}


def terms_between(index: Index, first: int, last: int) -> dict[int, set[tuple[str, str]]]:
    """Return the terms of a range by number."""
    sql = "SELECT sequence, kind, value FROM collect_term WHERE sequence BETWEEN ? AND ?"
    found: dict[int, set[tuple[str, str]]] = {}
    for sequence, kind, value in index.select("terms", sql, [first, last]):
        found.setdefault(sequence, set()).add((kind, value))
    return found


def newest(index: Index, before: int, limit: int) -> list[tuple[int, str]]:
    """Return number and hash of the last rows before a number, newest first."""
    sql = "SELECT sequence, chain FROM collect_record WHERE sequence < ? "
    sql += "ORDER BY sequence DESC LIMIT ?"
    return [(row[0], row[1]) for row in index.select("newest", sql, [before, limit])]


def counts(index: Index, asked: Filter, span: timedelta) -> Iterator[Count]:
    """Yield the number of messages in each `span` that has any, oldest first."""
    where, values = _conditions(asked)
    width = span // _MICROSECOND
    sql = f"{_COUNTS}{_where(where)} GROUP BY slot ORDER BY slot"
    for slot, total, failures in index.select("counts", sql, [width, *values]):
        yield Count(moment(slot * width), int(total), int(failures or 0))


def events(index: Index, asked: Filter) -> list[tuple[str, int]]:
    """Return the event codes among the records that match, the most frequent first."""
    where, values = _conditions(asked)
    sql = f"{_EVENTS}{_where(where)} GROUP BY r.event ORDER BY n DESC, r.event"
    return [(event, int(number)) for event, number in index.select("events", sql, values)]


def _conditions(asked: Filter) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    values: list[Any] = []
    simple = (
        ("r.event = ?", asked.event or None),
        ("r.outcome = ?", asked.outcome),
        ("r.received >= ?", None if asked.since is None else microseconds(asked.since)),
        ("r.received < ?", None if asked.until is None else microseconds(asked.until)),
    )
    for condition, value in simple:
        if value is not None:
            where.append(condition)
            values.append(value)
    if asked.failures:
        where.append("r.outcome <> 0")
    if asked.valid is not None:
        where.append(f"r.valid = {int(asked.valid)}")
    for kind in judge.KINDS:
        text = getattr(asked, kind)
        if text:
            condition, found = _term_condition(judge.folded(text.removesuffix("*")), text)
            where.append(f"{_HAS_TERM}{condition})")
            values += [kind, *found]
    return where, values


def _term_condition(folded: str, text: str) -> tuple[str, list[str]]:
    if not text.endswith("*"):
        return "t.value = ?", [folded]
    # A range serves a prefix by the primary key; no wildcard of SQL's is in the way.
    return "t.value >= ? AND t.value < ?", [folded, folded + "\U0010ffff"]


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _row(found: Sequence[Any]) -> Row:
    sequence, received, segment, place, length, link, event, outcome, valid, rules = found
    spot = Spot(segment, place, length)
    return Row(
        sequence, received, spot, link, event, outcome, bool(valid), tuple(json.loads(rules))
    )


def microseconds(when: datetime) -> int:
    """Return a time as the index has it."""
    return (when - _EPOCH) // _MICROSECOND


def moment(received: int) -> datetime:
    """Return a time of the index."""
    return _EPOCH + timedelta(microseconds=received)
