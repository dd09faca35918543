"""The journal: durable when it says so, whole after a crash, readable from any number."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dicom_secure_node.durable.journal import Journal
from dicom_secure_node.durable.reader import Reader
from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable

ROOT = Path(__file__).parents[2]


def numbers(journal: Journal, start: int = 1) -> list[int]:
    return [entry.record()["n"] for entry in journal.read_from(start)]


def test_what_was_appended_is_read_in_order(tmp_path: Path) -> None:
    with Journal(tmp_path, segment_bytes=500) as journal:
        assert [journal.append({"n": n}) for n in range(1, 101)] == list(range(1, 101))
        assert numbers(journal) == list(range(1, 101))
        assert numbers(journal, 57) == list(range(57, 101))
        assert numbers(journal, 101) == []
        assert len(journal.segments()) > 3
    with Journal(tmp_path) as again:
        assert again.append(b'{"n": 101}') == 101
        assert numbers(again) == list(range(1, 102))


def test_a_person_can_read_it(tmp_path: Path) -> None:
    with Journal(tmp_path, "audit") as journal:
        journal.append({"text": 'M\u00fcller "x"\n\u2028'})
    path = tmp_path / "audit-0000000001.ndjson"
    assert path.read_bytes().count(b"\n") == 1
    assert json.loads(path.read_bytes()) == {"seq": 1, "text": 'M\u00fcller "x"\n\u2028'}
    assert "M\u00fcller" in path.read_text("utf-8")


BAD_RECORDS = {
    "no object": b"[1]",
    "empty object": b"{}",
    "two lines": b'{"a": 1,\n"b": 2}',
    "cut off": b'{"a": 1',
    "empty mapping": {},
}


@pytest.mark.parametrize("record", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_what_is_no_record_is_not_appended(tmp_path: Path, record: object) -> None:
    with Journal(tmp_path) as journal:
        with pytest.raises(ValueError, match="JSON object"):
            journal.append(record)  # type: ignore[arg-type]
        assert journal.append({"n": 1}) == 1


def test_many_threads_share_the_disk_and_lose_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path, segment_bytes=20_000) as journal:
        found: list[tuple[int, int]] = []

        def work(who: int) -> None:
            for n in range(50):
                found.append((journal.append({"n": who * 1000 + n}), who * 1000 + n))

        threads = [threading.Thread(target=work, args=(who,)) for who in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stored = {entry.sequence: entry.record()["n"] for entry in journal.read_from(1)}
        assert stored == dict(found)
        assert sorted(stored) == list(range(1, 801))


TORN = {
    "half a line": b'{"seq": 4, "n": 4',
    "no line feed": b'{"seq": 4, "n": 4}',
    "zeros of a file system": b"\x00" * 4096,
    "a line of zeros": b"\x00" * 100 + b"\n",
    "two lines without sense": b"abc\ndef\n",
    "a number seen before": b'{"seq": 3, "n": 99}\n',
}


@pytest.mark.parametrize("tail", TORN.values(), ids=TORN)
def test_a_torn_end_is_cut_off_and_counted(tmp_path: Path, tail: bytes) -> None:
    with Journal(tmp_path) as journal:
        for n in (1, 2, 3):
            journal.append({"n": n})
        path = journal.segments()[-1].path
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    with Journal(tmp_path) as journal:
        assert journal.torn >= 1
        assert path.read_bytes() == whole
        assert journal.append({"n": 4}) == 4
        assert numbers(journal) == [1, 2, 3, 4]


def test_a_damaged_line_in_between_costs_only_itself(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for n in (1, 2, 3):
            journal.append({"n": n})
        path = journal.segments()[0].path
    path.write_bytes(path.read_bytes().replace(b'"seq": 2', b'"s\x00q": 2'))
    with Journal(tmp_path) as journal:
        assert journal.torn == 1
        assert numbers(journal) == [1, 3]
        assert numbers(journal, 2) == [3]
        assert journal.append({"n": 4}) == 4


def test_the_end_of_an_older_segment_may_be_missing(tmp_path: Path) -> None:
    with Journal(tmp_path, segment_bytes=50) as journal:
        for n in range(1, 10):
            journal.append({"n": n})
        path = journal.segments()[0].path
    path.write_bytes(path.read_bytes()[:-5])
    with Journal(tmp_path) as journal:
        found = numbers(journal)
        assert found == sorted(found)
        assert found[-1] == 9
        assert len(found) == 8


def test_a_new_empty_segment_after_a_crash(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append({"n": 1})
    (tmp_path / "journal-0000000002.ndjson").touch()
    with Journal(tmp_path) as journal:
        assert journal.append({"n": 2}) == 2
        assert numbers(journal) == [1, 2]


def test_old_segments_go_and_numbers_stay(tmp_path: Path) -> None:
    with Journal(tmp_path, segment_bytes=100) as journal:
        for n in range(1, 41):
            journal.append({"n": n})
        assert journal.discard_before(20) > 0
        first = journal.first_sequence
        assert 1 < first <= 20
        assert numbers(journal) == list(range(first, 41))
        journal.discard_before(10_000)  # the last segment carries the number on
        assert journal.next_sequence == 41
    with Journal(tmp_path) as journal:
        assert journal.append({"n": 41}) == 41


def test_a_reader_waits_for_what_comes(tmp_path: Path) -> None:
    with Journal(tmp_path, segment_bytes=100) as journal:
        reader = Reader(journal, 1)
        seen: list[int] = []

        def read() -> None:
            while len(seen) < 200 and journal.wait_for(reader.next_sequence, 30):
                seen.extend(entry.record()["n"] for entry in reader.read(7))

        thread = threading.Thread(target=read)
        thread.start()
        for n in range(200):
            journal.append({"n": n})
        thread.join()
        reader.close()
        assert seen == list(range(200))


def test_waiting_ends_on_wake_and_on_close(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.wait_for(1, 0) is False
    for end in (journal.wake, journal.close):
        answers: list[bool] = []
        entered = threading.Event()

        def wait(answers: list[bool] = answers, entered: threading.Event = entered) -> None:
            entered.set()
            answers.append(journal.wait_for(1, 60))

        thread = threading.Thread(target=wait)
        thread.start()
        entered.wait()
        while thread.is_alive():  # a wake before the wait began would be missed
            end()
            thread.join(0.01)
        assert answers == [False]


def test_cursors_survive_and_a_spoilt_one_means_again(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert journal.cursor("arr 1") is None
        journal.store_cursor("arr 1", 42)
        journal.store_cursor("../other", 7)
    with Journal(tmp_path) as journal:
        assert journal.cursor("arr 1") == 42
        assert journal.cursor("../other") == 7
        (tmp_path / "journal.arr_1.cursor").write_bytes(b"\x00\x00")
        assert journal.cursor("arr 1") == 0
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, service="audit store"), pytest.raises(ServiceUnavailable) as caught:
        Journal(tmp_path)
    assert "in use" in str(caught.value)
    Journal(tmp_path).close()


def test_a_name_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        Journal(tmp_path, "../x")


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceUnavailable, match="audit store"):
        Journal(tmp_path / "file" / "audit", service="audit store")


def test_after_close_nothing_is_appended(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.close()
    with pytest.raises(ServiceUnavailable, match="closed"):
        journal.append({"n": 1})
    journal.close()


KILLED = """
import sys, threading
from pathlib import Path
from dicom_secure_node.durable.journal import Journal
journal = Journal(Path(sys.argv[1]), segment_bytes=30_000)
out = threading.Lock()
def work(who):
    n = 0
    while True:
        n += 1
        sequence = journal.append({"who": who, "n": n, "text": "x" * 300})
        with out:
            print(sequence, who, n, flush=True)
for who in range(4):
    threading.Thread(target=work, args=(who,)).start()
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    promised: dict[int, tuple[int, int]] = {}
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert child.stdout is not None
        for _ in range(200):
            sequence, who, n = map(int, child.stdout.readline().split())
            promised[sequence] = (who, n)
        child.send_signal(signal.SIGKILL)
        for line in child.stdout.read().splitlines():
            if len(fields := line.split()) == 3:  # the last one may be torn
                promised[int(fields[0])] = (int(fields[1]), int(fields[2]))
        child.stdout.close()
        child.wait()
    with Journal(tmp_path) as journal:
        found = {e.sequence: (e.record()["who"], e.record()["n"]) for e in journal.read_from(1)}
    assert promised.items() <= found.items()
    assert sorted(found) == list(range(1, len(found) + 1))


# A limit on the size of files makes write() fail half way, as a full disk does.
FULL = """
import json, resource, sys
from pathlib import Path
from dicom_secure_node.durable.journal import Journal
from dicom_secure_node.errors import ServiceUnavailable
folder = Path(sys.argv[1])
journal = Journal(folder, service="audit store")
for n in range(1, 4):
    journal.append({"n": n})
good = journal.segments()[0].path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (good + 30, resource.RLIM_INFINITY))
errors = []
for n in range(5):
    try:
        journal.append({"n": 4, "text": "x" * 1000})
    except ServiceUnavailable as exc:
        errors.append(str(exc))
size = journal.segments()[0].path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sequence = journal.append({"n": 4})
print(json.dumps([errors, size == good, sequence, [e.record()["n"] for e in journal.read_from(1)]]))
"""


def test_a_full_disk_fails_the_append_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    errors, unchanged, sequence, found = json.loads(done.stdout)
    assert len(errors) == 5
    assert all(one == "audit store: File too large" for one in errors)
    assert unchanged
    assert (sequence, found) == (4, [1, 2, 3, 4])


def test_a_folder_that_vanished_fails_the_append_and_heals(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with Journal(folder, segment_bytes=10) as journal:
        journal.append({"n": 1})
        folder.rename(tmp_path / "away")
        with pytest.raises(ServiceUnavailable):
            journal.append({"n": 2})  # wants a new segment
        (tmp_path / "away").rename(folder)
        assert journal.append({"n": 2}) == 2
        assert numbers(journal) == [1, 2]


NOTES = {"of a newer release": "2", "that is none": "one\n"}


@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_format(note: str, tmp_path: Path) -> None:
    with Journal(tmp_path, "audit") as journal:
        journal.append({"a": 1})
    assert (tmp_path / "audit.format").read_text() == "1\n"
    (tmp_path / "audit.format").write_text(note)
    with pytest.raises(ConfigurationError, match="newer release"):
        Journal(tmp_path, "audit")
    (tmp_path / "audit.format").unlink()  # as before formats were noted
    with Journal(tmp_path, "audit") as journal:
        assert journal.next_sequence == 2


def test_several_records_are_one_write(tmp_path: Path) -> None:
    with Journal(tmp_path, segment_bytes=200) as journal:
        journal.append({"n": 1})
        assert journal.append_all([{"n": n} for n in range(2, 40)]) == 2
        assert journal.append_all([b'{"n": 40}']) == 40
        assert numbers(journal) == list(range(1, 41))
        assert [part.first for part in journal.segments()] == [1, 40], "not torn in two"
        with pytest.raises(ValueError, match="JSON object"):
            journal.append_all([{"n": 41}, b"[]"])
        assert journal.next_sequence == 41
