"""Tampering with the repository's log or index: each way is found, with the record's number."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_secure_node.audit.collecting import chain, indexer
from dicom_secure_node.audit.collecting.records import KINDS, Filter, Head
from dicom_secure_node.audit.collecting.store import RecordStore, open_index
from tests.audit.collected import (
    START,
    arrival,
    every_message,
    fill,
    index_all,
    log_files,
    numbers_in,
)

COUNT = len(every_message())  # with the note at the beginning the last number is one more


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Head]:
    """A store with a few files, the third of which holds records enough to play with."""
    folder = tmp_path_factory.mktemp("log")
    return folder, fill(folder, every_message(), segment_bytes=12_000)


@pytest.fixture
def log(template: tuple[Path, Head], tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(template[0], tmp_path / "log"))


@pytest.fixture
def noted(template: tuple[Path, Head]) -> Head:
    """Its head, as it was noted elsewhere."""
    return template[1]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def third(folder: Path) -> tuple[Path, list[bytes], int]:
    """Return the third file, its lines, and the number of its second record."""
    path = log_files(folder)[2]
    return path, lines_of(path), numbers_in(path)[1]


def rewritten(lines: list[bytes], before: str) -> list[bytes]:
    """Return lines with hashes computed anew, as whoever can write can."""
    found = []
    for line in lines:
        head = line[: line.rindex(b', "chain": "')]
        before = chain.link(before, head)
        found.append(b'%b, "chain": "%b"}\n' % (head, before.encode()))
    return found


Tampered = Callable[[Path], int]


def edit_a_byte(folder: Path) -> int:
    path, lines, number = third(folder)
    lines[1] = lines[1].replace(b"ct1.example.org", b"ct2.example.org", 1)
    path.write_bytes(b"".join(lines))
    return number


def edit_the_time(folder: Path) -> int:
    path, lines, number = third(folder)
    lines[1] = lines[1].replace(b'"at": "2026', b'"at": "2025', 1)
    path.write_bytes(b"".join(lines))
    return number


def edit_a_hash(folder: Path) -> int:
    path, lines, number = third(folder)
    lines[1] = lines[1][:-10] + b"0000000" + lines[1][-3:]
    path.write_bytes(b"".join(lines))
    return number


def edit_and_compute_its_hash(folder: Path) -> int:
    path, lines, number = third(folder)
    before = chain.parse(lines[0][:-1]).chain
    lines[1] = rewritten([lines[1].replace(b"ct1", b"ct2", 1)], before)[0]
    path.write_bytes(b"".join(lines))
    return number + 1


def delete_a_record(folder: Path) -> int:
    path, lines, number = third(folder)
    del lines[1]
    path.write_bytes(b"".join(lines))
    return number


def delete_three_records(folder: Path) -> int:
    path, lines, number = third(folder)
    del lines[1:4]
    path.write_bytes(b"".join(lines))
    return number


def delete_and_number_anew(folder: Path) -> int:
    path, lines, number = third(folder)
    del lines[1]
    for place, line in enumerate(lines[1:], 1):
        lines[place] = b'{"seq": %d%b' % (number + place - 1, line[line.index(b",") :])
    path.write_bytes(b"".join(lines))
    return number


def swap_two(folder: Path) -> int:
    path, lines, number = third(folder)
    lines[1], lines[2] = lines[2], lines[1]
    path.write_bytes(b"".join(lines))
    return number


def move_one_to_another_file(folder: Path) -> int:
    path, lines, number = third(folder)
    line = lines.pop(1)
    path.write_bytes(b"".join(lines))
    last = log_files(folder)[-1]
    last.write_bytes(last.read_bytes() + line)
    return number


def record_twice(folder: Path) -> int:
    path, lines, number = third(folder)
    lines.insert(2, lines[1])
    path.write_bytes(b"".join(lines))
    return number


def make_a_line_garbage(folder: Path) -> int:
    path, lines, number = third(folder)
    lines[1] = b"\0" * (len(lines[1]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    return number


def delete_a_file(folder: Path) -> int:
    path, _, number = third(folder)
    path.unlink()
    return number - 1


def delete_the_oldest_file(folder: Path) -> int:
    log_files(folder)[0].unlink()
    return 1


def delete_the_first_records(folder: Path) -> int:
    path = log_files(folder)[0]
    path.write_bytes(b"".join(lines_of(path)[2:]))
    return 1


def replace_a_file(folder: Path) -> int:
    """A file of another log, with the same numbers and good hashes of its own."""
    path, lines, number = third(folder)
    texts = [line.replace(b"ct1", b"ct2", 1) for line in lines]
    path.write_bytes(b"".join(rewritten(texts, "f" * 64)))
    return number - 1


def truncate_the_tail(folder: Path) -> int:
    path = log_files(folder)[-1]
    path.write_bytes(b"".join(lines_of(path)[:-1]))
    return COUNT + 1


def truncate_in_a_line(folder: Path) -> int:
    path = log_files(folder)[-1]
    path.write_bytes(path.read_bytes()[:-30])
    return COUNT + 1


def delete_the_newest_file(folder: Path) -> int:
    path = log_files(folder)[-1]
    first = numbers_in(path)[0]
    path.unlink()
    return first


def delete_all_files(folder: Path) -> int:
    for path in log_files(folder):
        path.unlink()
    return 1


def change_the_index(sql: str, number: int) -> Tampered:
    def tamper(folder: Path) -> int:
        connection = sqlite3.connect(folder / "index.sqlite")
        with connection:
            connection.execute(sql)
        connection.close()
        return number

    return tamper


_RECORD = "UPDATE collect_record SET"

TAMPERINGS: dict[str, tuple[Tampered, str]] = {
    "a byte of a record": (edit_a_byte, "edited"),
    "the time of a record": (edit_the_time, "edited"),
    "the hash of a record": (edit_a_hash, "edited"),
    "a record and its hash": (edit_and_compute_its_hash, "edited"),
    "a record deleted": (delete_a_record, "missing"),
    "three records deleted": (delete_three_records, "missing"),
    "a record deleted, the rest numbered anew": (delete_and_number_anew, "edited"),
    "two records swapped": (swap_two, "moved"),
    "a record moved to the end": (move_one_to_another_file, "moved"),
    "a record twice": (record_twice, "moved"),
    "a line made garbage": (make_a_line_garbage, "damaged"),
    "a file deleted": (delete_a_file, "missing"),
    "the oldest file deleted": (delete_the_oldest_file, "missing"),
    "the first records deleted": (delete_the_first_records, "missing"),
    "a file replaced": (replace_a_file, "edited"),
    "the last record cut off": (truncate_the_tail, "truncated"),
    "cut off within the last record": (truncate_in_a_line, "truncated"),
    "the newest file deleted": (delete_the_newest_file, "truncated"),
    "all files deleted": (delete_all_files, "truncated"),
    "index: an outcome changed": (
        change_the_index(f"{_RECORD} outcome = 8 WHERE sequence = 13", 13),
        "index",
    ),
    "index: an event changed": (
        change_the_index(f"{_RECORD} event = '110100' WHERE sequence = 13", 13),
        "index",
    ),
    "index: a time changed": (
        change_the_index(f"{_RECORD} received = received + 1 WHERE sequence = 13", 13),
        "index",
    ),
    "index: a place changed": (
        change_the_index(f"{_RECORD} place = place + 1 WHERE sequence = 13", 13),
        "index",
    ),
    "index: a hash changed": (
        change_the_index(f"{_RECORD} chain = 'x' WHERE sequence = 13", 13),
        "index",
    ),
    "index: a verdict changed": (
        change_the_index(f"{_RECORD} valid = 0 WHERE sequence = 13", 13),
        "index",
    ),
    "index: a row deleted": (
        change_the_index("DELETE FROM collect_record WHERE sequence = 13", 13),
        "index",
    ),
    "index: a user's name removed": (
        change_the_index("DELETE FROM collect_term WHERE sequence = 13 AND kind = 'user'", 13),
        "index",
    ),
    "index: a user's name added": (
        change_the_index("INSERT INTO collect_term VALUES ('user', 'eve', 13)", 13),
        "index",
    ),
    "index: a row more": (
        change_the_index(
            "INSERT INTO collect_record SELECT 99, received, segment, place, length, chain, "
            "event, outcome, valid, rules FROM collect_record WHERE sequence = 13",
            99,
        ),
        "index",
    ),
    "index: a row for a note of the log": (
        change_the_index(
            "INSERT INTO collect_record SELECT 1, received, segment, place, length, chain, "
            "event, outcome, valid, rules FROM collect_record WHERE sequence = 13",
            1,
        ),
        "index",
    ),
}


@pytest.mark.parametrize(("tamper", "kind"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_tampering_is_found_where_it_was_done(tamper: Tampered, kind: str, log: Path) -> None:
    number = tamper(log)
    with RecordStore(log) as store:
        found = list(store.verify())
    assert (kind, number) in {(one.kind, one.sequence) for one in found}
    assert {one.kind for one in found} <= set(KINDS)
    # Not a line for everything after it, too, where it was one thing.
    assert len(found) < 25


WITHOUT_INDEX: dict[str, tuple[Tampered, str]] = {
    "the last record cut off": (truncate_the_tail, "truncated"),
    "cut off within the last record": (truncate_in_a_line, "truncated"),
    "the newest file deleted": (delete_the_newest_file, "truncated"),
    "all files deleted": (delete_all_files, "truncated"),
}


@pytest.mark.parametrize(("tamper", "kind"), WITHOUT_INDEX.values(), ids=WITHOUT_INDEX)
def test_a_head_noted_elsewhere_needs_no_index(
    tamper: Tampered, kind: str, log: Path, noted: Head
) -> None:
    number = tamper(log)
    (log / "index.sqlite").unlink()
    with RecordStore(log) as store:
        assert kind not in {one.kind for one in store.verify(indexed=False)}
        found = list(store.verify([noted], indexed=False))
    assert (kind, number, noted.sequence) in {(one.kind, one.sequence, one.last) for one in found}


def test_all_written_anew_is_found_by_a_head_noted_elsewhere(tmp_path: Path) -> None:
    """The hashes hold no secret: whoever can write everything leaves a chain without fault."""
    noted = fill(tmp_path, every_message()[:20], segment_bytes=10**6)
    fill(tmp_path, every_message(), segment_bytes=10**6)
    (path,) = log_files(tmp_path)
    lines = [line.replace(b"ct1", b"ct2") for line in lines_of(path)]
    path.write_bytes(b"".join(rewritten(lines, chain.GENESIS)))
    (tmp_path / "index.sqlite").unlink()
    with RecordStore(tmp_path, writing=True) as store:
        index_all(store)
        assert list(store.verify()) == []
        (found,) = store.verify([noted])
        assert (found.kind, found.sequence) == ("replaced", 21)


def test_heads_of_any_moment_hold(tmp_path: Path) -> None:
    heads: list[Head] = []
    with RecordStore(tmp_path, writing=True, segment_bytes=3000) as store:
        for raw in every_message():
            heads.append(store.append([arrival(raw)]))
        index_all(store)
        assert list(store.verify(heads)) == []


def test_what_a_start_finds_missing_is_noted_for_good(log: Path) -> None:
    """The collector goes on, with numbers used again; the log itself says what happened."""
    truncate_the_tail(log)
    with RecordStore(log, writing=True) as store:
        store.append([arrival(b"<85>1 new")])
        lost = index_all(store)
        assert lost is not None
        assert (lost.agreed.sequence, lost.known.sequence) == (COUNT, COUNT + 1)
        store.log.note_lost(START, lost)
        index_all(store)
        assert [one.raw for one in store.query(limit=1)] == [b"<85>1 new"]
        (found,) = store.verify()
        assert (found.kind, found.breach) == ("lost", True)


def test_an_index_that_lags_is_no_finding(log: Path) -> None:
    with RecordStore(log, writing=True) as store:
        store.append([arrival(b"<85>1 not judged yet")])
        assert list(store.verify()) == []
        assert store.status().indexed == store.status().last - 1


def test_an_index_made_again_says_the_same(log: Path) -> None:
    index = open_index(log, writing=True)
    index.clear()
    index.close()
    with RecordStore(log, writing=True) as store:
        assert list(store.query()) == []
        index_all(store)
        assert len(list(store.query(Filter()))) == COUNT
        assert list(store.verify()) == []


def test_an_index_of_another_log_is_not_taken(log: Path) -> None:
    index = open_index(log, writing=True)
    assert not index.claim("another")
    index.close()


def test_a_record_that_was_changed_is_not_shown_as_intact(log: Path) -> None:
    number = edit_a_hash(log)
    with RecordStore(log) as store:
        one = store.get(number)
        assert one is not None
        assert not one.intact
    path, lines, _ = third(log)
    lines[1] = b"x" * (len(lines[1]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    with RecordStore(log) as store:
        one = store.get(number)
        assert one is not None
        assert (one.intact, one.raw) == (False, b"")


def test_an_empty_store_is_a_good_one(tmp_path: Path) -> None:
    fill(tmp_path, [])
    with RecordStore(tmp_path) as store:
        assert list(store.verify()) == []
        assert list(store.query()) == []


def test_indexing_goes_over_what_cannot_be_read(log: Path) -> None:
    make_a_line_garbage(log)
    index = open_index(log, writing=True)
    index.clear()
    with RecordStore(log, writing=True) as store:
        indexer.catch_up(log, index, store.log.head)
    index.close()
    with RecordStore(log) as store:
        assert len(list(store.query())) == COUNT - 1
