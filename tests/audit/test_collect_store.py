"""The store of the repository: what goes in comes out, octet by octet, and can be found."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit.collecting import chain
from dicom_secure_node.audit.collecting.records import Count, Filter, Head, Status
from dicom_secure_node.audit.collecting.store import RecordStore
from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable
from dicom_secure_node.spec import audit as spec
from tests.audit.collected import (
    START,
    Clock,
    arrival,
    every_message,
    fill,
    index_all,
    log_files,
    numbers_in,
    syslog,
)
from tests.audit.samples import octets

ODD = {
    "no UTF-8": b"<85>1 - - - - - - \xff\xfe\x00",
    "NUL and line feeds": b"<85>1 a\x00b\nc\r\n",
    "a line separator": "<85>1 \u2028\x85 \U0001f600".encode(),
    "a lone surrogate in UTF-8": b"\xed\xa0\x80",
    "what looks like our own line": b'{"seq": 1, "chain": "' + b"0" * 64 + b'"}',
    "nothing but a blank": b" ",
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
def test_odd_octets_come_back_as_they_were(raw: bytes, tmp_path: Path) -> None:
    fill(tmp_path, [raw])
    with RecordStore(tmp_path) as store:
        (record,) = store.query()
        assert record.raw == raw
        assert (record.valid, record.intact) == (False, True)
        assert list(store.verify()) == []


@given(st.binary(max_size=300), st.text(max_size=40))
def test_any_octets_come_back_as_they_were(raw: bytes, peer: str) -> None:
    fields = chain.message_fields(arrival(raw, peer=peer.encode("utf-8", "replace").decode()))
    head = chain.head_of(7, fields)
    link = chain.link(chain.GENESIS, head)
    line = chain.parse(b'{"seq": 7, ' + chain.sealed(fields, link)[1:])
    assert (line.head, line.chain, line.sequence) == (head, link, 7)
    assert line.arrival() == arrival(raw, peer=peer.encode("utf-8", "replace").decode())


def test_every_kind_of_message_is_kept_found_and_judged(tmp_path: Path) -> None:
    wanted = every_message()
    fill(tmp_path, wanted)
    with RecordStore(tmp_path) as store:
        found = list(store.query())
        assert [one.raw for one in reversed(found)] == wanted
        assert all(one.valid and one.intact for one in found)
        assert (found[0].peer, found[0].transport) == ("192.0.2.7:40112", "tls")
        assert found[-1].received_at == START
        assert store.status() == Status(1, len(wanted) + 1, len(wanted) + 1)
        assert list(store.verify()) == []


def messages_of_three_users() -> list[bytes]:
    ada = m.Participant("ada", True, ("WS1",), name="Ada Lovelace", address="192.0.2.1")
    eve = m.Participant("EVE", True, name="Eve", address="192.0.2.2")
    node = m.Participant("7", False, ("ARCHIVE",), address="192.0.2.20")
    study = m.study("1.2.3.4", accessions=["A-17"])
    patient = m.patient("P%1", "Doe^Jane")
    found = [
        m.user_authentication(spec.LOGIN, ada, node),
        m.user_authentication(spec.LOGIN, eve, node, outcome=4, reason="wrong passcode"),
        m.instances_accessed("R", [ada], [study], patient),
        m.instances_accessed("R", [eve], [m.study("1.2.3.40")], m.patient("P-2")),
    ]
    return [*(syslog(octets(one)) for one in found), b"<85>1 no audit message"]


FILTERS = {
    "everything": (Filter(), [6, 5, 4, 3, 2]),
    "an event": (Filter(event="110114"), [3, 2]),
    "failures": (Filter(failures=True), [3]),
    "an outcome": (Filter(outcome=4), [3]),
    "no failure": (Filter(outcome=0), [5, 4, 2]),
    "a user by ID": (Filter(user="ada"), [4, 2]),
    "a user by name, whatever the case": (Filter(user="ada lovelace"), [4, 2]),
    "a user by the beginning": (Filter(user="AD*"), [4, 2]),
    "a user that is only the beginning of one": (Filter(user="ad"), []),
    "wildcards of SQL are none": (Filter(user="a%"), []),
    "a patient": (Filter(patient="p%1"), [4]),
    "a patient by name": (Filter(patient="DOE^*"), [4]),
    "a study": (Filter(study="1.2.3.4"), [4]),
    "an accession number": (Filter(study="A-17"), [4]),
    "studies by their root": (Filter(study="1.2.3.*"), [5, 4]),
    "a node by address": (Filter(node="192.0.2.2"), [5, 3]),
    "a node by AE title": (Filter(node="ws1"), [4, 2]),
    "a node by its certificate": (Filter(node="CN=CT1"), [6, 5, 4, 3, 2]),
    "the address it came from": (Filter(node="192.0.2.7"), [6, 5, 4, 3, 2]),
    "since": (Filter(since=START + timedelta(minutes=3)), [6, 5]),
    "until": (Filter(until=START + timedelta(minutes=1)), [2]),
    "not valid": (Filter(valid=False), [6]),
    "all of it together": (
        Filter(event="110103", user="eve", failures=False, node="192.0.2.2", valid=True),
        [5],
    ),
    "nobody": (Filter(user="nobody", event="110114"), []),
}


@pytest.fixture(scope="module")
def three_users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    fill(folder, messages_of_three_users())
    return folder


@pytest.mark.parametrize(("asked", "want"), FILTERS.values(), ids=FILTERS)
def test_what_a_filter_finds(asked: Filter, want: list[int], three_users: Path) -> None:
    with RecordStore(three_users) as store:
        assert [one.sequence for one in store.query(asked)] == want
        assert sum(one.total for one in store.counts(asked)) == len(want)
        assert sum(number for _, number in store.events(asked)) == len(want)


def test_pages_and_counts(three_users: Path) -> None:
    with RecordStore(three_users) as store:
        first = [one.sequence for one in store.query(limit=2)]
        second = [one.sequence for one in store.query(before=first[-1], limit=2)]
        assert (first, second) == ([6, 5], [4, 3])
        minutes = store.counts(span=timedelta(minutes=2))
        assert minutes == [
            Count(START, 2, 1),
            Count(START + timedelta(minutes=2), 2, 0),
            Count(START + timedelta(minutes=4), 1, 0),
        ]
        assert store.events()[0] == ("110103", 2)
        one = store.get(3)
        assert one is not None
        assert one.summary.text == "wrong passcode"
        assert store.get(1) is None, "the log's own note"
        assert store.get(99) is None


def test_more_than_a_page_of_the_index(tmp_path: Path) -> None:
    with RecordStore(tmp_path, writing=True) as store:
        store.append([arrival(b"<85>1 %d" % n) for n in range(700)])
        index_all(store)
        assert [one.raw for one in store.query()][::-1] == [b"<85>1 %d" % n for n in range(700)]


def test_two_do_not_write_and_any_may_read(tmp_path: Path) -> None:
    with RecordStore(tmp_path, writing=True) as store:
        store.append([arrival(b"<85>1 a")])
        index_all(store)
        with pytest.raises(ServiceUnavailable, match="in use"):
            RecordStore(tmp_path, writing=True)
        with RecordStore(tmp_path) as reader:
            assert [one.raw for one in reader.query()] == [b"<85>1 a"]
            assert list(reader.verify()) == []
            with pytest.raises(ServiceUnavailable, match="reading only"):
                reader.append([arrival(b"<85>1 b")])


def test_no_index_yet(tmp_path: Path) -> None:
    with RecordStore(tmp_path) as store, pytest.raises(ServiceUnavailable, match="index"):
        next(store.query())


def test_an_index_of_another_kind(tmp_path: Path) -> None:
    with (
        RecordStore(tmp_path, "mysql://user:secret@db/x") as store,
        pytest.raises(ConfigurationError) as caught,
    ):
        next(store.query())
    assert "secret" not in str(caught.value)


def test_numbers_and_hashes_go_on_after_a_restart(tmp_path: Path) -> None:
    heads = [fill(tmp_path, [b"<85>1 a"] * 3) for _ in range(4)]
    assert [head.sequence for head in heads] == [4, 7, 10, 13]
    with RecordStore(tmp_path) as store:
        assert list(store.verify(heads)) == []


def test_the_chain_can_be_checked_by_hand(tmp_path: Path) -> None:
    """The recipe in `chain`, run by a shell."""
    fill(tmp_path, ['<85>1 M\u00fcller\'s \\ "x"'.encode(), b"<85>1 b"], segment_bytes=10**6)
    (path,) = log_files(tmp_path)
    script = r"""before=$(printf '0%.0s' $(seq 64))
while IFS= read -r line; do
    sum=$(printf '%s%s' "$before" "${line%, \"chain\"*}" | sha256sum | cut -d' ' -f1)
    case $line in *"\"chain\": \"$sum\"}") echo good ;; *) echo bad ;; esac
    before=$sum
done"""
    with path.open() as log:
        done = subprocess.run(
            ["/bin/bash", "-c", script], stdin=log, capture_output=True, check=True
        )
    assert done.stdout.split() == [b"good"] * 3


def test_retention_deletes_whole_files_and_leaves_a_chain(tmp_path: Path) -> None:
    clock = Clock()
    head = fill(tmp_path, every_message(), clock=clock)
    files = log_files(tmp_path)
    assert len(files) > 5
    clock.now = START + timedelta(days=10, minutes=20)
    with RecordStore(tmp_path, writing=True, keep_days=10, clock=clock) as store:
        last = store.discard_old()
        kept = log_files(tmp_path)
        assert numbers_in(kept[0])[0] == last + 1
        assert 15 < last <= 22, "what is younger, and what is in a file with it, stays"
        assert store.discard_old() == 0
        index_all(store)
        assert [one.sequence for one in store.query()][-1] == last + 1
        (found,) = store.verify([head])
        assert (found.kind, found.sequence, found.last, found.breach) == ("deleted", 1, last, False)
        clock.now += timedelta(minutes=20)
        again = store.discard_old()
        assert again > last
        assert [(one.kind, one.last) for one in store.verify([head])] == [
            ("deleted", last),
            ("deleted", again),
        ]


def test_a_crash_between_the_note_and_the_deletion(tmp_path: Path) -> None:
    clock = Clock()
    fill(tmp_path, every_message(), clock=clock)
    before = {path: path.read_bytes() for path in log_files(tmp_path)[:-1]}
    clock.now = START + timedelta(days=10, minutes=20)
    with RecordStore(tmp_path, writing=True, keep_days=10, clock=clock) as store:
        last = store.discard_old()
    for path, octets_of_it in before.items():
        path.write_bytes(octets_of_it)  # as if it had not come to that
    with RecordStore(tmp_path) as store:
        assert [one.kind for one in store.verify()] == ["deleted"]
    with RecordStore(tmp_path, writing=True, keep_days=10, clock=clock) as store:
        assert store.discard_old() == last
        assert {one.kind for one in store.verify()} == {"deleted"}


def test_keeping_everything_is_the_default(tmp_path: Path) -> None:
    clock = Clock()
    fill(tmp_path, every_message(), clock=clock)
    clock.now = START + timedelta(days=10_000)
    with RecordStore(tmp_path, writing=True, clock=clock) as store:
        assert store.discard_old() == 0


def test_a_head_is_shown_as_it_is_typed() -> None:
    assert str(Head(5, "ab")) == "5:ab"
