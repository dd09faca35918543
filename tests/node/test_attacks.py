"""What an attacker tried who can reach the port, or holds a certificate that allows him little."""

from __future__ import annotations

import contextlib
import io
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pynetdicom import evt

from dicom_secure_node.errors import AssociationRefused, OperationRefused, StoreRefused
from dicom_secure_node.node import server
from dicom_secure_node.node.context import Connection
from dicom_secure_node.node.limits import Limits
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.node.slots import Slots
from tests.loopback import (
    CT_STORAGE,
    VERIFICATION,
    Recorder,
    application_entity,
    associate,
    knock,
    port_of,
    request_pdu,
    serving,
)
from tests.parts import wait_until
from tests.system.raw import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ECHO,
    P_DATA,
    Peer,
    command,
    identity_item,
    small_ct,
    status_of,
    store_command,
)

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
RELEVANT_PATIENT = "1.2.840.10008.5.1.4.37.1"
COMMITMENT = "1.2.840.10008.1.20.1"
C_STORE, C_FIND, C_ECHO, N_EVENT_REPORT, N_ACTION = 0x0001, 0x0020, 0x0030, 0x0100, 0x0130
A_ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"


@pytest.fixture(autouse=True)
def _no_thread_dies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    died: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: died.append(repr(told.exc_value)))
    yield
    assert died == []


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


def _request(kind: int, sop_class: str, number: int = 1, data_set: int = 0x0101) -> bytes:
    """Return the command set of a request; those of services N name event or action type 1."""
    elements = {0x0100: _us(kind), 0x0110: _us(number)}
    if kind == N_ACTION:
        elements |= {0x0003: sop_class.encode(), 0x1001: b"1.2.3", 0x1008: _us(1)}
    else:
        elements |= {0x0002: sop_class.encode(), 0x1000: b"1.2.3", 0x1002: _us(1)}
        elements[0x0700] = _us(0)
    return command(elements, data_set)


@contextlib.contextmanager
def _peer(node: server.SecureServer, abstract: str = VERIFICATION) -> Iterator[Peer]:
    with Peer(socket.create_connection(("127.0.0.1", port_of(node)))) as peer:
        assert peer.associate(request_pdu(abstract=abstract.encode()))[0] == ASSOCIATE_AC
        yield peer


class Gate(Plugin):
    """Notes what it is asked about."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def on_operation(self, operation: Any) -> None:
        self.asked.append((operation.service, operation.sop_class))


# -- getting past a gate -------------------------------------------------------------------

# What comes by which presentation context, and the status it gets.
MISFITS = {
    "a C-ECHO that names CT": (VERIFICATION, C_ECHO, CT_STORAGE, 0x0211),
    "a C-ECHO that names a query": (VERIFICATION, C_ECHO, RELEVANT_PATIENT, 0x0211),
    "a C-STORE that names Verification": (VERIFICATION, C_STORE, VERIFICATION, 0x0211),
    "a C-STORE that names a query": (RELEVANT_PATIENT, C_STORE, RELEVANT_PATIENT, 0x0211),
    "a C-STORE by the context of C-ECHO": (VERIFICATION, C_STORE, CT_STORAGE, 0x0122),
    "a private C-STORE by the context of C-ECHO": (VERIFICATION, C_STORE, "1.2.3.4", 0x0122),
    "a C-STORE by the context of another class": (CT_STORAGE, C_STORE, CT_STORAGE + ".1", 0x0122),
    "a query of another model": (FIND, C_FIND, PATIENT_ROOT_FIND, 0x0122),
    "an N-EVENT-REPORT about CT": (CT_STORAGE, N_EVENT_REPORT, CT_STORAGE, 0x0211),
    "an N-ACTION by the context of C-ECHO": (VERIFICATION, N_ACTION, COMMITMENT, 0x0122),
}


@contextlib.contextmanager
def _application(gate: Plugin, called: list[str]) -> Iterator[server.SecureServer]:
    def noting(name: str, answer: Any) -> Any:
        def handle(_event: Any) -> Any:
            called.append(name)
            return answer

        return handle

    handlers = {
        evt.EVT_C_ECHO: noting("C-ECHO", 0),
        evt.EVT_C_STORE: noting("C-STORE", 0),
        evt.EVT_C_FIND: noting("C-FIND", iter(())),
        evt.EVT_N_ACTION: noting("N-ACTION", (0, None)),
        evt.EVT_N_EVENT_REPORT: noting("N-EVENT-REPORT", (0, None)),
    }
    ae = application_entity(FIND, RELEVANT_PATIENT, COMMITMENT)
    with serving([gate], application=handlers, ae=ae) as node:
        yield node


@pytest.mark.parametrize("case", MISFITS)
def test_PS37_a_request_that_is_not_what_its_context_is_for(case: str) -> None:
    abstract, kind, sop_class, status = MISFITS[case]
    gate, called = Gate(), []  # type: ignore[var-annotated]
    with _application(gate, called) as node, _peer(node, abstract) as peer:
        has_data = kind in (C_STORE, C_FIND)
        peer.send(_request(kind, sop_class, data_set=1 if has_data else 0x0101), 3)
        if has_data:
            peer.send(small_ct(b"1.2.3"), 2)
        answer, body = peer.read()
        assert (answer, status_of(body)) == (P_DATA, status)
    assert called == []
    assert gate.asked == []


@pytest.mark.parametrize("sop_class", [VERIFICATION, RELEVANT_PATIENT, CT_STORAGE, "1.2.3.4"])
def test_a_C_STORE_without_a_data_set_reaches_no_handler(sop_class: str) -> None:
    """pynetdicom would hand it to the service its SOP class names, past every gate."""
    gate, called = Gate(), []  # type: ignore[var-annotated]
    with _application(gate, called) as node, _peer(node) as peer:
        peer.send(_request(C_STORE, sop_class), 3)
        assert status_of(peer.read()[1]) == 0xC000
    assert called == []


def test_a_request_by_a_context_that_was_not_accepted_ends_the_association() -> None:
    gate, called = Gate(), []  # type: ignore[var-annotated]
    with _application(gate, called) as node, _peer(node) as peer:
        pdv = struct.pack(">LBB", len(ECHO) + 2, 99, 3) + ECHO
        peer.sock.sendall(struct.pack(">BBL", P_DATA, 0, len(pdv)) + pdv)
        assert peer.read()[0] == ABORT
    assert called == []
    assert gate.asked == []


def test_a_response_nobody_waits_for_reaches_no_gate_and_no_handler() -> None:
    gate, called = Gate(), []  # type: ignore[var-annotated]
    response = {0x0002: VERIFICATION.encode(), 0x0100: _us(0x8030), 0x0120: _us(1), 0x0900: _us(0)}
    with _application(gate, called) as node, _peer(node) as peer:
        peer.send(command(response), 3)
        assert peer.echo() == 0
    assert called == ["C-ECHO"]


def test_a_C_ECHO_is_served_by_any_context() -> None:
    with serving([]) as node, _peer(node, CT_STORAGE) as peer:
        assert peer.echo() == 0


class _Refusing(Plugin):
    def __init__(self, hook: str, error: Exception) -> None:
        setattr(self, hook, self._refuse)
        self._error = error

    def _refuse(self, _context: Any) -> None:
        raise self._error


@pytest.mark.parametrize(
    "codes",
    [(1, 2, 9), (7, 1, 1), (1, 9, 1), (0, 1, 1)],
    ids=lambda codes: "-".join(map(str, codes)),
)
def test_a_refusal_with_codes_that_are_none_is_a_refusal(codes: tuple[int, int, int]) -> None:
    """pynetdicom raises for them, in a handler whose exceptions it takes for a yes."""
    error = AssociationRefused("no", result=codes[0], source=codes[1], diagnostic=codes[2])
    with serving([_Refusing("on_association_requested", error)]) as node:
        answer = knock(port_of(node), request_pdu())
    assert answer[:1] == bytes((ASSOCIATE_RJ,))
    assert answer[7:10] == b"\x01\x01\x01"


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xFF00])
@pytest.mark.parametrize("hook", ["on_operation", "on_store_started", "on_store"])
def test_a_refusal_never_tells_success(hook: str, status: int) -> None:
    error = StoreRefused("no", status=status)
    with serving([_Refusing(hook, error)]) as node, _peer(node, CT_STORAGE) as peer:
        assert peer.store(b"1.2.3", small_ct(b"1.2.3")) == 0x0110


# -- threads -------------------------------------------------------------------------------


def test_more_C_CANCELs_than_pynetdicom_keeps() -> None:
    with serving([]) as node, _peer(node) as peer:
        for number in range(15):
            peer.send(command({0x0100: _us(0x0FFF), 0x0120: _us(number)}), 3)
        assert peer.echo() == 0


class _Holding(Plugin):
    """Holds every request at the gate until told."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.held = 0
        self._lock = threading.Lock()

    def on_operation(self, operation: Any) -> None:
        with self._lock:
            self.held += 1
        self.go_on.wait(20)


def test_N_EVENT_REPORTs_do_not_get_a_thread_each_without_end() -> None:
    gate, recorder = _Holding(), Recorder()
    listener = server.Listener("reports", limits=Limits(outstanding=4))
    ae = application_entity(COMMITMENT)
    with serving([gate, recorder], ae=ae, listener=listener) as node:
        with _peer(node, COMMITMENT) as peer, contextlib.suppress(ConnectionError):
            for number in range(1, 200):
                peer.send(_request(N_EVENT_REPORT, COMMITMENT, number), 3)
            assert peer.read()[0] == ABORT
        gate.go_on.set()
        recorder.wait_for("on_association_closed")
        assert gate.held <= 4


@pytest.mark.parametrize("kind", [N_EVENT_REPORT, C_ECHO])
def test_another_request_with_the_message_id_of_a_C_STORE_in_progress(kind: int) -> None:
    kept: queue.Queue[bytes] = queue.Queue()

    class Keeping(Plugin):
        def on_store(self, store: Any) -> None:
            with store.body.open() as file:
                kept.put(file.read())

    data_set = small_ct(b"1.2.3", 2000)
    sop_class = COMMITMENT if kind == N_EVENT_REPORT else VERIFICATION
    handlers = {
        evt.EVT_C_STORE: lambda _event: 0,
        evt.EVT_N_EVENT_REPORT: lambda _event: (0, None),
    }
    with (
        serving([Keeping()], application=handlers) as node,
        _peer(node, CT_STORAGE) as peer,
    ):
        peer.send(_request(kind, sop_class), 3)
        peer.send(store_command(b"1.2.3", message_id=1), 3)
        peer.send(data_set[:500], 0)
        assert peer.read()[0] == P_DATA  # the answer to the other one
        peer.send(data_set[500:], 2)
        assert status_of(peer.read()[1]) == 0
    assert kept.get(timeout=5) == data_set


class _Stubborn(io.BytesIO):
    """A body that cannot be let go."""

    size = 0

    def open(self) -> Any:
        return self

    def abandon(self) -> None:
        raise OSError("the disk is gone")


def test_a_body_that_cannot_be_let_go_costs_no_slot() -> None:
    with serving([], receive=lambda _store: _Stubborn()) as node:
        with _peer(node, CT_STORAGE) as peer:
            peer.send(store_command(b"1.2.3"), 3)
            peer.send(small_ct(b"1.2.3")[:40], 0)
        wait_until(lambda: len(node._slots) == 0, "the slot back")


# -- races ---------------------------------------------------------------------------------


def test_an_abort_while_a_gate_decides() -> None:
    class Slow(Plugin):
        def __init__(self) -> None:
            self.asked, self.go_on = threading.Event(), threading.Event()

        def on_association_requested(self, association: Any) -> None:
            self.asked.set()
            self.go_on.wait(20)

    gate, recorder = Slow(), Recorder()
    with serving([gate, recorder]) as node:
        for ending in (A_ABORT, b"", ECHO):
            gate.asked.clear()
            gate.go_on.clear()
            with socket.create_connection(("127.0.0.1", port_of(node))) as peer:
                peer.sendall(request_pdu())
                assert gate.asked.wait(20)
                peer.sendall(ending)
            gate.go_on.set()
            wait_until(lambda: len(node._slots) == 0, "the slot back")
        peer = associate(port_of(node))
        assert peer.is_established
        peer.release()


def test_a_stop_during_the_handshake_lets_nobody_in_afterwards() -> None:
    recorder = Recorder()
    with serving([recorder]) as node:
        with socket.create_connection(("127.0.0.1", port_of(node))) as peer:
            wait_until(lambda: len(node._slots) == 1, "the connection to be seen")
            node.stop(1.0)
            peer.sendall(request_pdu())
            peer.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(100) == b""
        _, error = recorder.wait_for("on_handshake_failed")
        assert "stopping" in error.reason
        assert node.associations() == []


def test_two_requests_in_one_segment_get_two_answers() -> None:
    with serving([]) as node, _peer(node) as peer:
        pdv = struct.pack(">LBB", len(ECHO) + 2, 1, 3) + ECHO
        peer.sock.sendall(2 * (struct.pack(">BBL", P_DATA, 0, len(pdv)) + pdv))
        assert [status_of(peer.read()[1]) for _ in range(2)] == [0, 0]


def test_data_sent_before_the_answer_to_the_request_ends_the_association() -> None:
    gate = Gate()
    with serving([gate]) as node:
        pdv = struct.pack(">LBB", len(ECHO) + 2, 1, 3) + ECHO
        early = struct.pack(">BBL", P_DATA, 0, len(pdv)) + pdv
        knock(port_of(node), request_pdu() + early)
        wait_until(lambda: len(node._slots) == 0, "the slot back")


def test_identities_of_associations_at_the_same_time_are_kept_apart() -> None:
    wrong: list[str] = []

    class Comparing(Plugin):
        def on_association_requested(self, association: Any) -> None:
            association.keep(association.calling_ae)

        def on_store(self, store: Any) -> None:
            title = f"PEER{store.sop_instance.rpartition('.')[2]}"
            if not store.association.calling_ae == store.association.kept(str) == title:
                wrong.append(title)

    def one(number: int) -> int:
        uid = b"1.2.%d" % number
        with Peer(socket.create_connection(("127.0.0.1", port_of(node)))) as peer:
            title = b"PEER%d" % number
            peer.associate(request_pdu(calling=title, abstract=CT_STORAGE.encode()))
            return max(peer.store(uid, small_ct(uid)) for _ in range(5))

    application = {evt.EVT_C_STORE: lambda _event: 0}
    with serving([Comparing()], application=application) as node, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(40))) == {0}
    assert wrong == []


def _talk(sock: socket.socket) -> None:
    while True:
        sock.sendall(bytes(1000))


# -- limits --------------------------------------------------------------------------------


def test_a_peer_that_talks_on_after_its_refusal_is_shown_the_door() -> None:
    listener = server.Listener("talker", limits=Limits(request_seconds=1))
    refusing = _Refusing("on_association_requested", AssociationRefused("no"))
    with serving([refusing], listener=listener) as node:
        with socket.create_connection(("127.0.0.1", port_of(node)), timeout=20) as peer:
            peer.sendall(request_pdu())
            with pytest.raises(ConnectionError):
                _talk(peer)
        wait_until(lambda: len(node._slots) == 0, "the slot back")


@pytest.mark.parametrize("quiet", [True, False])
def test_the_debug_log_shows_no_passcode(quiet: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    secret = identity_item(2, b"ada", b"Xyzzy-17")
    with serving([], quiet=quiet) as node:
        for request in (request_pdu(), request_pdu(user_information=secret)):
            knock(port_of(node), request + A_ABORT)
    assert "Xyzzy" not in caplog.text
    assert ("Presentation Context" in caplog.text) is not quiet, "the other request is shown"


def test_an_IPv6_host_counts_once_for_all_its_addresses() -> None:
    slots = Slots(total=20, per_address=2)
    with socket.socket() as sock:

        def take(address: str) -> tuple[Connection, str]:
            connection = Connection("loopback", address, 1)
            return connection, slots.take(connection, sock)

        first, answer = take("2001:db8:0:1::1")
        assert answer == ""
        assert take("2001:db8:0:1:ffff::2")[1] == ""
        assert "from this address" in take("2001:db8:0:1::3")[1]
        assert take("2001:db8:0:2::3")[1] == ""
        assert slots.give_back(first)
        assert take("2001:db8:0:1::3")[1] == ""
        assert [take(f"fe80::{n}%eth0")[1] for n in range(3)] == ["", "", ""]


def test_PS38_9322_more_contexts_than_there_are_ids() -> None:
    def item(kind: int, content: bytes) -> bytes:
        return bytes((kind, 0)) + len(content).to_bytes(2, "big") + content

    context = item(0x20, b"\x01\0\0\0" + item(0x30, b"1.2") + item(0x40, b"1.2"))
    pdu = request_pdu()
    first = pdu.index(b"1.2.840.10008.3.1.1.1") + 21
    body = pdu[6:first] + context * 128 + pdu[first:]
    recorder = Recorder()
    with serving([recorder]) as node:
        knock(port_of(node), b"\x01\0" + len(body).to_bytes(4, "big") + body)
        _, error = recorder.wait_for("on_handshake_failed")
    assert "129 presentation contexts" in error.reason


def test_a_status_refused_by_a_gate_stays_as_it_is() -> None:
    refusing = _Refusing("on_operation", OperationRefused("no"))
    with serving([refusing]) as node, _peer(node, CT_STORAGE) as peer:
        assert peer.store(b"1.2.3", small_ct(b"1.2.3")) == 0x0124


@pytest.mark.parametrize(
    "items",
    [b"", b"\x30\0\0\x031.2", b"\x40\0\0\x031.2", 2 * b"\x30\0\0\x031.2" + b"\x40\0\0\x031.2"],
)
def test_PS38_9322_a_context_without_its_syntaxes(items: bytes) -> None:
    context = b"\x03\0\0\0" + items
    pdu = request_pdu()
    first = pdu.index(b"1.2.840.10008.3.1.1.1") + 21
    body = pdu[6:first] + b"\x20\0" + len(context).to_bytes(2, "big") + context + pdu[first:]
    recorder = Recorder()
    with serving([recorder]) as node:
        knock(port_of(node), b"\x01\0" + len(body).to_bytes(4, "big") + body)
        _, error = recorder.wait_for("on_handshake_failed")
    assert "presentation context with" in error.reason
