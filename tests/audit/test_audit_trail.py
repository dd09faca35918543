"""The trail against real repositories: what was emitted arrives, whatever happens on the way."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit.collecting.repeats import Repeats, mark_of
from dicom_secure_node.audit.messages import AuditMessage, Participant
from dicom_secure_node.audit.trail import AuditTrail
from dicom_secure_node.audit.transport import Repository
from dicom_secure_node.audit.validate import validate
from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable
from dicom_secure_node.pki.credential import load_credential
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.spec import audit as spec
from dicom_secure_node.tls.context import ClientContext
from dicom_secure_node.tls.profiles import profile_named
from tests import parts
from tests.audit.samples import SOURCE
from tests.certs import Ca, Leaf

ROOT = Path(__file__).parents[2]
BACK_OFF = (0.05, 0.1, 0.2)
NUMBER = re.compile(r"<EventOutcomeDescription>number (\d+)<")


def numbered(number: int) -> AuditMessage:
    who = Participant("815", requestor=True, name="M\u00fcller, Maja", address="192.0.2.1")
    reason = f"number {number}"
    return m.user_authentication(spec.LOGIN, who, outcome=m.MINOR_FAILURE, reason=reason)


def client_context(folder: Path, leaf: Leaf | None = None) -> ssl.SSLContext:
    """Return the standard library's context for a folder of `Pki`."""
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    crt, key = (leaf.crt, leaf.key) if leaf else (folder / "client.crt", folder / "client.key")
    context.load_cert_chain(crt, key)
    return context


class Pki:
    """A CA with a repository's and a node's credentials, as files."""

    def __init__(self, folder: Path) -> None:
        self.ca = Ca()
        self.folder = folder
        self.anchor = self.ca.anchor(folder / "ca.crt")
        self.server = self.ca.write(folder, "server")
        self.client = self.ca.write(folder, "client")

    def context(self, client: Leaf | None = None, kind: str = "ssl") -> Any:
        leaf = client or self.client
        if kind == "ours":
            credential = load_credential(leaf.crt, leaf.key)
            return ClientContext(profile_named("8996"), credential, load_trust([self.anchor]))
        return client_context(self.folder, leaf)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def arr(tmp_path: Path, pki: Pki) -> Iterator[parts.Part]:
    """An rsyslogd that demands a certificate of our CA; not started."""
    part = parts.rsyslog(tmp_path / "arr", ca=pki.anchor, crt=pki.server.crt, key=pki.server.key)
    yield part
    part.stop()


def repository(part_or_port: parts.Part | int, context: Any = None, **more: Any) -> Repository:
    port = part_or_port if isinstance(part_or_port, int) else part_or_port.port
    more = {"back_off": BACK_OFF, "server_name": "localhost", **more}
    return Repository("arr", "127.0.0.1", port, context=context, **more)


@contextmanager
def running(folder: Path, *repositories: Repository, **more: Any) -> Iterator[AuditTrail]:
    trail = AuditTrail(folder / "audit", SOURCE, repositories, hostname="node", **more)
    trail.start()
    try:
        yield trail
    finally:
        trail.stop()


def arrived(folder: Path) -> list[int]:
    """Return the numbers of the messages the repository wrote, in its order."""
    path = folder / "arr" / "arrived.log"
    if not path.exists():
        return []
    lines = path.read_text("utf-8", errors="replace").splitlines()
    return [int(found[1]) for line in lines if (found := NUMBER.search(line))]


def all_arrived(folder: Path, count: int) -> bool:
    return set(arrived(folder)) >= set(range(count))


def first_times(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


@pytest.mark.parametrize("kind", ["ssl", "ours"])
def test_A6_mutual_tls_delivers_in_order_and_unchanged(
    tmp_path: Path, pki: Pki, arr: parts.Part, kind: str
) -> None:
    arr.start()
    with running(tmp_path, repository(arr, pki.context(kind=kind))) as trail:
        for n in range(300):
            trail.emit(numbered(n))
        parts.wait_until(lambda: all_arrived(tmp_path, 300), "300 messages")
        assert arrived(tmp_path) == list(range(300))
        (status,) = trail.status()
        assert (status.connected, status.waiting, status.last_error) == (True, 0, "")
        stored = [entry.record()["xml"] for entry in trail.journal.read_from(1)]
    lines = (tmp_path / "arr" / "arrived.log").read_bytes().splitlines()
    for number, (line, xml) in enumerate(zip(lines, stored, strict=True), 1):
        head, found = line.split(b' [meta sequenceId="%d"] \xef\xbb\xbf' % number)
        assert head.startswith(b"<84>1 ")
        assert head.endswith(b" node dicom-secure-node %d DICOM+RFC3881" % os.getpid())
        assert found == xml.encode()
        assert validate(found).valid


def test_A6_msgid_of_ihe(tmp_path: Path, pki: Pki, arr: parts.Part) -> None:
    arr.start()
    one = repository(arr, pki.context(), message_id="IHE+RFC-3881", identifier="none")
    with running(tmp_path, one) as trail:
        trail.emit(numbered(0))
        parts.wait_until(lambda: all_arrived(tmp_path, 1), "the message")
    assert b" IHE+RFC-3881 - \xef\xbb\xbf" in (tmp_path / "arr" / "arrived.log").read_bytes()


def test_A7_udp_delivers_one_datagram_a_message(tmp_path: Path) -> None:
    with (
        parts.rsyslog(tmp_path / "arr", udp=True) as arr,
        running(tmp_path, repository(arr, transport="udp")) as trail,
    ):
        for n in range(100):
            trail.emit(numbered(n))
        parts.wait_until(lambda: all_arrived(tmp_path, 100), "100 datagrams")
    assert b"\xef\xbb\xbf<AuditMessage>" in (tmp_path / "arr" / "arrived.log").read_bytes()


def test_A7_a_message_too_long_for_a_datagram_is_counted_never_cut(tmp_path: Path) -> None:
    long = replace(numbered(0), reason="x" * 500)
    with (
        parts.rsyslog(tmp_path / "arr", udp=True) as arr,
        running(tmp_path, repository(arr, transport="udp", size_limit=1100)) as trail,
    ):
        trail.emit(long)
        trail.emit(numbered(0))
        parts.wait_until(lambda: all_arrived(tmp_path, 1), "the short one")
        (status,) = trail.status()
        assert status.oversized == 1
        assert "too long" in status.last_error
    assert b"xxx" not in (tmp_path / "arr" / "arrived.log").read_bytes()


def test_A7_a_closed_udp_port_is_noticed(tmp_path: Path) -> None:
    with running(tmp_path, repository(parts.free_port(), transport="udp")) as trail:
        trail.emit(numbered(0))
        parts.wait_until(lambda: "refused" in trail.status()[0].last_error, "the ICMP error")


def test_a_repository_down_at_start_gets_everything_later(
    tmp_path: Path, pki: Pki, arr: parts.Part
) -> None:
    with running(tmp_path, repository(arr, pki.context())) as trail:
        for n in range(50):
            trail.emit(numbered(n))
        parts.wait_until(lambda: trail.status()[0].last_error, "the first failure")
        (status,) = trail.status()
        assert (status.connected, status.waiting) == (False, 50)
        assert "refused" in status.last_error
        arr.start()
        parts.wait_until(lambda: all_arrived(tmp_path, 50), "50 messages")
        parts.wait_until(lambda: not trail.status()[0].last_error, "the error forgotten")
    assert first_times(arrived(tmp_path)) == list(range(50))


def test_a_repository_killed_under_load_misses_nothing(
    tmp_path: Path, pki: Pki, arr: parts.Part
) -> None:
    count = 3000
    arr.start()
    with running(tmp_path, repository(arr, pki.context()), spool_limit=10_000) as trail:

        def load() -> None:
            for n in range(count):
                trail.emit(numbered(n))

        thread = threading.Thread(target=load)
        thread.start()
        for upto in (count // 4, count // 2):
            parts.wait_until(lambda upto=upto: len(set(arrived(tmp_path))) > upto, "some load")
            arr.kill()
            arr.start()
        thread.join()
        parts.wait_until(lambda: all_arrived(tmp_path, count), "every message", 60)
    found = arrived(tmp_path)
    # Order per source: whatever comes again is a repetition from some point on, in order.
    assert sum(other < one for one, other in pairwise(found)) <= 4
    assert set(found) == set(range(count))


def test_what_was_not_delivered_is_sent_after_a_restart(
    tmp_path: Path, pki: Pki, arr: parts.Part
) -> None:
    with running(tmp_path, repository(arr, pki.context())) as trail:
        for n in range(20):
            trail.emit(numbered(n))
    arr.start()
    with running(tmp_path, repository(arr, pki.context())):
        parts.wait_until(lambda: all_arrived(tmp_path, 20), "20 messages")
    with running(tmp_path, repository(arr, pki.context())) as trail:
        trail.emit(numbered(20))
        parts.wait_until(lambda: all_arrived(tmp_path, 21), "one more")
    assert arrived(tmp_path) == list(range(21))  # an orderly stop repeats nothing


@pytest.mark.parametrize("kind", ["sequence", "record@32473"])
def test_what_comes_twice_has_the_same_identifier_also_after_a_restart(
    tmp_path: Path, pki: Pki, kind: str
) -> None:
    """Nothing is ever known to have arrived at a repository that cuts the connection."""
    with running(tmp_path) as trail:
        for n in range(3):
            trail.emit(numbered(n))
        trail.journal.store_cursor("arr", 1)
    found: list[bytes] = []
    for _ in range(2):
        arr = CuttingRepository(pki, 3)
        with running(tmp_path, repository(arr.port, pki.context(), identifier=kind)):
            arr.cut.wait(20)
        found += arr.messages
    repeats = Repeats()
    for one in found:
        repeats.see(one)
    assert (repeats.marked, repeats.count) == (len(found), len(found) - 3)
    assert repeats.count
    marks = [mark_of(one) for one in found]
    numbers = [mark.number for mark in marks if mark]
    assert first_times(numbers) == [1, 2, 3]
    assert len({mark.source for mark in marks if mark}) == 1


def test_stop_delivers_what_waits(tmp_path: Path, pki: Pki, arr: parts.Part) -> None:
    arr.start()
    with running(tmp_path, repository(arr, pki.context())) as trail:
        parts.wait_until(lambda: trail.status()[0].connected, "a connection")
        for n in range(500):
            trail.emit(numbered(n))
    parts.wait_until(lambda: all_arrived(tmp_path, 500), "500 messages")


REFUSED = {
    "our certificate is of another CA, ssl": "ssl",
    "our certificate is of another CA, our TLS": "ours",
}


@pytest.mark.parametrize("kind", REFUSED.values(), ids=REFUSED)
def test_A6_a_repository_that_refuses_us_costs_no_message(
    tmp_path: Path, pki: Pki, arr: parts.Part, kind: str
) -> None:
    stranger = Ca("Another CA").write(tmp_path, "stranger")
    arr.start()
    with running(tmp_path, repository(arr, pki.context(stranger, kind))) as trail:
        trail.emit(numbered(0))
        parts.wait_until(lambda: trail.status()[0].last_error, "the refusal")
        parts.wait_until(lambda: trail.status()[0].waiting == 1, "the message to wait")
    assert arrived(tmp_path) == []
    with running(tmp_path, repository(arr, pki.context(kind=kind))):
        parts.wait_until(lambda: all_arrived(tmp_path, 1), "the message")


@pytest.mark.parametrize("kind", ["ssl", "ours"])
def test_A6_a_repository_of_another_name_is_refused(
    tmp_path: Path, pki: Pki, arr: parts.Part, kind: str
) -> None:
    arr.start()
    one = repository(arr, pki.context(kind=kind), server_name="arr.example.org")
    with running(tmp_path, one) as trail:
        trail.emit(numbered(0))
        parts.wait_until(lambda: "name" in trail.status()[0].last_error, "the refusal")
        assert trail.status()[0].waiting == 1
    assert arrived(tmp_path) == []


class ClosingRepository:
    """A TLS repository that closes in good order after some octets were read and were quiet.

    With `silently` it leaves out close_notify, as if it had been killed.
    """

    def __init__(self, pki: Pki, *, silently: bool = False) -> None:
        self._silently = silently
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pki.server.crt, pki.server.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.close_now = threading.Event()
        self.data = b""
        self.connections = 0
        self.endings: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._context.wrap_socket(
                raw, server_side=True, suppress_ragged_eofs=False
            ) as one:
                one.settimeout(0.05)
                try:
                    self.endings.append(self._read(one))
                    if self._silently:
                        continue
                    one.unwrap()
                except OSError as exc:
                    self.endings.append(repr(exc))

    def _read(self, one: ssl.SSLSocket) -> str:
        while not self.close_now.is_set():
            try:
                more = one.recv(65536)
            except TimeoutError:
                continue
            if not more:
                return "close_notify"
            self.data += more
        self.close_now.clear()
        return "ours"

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


class CuttingRepository:
    """A TLS repository that reads so many messages from one connection and resets it."""

    def __init__(self, pki: Pki, count: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pki.server.crt, pki.server.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut = threading.Event()
        self.messages: list[bytes] = []
        threading.Thread(target=self._serve, args=(count,), daemon=True).start()

    def _serve(self, count: int) -> None:
        raw, _ = self._listener.accept()
        self._listener.close()
        with self._context.wrap_socket(raw, server_side=True) as one:
            with one.makefile("rb") as file:
                for _ in range(count):
                    digits = b""
                    while not digits.endswith(b" "):
                        digits += file.read(1)
                    self.messages.append(file.read(int(digits)))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.cut.set()


@pytest.mark.parametrize("kind", ["ssl", "ours"])
def test_RFC5425_close_an_idle_connection_costs_no_message(
    tmp_path: Path, pki: Pki, kind: str
) -> None:
    arr = ClosingRepository(pki)
    one = repository(arr.port, pki.context(kind=kind), resend_seconds=0.0)
    with running(tmp_path, one) as trail:
        for n in range(3):
            trail.emit(numbered(n))
            parts.wait_until(lambda n=n: f"number {n}<".encode() in arr.data, f"message {n}")
            arr.close_now.set()
            parts.wait_until(lambda: not trail.status()[0].connected, "the close noticed")
            assert trail.status()[0].last_error == "closed by the repository"
        assert arr.connections == 3  # it came back when there was something to say
    arr.stop()
    assert [int(n) for n in NUMBER.findall(arr.data.decode())] == [0, 1, 2]


ENDS = {
    "of what was read lately nobody knows whether it was written": (60.0, (1, 4, 0)),
    "after a while of silence it was": (0.0, (0, 0, 0)),
}


@pytest.mark.parametrize(("seconds", "counts"), ENDS.values(), ids=ENDS)
def test_RFC8446_6_1_an_end_without_close_notify(
    tmp_path: Path, pki: Pki, seconds: float, counts: tuple[int, int, int]
) -> None:
    arr = ClosingRepository(pki, silently=True)
    one = repository(arr.port, pki.context(kind="ours"), resend_seconds=seconds)
    with running(tmp_path, one) as trail:
        for n in range(4):
            trail.emit(numbered(n))
            parts.wait_until(lambda n=n: f"number {n}<".encode() in arr.data, f"message {n}")
        parts.wait_until(lambda: trail.status()[0].sent == 4, "all four counted")
        arr.close_now.set()
        parts.wait_until(lambda: not trail.status()[0].connected, "the end noticed")
        (status,) = trail.status()
        assert "without close_notify" in status.last_error
        assert (status.breaks, status.repeated, status.unproven) == counts
        trail.emit(numbered(4))
        parts.wait_until(lambda: b"number 4<" in arr.data, "the next one")
    arr.stop()
    assert [int(n) for n in NUMBER.findall(arr.data.decode())] == [
        *range(4),
        *range(4 - counts[1], 5),
    ]


@pytest.mark.parametrize("kind", ["ssl", "ours"])
def test_RFC5425_close_stop_sends_close_notify(tmp_path: Path, pki: Pki, kind: str) -> None:
    arr = ClosingRepository(pki)
    with running(tmp_path, repository(arr.port, pki.context(kind=kind))) as trail:
        trail.emit(numbered(0))
        parts.wait_until(lambda: b"number 0" in arr.data, "the message")
    arr.stop()
    assert arr.endings == ["close_notify"]


@pytest.mark.parametrize("kind", ["ssl", "ours"])
def test_what_tcp_did_not_acknowledge_is_sent_again(tmp_path: Path, pki: Pki, kind: str) -> None:
    """A repository shakes hands, never reads, and vanishes; its successor gets everything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.crt, pki.server.key)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what it may lose: little
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(20)
        port = listener.getsockname()[1]
        one = repository(port, pki.context(kind=kind), resend_seconds=0.0)
        with running(tmp_path, one) as trail:
            raw, _ = listener.accept()
            deaf = context.wrap_socket(raw, server_side=True)
            parts.wait_until(lambda: trail.status()[0].connected, "a connection")
            for n in range(300):
                trail.emit(numbered(n))
            parts.wait_until(lambda: trail.status()[0].sent == 300, "all of it on its way")
            deaf.close()
            seen: set[int] = set()
            for _ in range(20):  # it may come more than once
                raw, _ = listener.accept()
                seen |= _numbers_until(context, raw, 300)
                if len(seen) == 300:
                    break
    assert seen == set(range(300))


def _numbers_until(context: ssl.SSLContext, raw: socket.socket, count: int) -> set[int]:
    data = b""
    with raw, context.wrap_socket(raw, server_side=True) as one:
        one.settimeout(5)
        try:
            while len(set(NUMBER.findall(data.decode(errors="replace")))) < count:
                more = one.recv(65536)
                if not more:
                    break
                data += more
        except OSError:
            pass
    return {int(n) for n in NUMBER.findall(data.decode(errors="replace"))}


def test_full_refuses_and_drains(tmp_path: Path, pki: Pki, arr: parts.Part) -> None:
    with running(tmp_path, repository(arr, pki.context()), spool_limit=10) as trail:
        for n in range(9):
            trail.emit(numbered(n))
        assert not trail.full
        trail.emit(numbered(9))
        assert trail.full
        trail.emit(numbered(10))  # what has happened is still recorded
        arr.start()
        parts.wait_until(lambda: all_arrived(tmp_path, 11), "11 messages")
        parts.wait_until(lambda: not trail.full, "room")


def test_full_drops_the_oldest_and_says_how_many(tmp_path: Path, pki: Pki, arr: parts.Part) -> None:
    one = repository(arr, pki.context())
    with running(tmp_path, one, spool_limit=10, when_full="drop-oldest") as trail:
        for n in range(50):
            trail.emit(numbered(n))
        assert not trail.full
        parts.wait_until(lambda: trail.status()[0].last_error, "a failure")
        (status,) = trail.status()
        assert (status.waiting, status.dropped) == (10, 40)
        arr.start()
        parts.wait_until(lambda: 49 in arrived(tmp_path), "the newest")
        assert trail.status()[0].dropped == 40
        assert trail.journal.next_sequence == 51  # the gap is told, not stored
    assert arrived(tmp_path) == list(range(40, 50))
    first = (tmp_path / "arr" / "arrived.log").read_bytes().splitlines()[0]
    xml = first.partition(b"\xef\xbb\xbf")[2]
    assert b'csd-code="110133"' in xml
    assert b"40 audit messages" in xml
    assert validate(xml).valid


def test_two_repositories_do_not_wait_for_each_other(
    tmp_path: Path, pki: Pki, arr: parts.Part
) -> None:
    arr.start()
    dead = replace(repository(parts.free_port(), pki.context()), name="dead")
    with running(tmp_path, dead, repository(arr, pki.context())) as trail:
        for n in range(20):
            trail.emit(numbered(n))
        parts.wait_until(lambda: all_arrived(tmp_path, 20), "20 messages")
        assert [one.waiting for one in trail.status()] == [20, 0]


def test_trouble_with_delivery_is_no_audit_message(tmp_path: Path, pki: Pki) -> None:
    with running(tmp_path, repository(parts.free_port(), pki.context())) as trail:
        trail.emit(numbered(0))
        parts.wait_until(lambda: trail.status()[0].last_error, "a failure")
        assert trail.journal.next_sequence == 2


def test_a_new_repository_gets_what_comes_from_now_on(
    tmp_path: Path, pki: Pki, arr: parts.Part
) -> None:
    with running(tmp_path) as trail:
        trail.emit(numbered(7))
    arr.start()
    with running(tmp_path, repository(arr, pki.context())) as trail:
        trail.emit(numbered(0))
        parts.wait_until(lambda: all_arrived(tmp_path, 1), "the message")
    assert arrived(tmp_path) == [0]


def test_delivered_messages_are_kept_for_the_days_asked_for(tmp_path: Path) -> None:
    now = [datetime.now(UTC)]
    trail = AuditTrail(tmp_path, SOURCE, keep_days=2, clock=lambda: now[0])
    trail.journal._segment_bytes = 1
    for n in range(5):
        trail.emit(numbered(n))
    trail.discard_old()
    assert trail.journal.first_sequence == 1
    now[0] += timedelta(days=3)
    trail.discard_old()
    assert trail.journal.first_sequence == 5  # the last segment carries the number on
    trail.stop()


def test_what_is_not_delivered_is_kept_however_old(tmp_path: Path, pki: Pki) -> None:
    one = repository(parts.free_port(), pki.context())
    now = [datetime.now(UTC)]
    trail = AuditTrail(tmp_path, SOURCE, [one], keep_days=0, clock=lambda: now[0])
    trail.journal._segment_bytes = 1
    for n in range(5):
        trail.emit(numbered(n))
    now[0] += timedelta(days=3)
    trail.discard_old()
    assert trail.journal.first_sequence == 1
    trail.stop()


def test_emit_fails_when_the_disk_does(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path, SOURCE)
    trail.stop()
    with pytest.raises(ServiceUnavailable, match="audit store"):
        trail.emit(numbered(0))


WRONG = {
    "unknown when_full": {"when_full": "shrug"},
    "no room at all": {"spool_limit": 0},
}


@pytest.mark.parametrize("settings", WRONG.values(), ids=WRONG)
def test_wrong_settings(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AuditTrail(tmp_path, SOURCE, **settings)


def test_wrong_repositories(tmp_path: Path, pki: Pki) -> None:
    one = repository(1, pki.context())
    with pytest.raises(ConfigurationError, match="one name"):
        AuditTrail(tmp_path, SOURCE, [one, one])
    for wrong in (
        {"transport": "tcp"},
        {"transport": "tls"},
        {"back_off": ()},
        {"identifier": "uuid"},
    ):
        with pytest.raises(ConfigurationError):
            repository(1, None if "back_off" not in wrong else pki.context(), **wrong)


def test_a_damaged_record_does_not_stop_delivery(tmp_path: Path, pki: Pki, arr: parts.Part) -> None:
    arr.start()
    with running(tmp_path, repository(arr, pki.context())) as trail:
        trail.journal.append({"no": "message"})
        trail.emit(numbered(0))
        parts.wait_until(lambda: all_arrived(tmp_path, 1), "the message")


def test_stop_is_quick_when_nobody_is_there(tmp_path: Path, pki: Pki) -> None:
    one = replace(repository(parts.free_port(), pki.context()), back_off=(3600.0,))
    trail = AuditTrail(tmp_path, SOURCE, [one])
    trail.start()
    trail.emit(numbered(0))
    parts.wait_until(lambda: trail.status()[0].last_error, "a failure")
    trail.stop()
    assert "audit-arr" not in {thread.name for thread in threading.enumerate()}


EMITTING = """
import sys
from pathlib import Path
from dicom_secure_node.audit.trail import AuditTrail
from dicom_secure_node.audit.transport import Repository
from tests.audit.samples import SOURCE
from tests.audit.test_audit_trail import BACK_OFF, client_context, numbered
folder, port, pki = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
one = Repository("arr", "127.0.0.1", port, context=client_context(pki), server_name="localhost",
                 back_off=BACK_OFF)
trail = AuditTrail(folder / "audit", SOURCE, [one], hostname="node")
trail.start()
for n in range(int(sys.argv[4]), 10**9):
    trail.emit(numbered(n))
    print(n, flush=True)
"""


def test_a_node_killed_while_sending_misses_nothing(
    tmp_path: Path, pki: Pki, arr: parts.Part
) -> None:
    arr.start()
    promised = -1
    for _ in range(3):
        argv = [sys.executable, "-c", EMITTING, str(tmp_path), str(arr.port), str(pki.folder)]
        child = subprocess.Popen(
            [*argv, str(promised + 1)], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        assert child.stdout is not None
        for _ in range(200):
            promised = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split("\n")[:-1]  # the last line may be torn
        promised = int(rest[-1]) if rest else promised
        child.stdout.close()
        child.wait()
    with running(tmp_path, repository(arr, pki.context())):
        parts.wait_until(lambda: all_arrived(tmp_path, promised + 1), "every promised message")
