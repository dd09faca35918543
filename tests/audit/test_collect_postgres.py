"""The index in PostgreSQL: the same answers, a second witness, and a server that goes away."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from dicom_secure_node.audit.collecting import indexer
from dicom_secure_node.audit.collecting.records import Count, Filter
from dicom_secure_node.audit.collecting.store import RecordStore, open_index
from dicom_secure_node.errors import MissingExtra, ServiceUnavailable
from tests import parts
from tests.audit.collected import START, Clock, arrival, every_message, fill, index_all, log_files
from tests.audit.test_collect_store import FILTERS, messages_of_three_users
from tests.audit.test_collect_verify import truncate_the_tail

PASSWORD = "correct-horse-9"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with parts.postgres(PASSWORD) as (_, url):
        yield url


@pytest.fixture
def url(server: str) -> str:
    """A database nobody has used."""
    return new_database(server)


def new_database(server: str) -> str:
    name = f"audit{next(_numbers)}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    return f"{server}/{name}"


@pytest.fixture(scope="module")
def three_users(server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder, url = tmp_path_factory.mktemp("three"), new_database(server)
    fill(folder, messages_of_three_users(), url=url)
    return folder, url


@pytest.mark.parametrize(("asked", "want"), FILTERS.values(), ids=FILTERS)
def test_what_a_filter_finds_there(
    asked: Filter, want: list[int], three_users: tuple[Path, str]
) -> None:
    with RecordStore(*three_users) as store:
        assert [one.sequence for one in store.query(asked)] == want
        assert sum(one.total for one in store.counts(asked)) == len(want)
        assert sum(number for _, number in store.events(asked)) == len(want)


def test_counts_there(three_users: tuple[Path, str]) -> None:
    with RecordStore(*three_users) as store:
        assert store.counts(span=timedelta(minutes=4)) == [
            Count(START.replace(minute=28), 2, 1),
            Count(START.replace(minute=32), 3, 0),
        ]


def test_every_kind_of_message(url: str, tmp_path: Path) -> None:
    wanted = every_message()
    fill(tmp_path, wanted, url=url)
    assert not (tmp_path / "index.sqlite").exists()
    with RecordStore(tmp_path, url) as store:
        assert [one.raw for one in store.query()][::-1] == wanted
        assert list(store.verify()) == []
        assert store.status().indexed == len(wanted) + 1


def test_odd_text_goes_in(url: str, tmp_path: Path) -> None:
    """PostgreSQL refuses NUL in a text, and what is no UTF-8."""
    xml = '<AuditMessage><ActiveParticipant UserID="a\\b\tc\u2028\U0001f600"/></AuditMessage>'
    odd = [
        b"<85>1 \x00\xff",
        b"<85>1 " + xml.encode(),
        b'<85>1 <AuditMessage><ActiveParticipant UserID="a&#0;b"/>\x00',
        b'<85>1 <AuditMessage><ActiveParticipant UserID="' + b"u" * 5000 + b'"/>',
    ]
    fill(tmp_path, odd, url=url)
    with RecordStore(tmp_path, url) as store:
        assert [one.raw for one in store.query()][::-1] == odd
        assert list(store.verify()) == []


TAMPERINGS = {
    "an outcome changed": "UPDATE collect_record SET outcome = 8 WHERE sequence = 13",
    "a verdict changed": "UPDATE collect_record SET valid = 0 WHERE sequence = 13",
    "a hash changed": "UPDATE collect_record SET chain = 'x' WHERE sequence = 13",
    "a row deleted": "DELETE FROM collect_record WHERE sequence = 13",
    "a name removed": "DELETE FROM collect_term WHERE sequence = 13 AND kind = 'user'",
    "a name added": "INSERT INTO collect_term VALUES ('user', 'eve', 13)",
}


@pytest.mark.parametrize("sql", TAMPERINGS.values(), ids=TAMPERINGS)
def test_tampering_with_it_is_found(sql: str, url: str, tmp_path: Path) -> None:
    fill(tmp_path, every_message()[:20], url=url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql)  # type: ignore[arg-type]
    with RecordStore(tmp_path, url) as store:
        (found,) = store.verify()
        assert (found.kind, found.sequence) == ("index", 13)


def test_it_witnesses_where_the_log_ended(url: str, tmp_path: Path) -> None:
    """Whoever may write the folder has cut the log off and every trace of it there."""
    fill(tmp_path, every_message(), url=url)
    number = truncate_the_tail(tmp_path)
    with RecordStore(tmp_path, url) as store:
        (found,) = store.verify()
        assert (found.kind, found.sequence) == ("truncated", number)


def test_retention_there(url: str, tmp_path: Path) -> None:
    clock = Clock()
    fill(tmp_path, every_message(), url=url, clock=clock)
    clock.now = START + timedelta(days=10, minutes=20)
    with RecordStore(tmp_path, url, writing=True, keep_days=10, clock=clock) as store:
        last = store.discard_old()
        assert last
        index_all(store)
        assert [one.sequence for one in store.query()][-1] == last + 1
        assert {one.kind for one in store.verify()} == {"deleted"}


def test_made_again(url: str, tmp_path: Path) -> None:
    fill(tmp_path, every_message(), url=url)
    index = open_index(tmp_path, url, writing=True)
    index.clear()
    with RecordStore(tmp_path, url, writing=True) as store:
        assert list(store.query()) == []
        indexer.catch_up(tmp_path, index, store.log.head)
        assert len(list(store.query())) == len(every_message())
    index.close()


def test_of_another_log(url: str, tmp_path: Path) -> None:
    fill(tmp_path / "one", [b"<85>1 a"], url=url)
    with RecordStore(tmp_path / "two", url, writing=True) as store:
        index = open_index(store.folder, url, writing=True)
        assert not index.claim(store.log.identity)
        index.close()


def test_who_only_reads_cannot_write(url: str, tmp_path: Path) -> None:
    fill(tmp_path, [b"<85>1 a"], url=url)
    index = open_index(tmp_path, url)
    with pytest.raises(ServiceUnavailable, match="read-only"):
        index.clear()
    index.close()


UNREACHABLE = {
    "a wrong password": f"postgresql://audit:{PASSWORD}x@127.0.0.1:{{port}}/postgres",
    "no such database": f"postgresql://audit:{PASSWORD}@127.0.0.1:{{port}}/nosuch",
    "nobody there": f"postgresql://audit:{PASSWORD}@127.0.0.1:1/postgres",
    "no URL at all": f"postgresql://audit:{PASSWORD}@127.0.0.1:port/postgres",
    "no tables yet": f"postgresql://audit:{PASSWORD}@127.0.0.1:{{port}}/postgres",
}


@pytest.mark.parametrize("url", UNREACHABLE.values(), ids=UNREACHABLE)
def test_unreachable(url: str, server: str, tmp_path: Path) -> None:
    port = server.rpartition(":")[2]
    with (
        RecordStore(tmp_path, url.format(port=port)) as store,
        pytest.raises(ServiceUnavailable) as caught,
    ):
        next(store.query())
    assert PASSWORD not in str(caught.value)


def test_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with (
        RecordStore(tmp_path, "postgresql://localhost/x") as store,
        pytest.raises(MissingExtra, match=r"dicom-secure-node\[postgres\]"),
    ):
        next(store.query())


def test_records_that_were_cut_off_are_judged_again(url: str, tmp_path: Path) -> None:
    fill(tmp_path, every_message(), url=url)
    truncate_the_tail(tmp_path)
    assert log_files(tmp_path)
    with RecordStore(tmp_path, url, writing=True) as store:
        store.append([arrival(b"<85>1 new")])
        assert index_all(store) is not None
        assert [one.raw for one in store.query(limit=1)] == [b"<85>1 new"]
