"""Messages as they come to a repository, and a store with some of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicom_secure_node.audit.collecting import indexer
from dicom_secure_node.audit.collecting.records import TLS, Arrival, Head, Lost
from dicom_secure_node.audit.collecting.store import RecordStore, open_index
from dicom_secure_node.audit.syslog import NILVALUE, Header, opening, syslog_message
from tests.audit.samples import every_kind, octets

START = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
_FIELDS = Header("ct1.example.org", "ct", "77").fields()


def syslog(xml: bytes, priority: int = 85) -> bytes:
    """Return a SYSLOG-MSG around an XML document."""
    return syslog_message(opening(priority, "2026-11-22T09:30:05.200Z", _FIELDS), NILVALUE, xml)


def every_message() -> list[bytes]:
    """Return a SYSLOG-MSG of every kind the node sends."""
    return [syslog(octets(message)) for message in every_kind().values()]


def arrival(
    raw: bytes, minutes: float = 0, peer: str = "192.0.2.7:40112", sender: str = "CN=ct1"
) -> Arrival:
    """Return a message that came by TLS, so many minutes after `START`."""
    return Arrival(raw, START + timedelta(minutes=minutes), peer, TLS, sender)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def fill(
    folder: Path,
    messages: Sequence[bytes],
    *,
    url: str = "",
    segment_bytes: int = 4000,
    clock: Callable[[], datetime] = Clock(),  # noqa: B008 - it stands still
) -> Head:
    """Write a store with one message a minute, index it, and return its head."""
    with RecordStore(folder, url, writing=True, segment_bytes=segment_bytes, clock=clock) as store:
        for minute, raw in enumerate(messages):
            store.append([arrival(raw, minute)])
        index_all(store)
        return store.log.head


def index_all(store: RecordStore) -> Lost | None:
    """Index what the store's log holds; return what the index knew better."""
    index = open_index(store.folder, store.index_url, writing=True)
    try:
        assert index.claim(store.log.identity)
        return indexer.catch_up(store.folder, index, store.log.head)
    finally:
        index.close()


def log_files(folder: Path) -> list[Path]:
    """Return the files of a store's log, oldest first."""
    return sorted(folder.glob("records-*.ndjson"))


def numbers_in(path: Path) -> list[int]:
    """Return the numbers of the records in a file of the log."""
    return [json.loads(line)["seq"] for line in path.read_bytes().splitlines()]
