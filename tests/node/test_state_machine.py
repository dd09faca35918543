"""The upper layer's state machine (PS3.8 9.2), walked at random by a peer that keeps the book.

The model knows what an acceptor has to answer in each state of Table 9-10 that a peer can bring
it to: Sta2 (connected, no request yet), Sta6 (associated), Sta13 (over, waiting for the peer to
close). Hypothesis picks the way, and the ways to cut what is sent into presentation data
values, PDUs and segments. However it went, everybody else is served, what was acknowledged is
kept byte by byte, and no thread, descriptor or slot stays behind.

A longer walk by hand: ``MACHINE_EXAMPLES=2000 python -m pytest tests/node/test_state_machine.py``.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydicom.dataset import Dataset
from pynetdicom import evt

from dicom_secure_node.archive import Archive
from dicom_secure_node.node.limits import Limits
from dicom_secure_node.node.plugins.storage import StoragePlugin
from dicom_secure_node.node.server import Listener, SecureServer
from tests.fuzz.acceptor import FIND, by_pynetdicom
from tests.fuzz.fuzz_upper_layer import request
from tests.loopback import application_entity, port_of, serving
from tests.parts import wait_until
from tests.system.raw import ECHO, command, small_ct, store_command
from tests.system.running import data_set

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "40"))
STEPS = 14
LARGEST = 16_384  # bytes of a PDU
LIMITS = Limits(pdu_length=LARGEST, request_length=LARGEST)

AC, RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 2, 3, 4, 5, 6, 7
BY_USER, BY_PROVIDER = 0, 2  # source of an A-ABORT (PS3.8 9.3.8)
CT, VERIFY, QUERY, UNKNOWN = 1, 3, 5, 99  # presentation context IDs
SUCCESS, PENDING, CANCELLED, MISMATCH = 0x0000, 0xFF00, 0xFE00, 0xA900


def pdu(kind: int, body: bytes = bytes(4)) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def pdv(context: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">LBB", len(fragment) + 2, context, control) + fragment


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def find_command(number: int) -> bytes:
    elements = {0x0002: FIND.encode(), 0x0100: us(0x0020), 0x0110: us(number), 0x0700: us(0)}
    return command(elements, 1)


def cancel_command(number: int) -> bytes:
    return command({0x0100: us(0x0FFF), 0x0120: us(number)})


def identifier(patient: bytes) -> bytes:
    return struct.pack("<HHL", 0x0010, 0x0020, len(patient)) + patient


# -- how to cut things up ------------------------------------------------------------------

sizes = st.lists(st.sampled_from((1, 2, 3, 50, 700, LARGEST - 6)), min_size=1, max_size=3)
segments = st.lists(st.sampled_from((1, 5, 6, 7, 1000)), max_size=4)
pixels = st.sampled_from((0, 2, 64, 5_000, 40_000))


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    """Return `data` in pieces of these sizes; the last size goes on, and not many are small."""
    pieces, number = [], 0
    while data or not pieces:
        size = at[number] if number < len(at) else max(at[-1], len(data) // 20)
        pieces.append(data[:size])
        data, number = data[size:], number + 1
    return pieces


def values(context: int, is_command: int, data: bytes, at: Sequence[int]) -> list[bytes]:
    """Return the presentation data values of a message's command or data set."""
    pieces = cut(data, at)
    last = len(pieces) - 1
    return [pdv(context, is_command | 2 * (n == last), one) for n, one in enumerate(pieces)]


def packed(all_values: Sequence[bytes], together: int) -> bytes:
    """Return P-DATA-TFs of up to so many values each."""
    out, body, count = b"", b"", 0
    for one in all_values:
        if body and (count >= together or len(body) + len(one) > LARGEST):
            out, body, count = out + pdu(P_DATA, body), b"", 0
        body, count = body + one, count + 1
    return out + pdu(P_DATA, body)


# -- the requests that are not as they should be, and the answer ---------------------------


def _changed(old: bytes, new: bytes) -> bytes:
    return request().replace(old, new, 1)


ODD = {
    "a version of bit 1 only": (b"\x01\0" + request()[2:6] + b"\0\2" + request()[8:], (1, 2, 2)),
    "another application context": (_changed(b"8.3.1.1.1", b"8.3.1.1.2"), (1, 1, 2)),
    "no context": (request({}), None),
    "an item that overruns": (_changed(b"\x50\0\0", b"\x50\0\1"), None),
    "4 GiB": (b"\x01\0\xff\xff\xff\xff", None),
}


class Peer:
    """A socket, and what has been heard on it."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes, at: Sequence[int] = ()) -> None:
        """Send in segments of these sizes, what is left in one."""
        for size in at:
            self.sock.sendall(data[:size])
            data = data[size:]
        self.sock.sendall(data)

    def read(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU; type 0 when the node has closed."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        return header[0], self._exactly(int.from_bytes(header[2:], "big"))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.sock.recv(count - len(data))
            except ConnectionResetError:
                return data
            if not piece:
                return data
            data += piece
        return data

    def status(self) -> tuple[int, int]:
        """Return the message a response answers, and its status."""
        kind, body = self.read()
        assert kind == P_DATA, f"PDU of type {kind}, wanted a response"
        length, _, control = struct.unpack_from(">LBB", body)
        assert control == 3
        answer = by_pynetdicom(body[6 : 4 + length]).command_set
        if answer.CommandDataSetType != 0x0101 and len(body) == 4 + length:
            assert self.read()[0] == P_DATA  # the identifier of a match
        return int(answer.MessageIDBeingRespondedTo), int(answer.Status)

    def associate(self) -> None:
        self.send(request())
        assert self.read()[0] == AC


class Walk(RuleBasedStateMachine):
    """One connection after another; `state` is what the node's has to be."""

    def __init__(self, node: SecureServer, archive: Archive) -> None:
        super().__init__()
        self.node = node
        self.archive = archive
        self.state = "none"
        self.acknowledged: dict[str, bytes] = {}
        self.number = 0
        self.peer: Peer

    # -- helpers ---------------------------------------------------------------------------

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _instance(self, size: int) -> tuple[str, bytes]:
        uid = f"1.2.{next(SERIAL)}"
        return uid, small_ct(uid.encode(), pixels=size)

    def _over(self, kind: int = ABORT) -> None:
        """Hear the last word, hang up, and hear nothing more."""
        found, body = self.peer.read()
        assert found == kind, f"PDU of type {found}, wanted {kind}"
        if kind == ABORT:  # AA-1 or AA-8
            assert body[2] == (BY_USER if self.state == "Sta2" else BY_PROVIDER)
        self.peer.sock.shutdown(socket.SHUT_WR)
        self._closed()

    def _closed(self) -> None:
        assert self.peer.read()[0] == 0
        self.peer.sock.close()
        self.state = "none"

    # -- Sta1 and Sta2 ---------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.connect()

    @precondition(lambda self: self.state == "none")
    @rule()
    def connect(self) -> None:
        self.peer = Peer(port_of(self.node))
        self.state = "Sta2"

    @precondition(lambda self: self.state == "Sta2")
    @rule(at=segments)
    def a_good_request(self, at: list[int]) -> None:
        self.peer.send(request(), at)
        assert self.peer.read()[0] == AC
        self.state = "Sta6"

    @precondition(lambda self: self.state == "Sta2")
    @rule(case=st.sampled_from(sorted(ODD)))
    def an_odd_request(self, case: str) -> None:
        data, refusal = ODD[case]
        self.peer.send(data)
        if refusal is None:
            self._over()
            return
        kind, body = self.peer.read()
        assert (kind, tuple(body[1:4])) == (RJ, refusal)
        self.peer.sock.shutdown(socket.SHUT_WR)
        self._closed()

    @precondition(lambda self: self.state == "Sta2")
    @rule(kind=st.sampled_from((AC, RJ, P_DATA, RELEASE_RQ, RELEASE_RP, 0, 8, 0x47)))
    def AA_1_anything_else_first(self, kind: int) -> None:
        self.peer.send(pdu(kind, bytes(10)))
        self._over()

    # -- Sta6 ------------------------------------------------------------------------------

    @precondition(lambda self: self.state == "Sta6")
    @rule(at=sizes, together=st.integers(1, 4), cuts=segments)
    def an_echo(self, at: list[int], together: int, cuts: list[int]) -> None:
        self.peer.send(packed(values(VERIFY, 1, ECHO, at), together), cuts)
        assert self.peer.status() == (1, SUCCESS)

    @precondition(lambda self: self.state == "Sta6")
    @rule(at=sizes, also=sizes, together=st.integers(1, 9), cuts=segments, size=pixels)
    def a_store(
        self, at: list[int], also: list[int], together: int, cuts: list[int], size: int
    ) -> None:
        number, (uid, data) = self._next(), self._instance(size)
        first = values(CT, 1, store_command(uid.encode(), number), at)
        self.peer.send(packed(first + values(CT, 0, data, also), together), cuts)
        assert self.peer.status() == (number, SUCCESS)
        self.acknowledged[uid] = data

    @precondition(lambda self: self.state == "Sta6")
    @rule(count=st.integers(2, 5), together=st.integers(1, 20))
    def stores_without_waiting(self, count: int, together: int) -> None:
        sent, everything = [], []
        for _ in range(count):
            number, (uid, data) = self._next(), self._instance(64)
            everything += [
                pdv(CT, 3, store_command(uid.encode(), number)), *values(CT, 0, data, (50,))
            ]  # fmt: skip
            sent.append((number, uid, data))
        self.peer.send(packed(everything, together))
        for number, uid, data in sent:
            assert self.peer.status() == (number, SUCCESS)
            self.acknowledged[uid] = data

    @precondition(lambda self: self.state == "Sta6")
    @rule(at=sizes)
    def a_store_of_another_instance(self, at: list[int]) -> None:
        number, (uid, _), (_, data) = self._next(), self._instance(2), self._instance(2)
        first = values(CT, 1, store_command(uid.encode(), number), at)
        self.peer.send(packed(first + values(CT, 0, data, at), 3))
        assert self.peer.status() == (number, MISMATCH)

    @precondition(lambda self: self.state == "Sta6")
    @rule(at=sizes)
    def a_query(self, at: list[int]) -> None:
        number = self._next()
        sent = values(QUERY, 1, find_command(number), at)
        self.peer.send(packed(sent + values(QUERY, 0, identifier(b"ALL "), at), 2))
        answers = [self.peer.status() for _ in range(3)]
        assert answers == [(number, PENDING), (number, PENDING), (number, SUCCESS)]

    @precondition(lambda self: self.state == "Sta6")
    @rule()
    def a_query_that_is_cancelled(self) -> None:
        number = self._next()
        sent = [pdv(QUERY, 3, find_command(number)), pdv(QUERY, 2, identifier(b"WAIT"))]
        self.peer.send(packed(sent, 2))
        assert self.peer.status() == (number, PENDING)
        self.peer.send(packed([pdv(QUERY, 3, cancel_command(number))], 1))
        assert self.peer.status() == (number, CANCELLED)

    @precondition(lambda self: self.state == "Sta6")
    @rule(number=st.integers(0, 9))
    def a_cancel_of_nothing(self, number: int) -> None:
        self.peer.send(packed([pdv(QUERY, 3, cancel_command(number))], 1))
        self.an_echo([700], 1, [])

    @precondition(lambda self: self.state == "Sta6")
    @rule()
    def AR_2_a_release(self) -> None:
        self.peer.send(pdu(RELEASE_RQ))
        self._over(RELEASE_RP)

    @precondition(lambda self: self.state == "Sta6")
    @rule()
    def AR_7_a_release_behind_a_store(self) -> None:
        number, (uid, data) = self._next(), self._instance(64)
        store = [pdv(CT, 3, store_command(uid.encode(), number)), pdv(CT, 2, data)]
        self.peer.send(packed(store, 1) + pdu(RELEASE_RQ))
        assert self.peer.status() == (number, SUCCESS)
        self.acknowledged[uid] = data
        self._over(RELEASE_RP)

    @precondition(lambda self: self.state == "Sta6")
    @rule(kind=st.sampled_from((1, AC, RJ, RELEASE_RP, 0, 8, 0x47)))
    def AA_8_a_PDU_that_has_no_place_here(self, kind: int) -> None:
        self.peer.send(request() if kind == 1 else pdu(kind, b"\0\1\1\1"))
        self._over()

    @precondition(lambda self: self.state == "Sta6")
    @rule(
        body=st.sampled_from(
            (
                bytes(5),
                struct.pack(">L", 1) + bytes(2),
                struct.pack(">LBB", 0xFFFFFFFF, CT, 3),
                pdv(UNKNOWN, 3, store_command(b"1.2.3")) + pdv(UNKNOWN, 2, small_ct(b"1.2.3")),
                pdv(CT, 2, b"data first"),
                pdv(CT, 3, store_command(b"1.2.3")) + pdv(VERIFY, 0, b"elsewhere"),
                pdv(CT, 3, store_command(b"1.2.3")) + pdv(CT, 3, ECHO),
                pdv(CT, 3, b"no command at all"),
                pdv(CT, 3, b""),
            )
        )
    )
    def AA_8_data_that_make_no_sense(self, body: bytes) -> None:
        self.peer.send(pdu(P_DATA, body))
        self._over()

    @precondition(lambda self: self.state == "Sta6")
    @rule()
    def AA_8_more_than_was_announced(self) -> None:
        self.peer.send(struct.pack(">BxL", P_DATA, 0xFFFFFFFF))
        self._over()

    @precondition(lambda self: self.state == "Sta6")
    @rule(size=pixels, how=st.sampled_from(("abort", "half close", "reset", "release", "wrong")))
    def an_end_in_the_middle_of_a_store(self, size: int, how: str) -> None:
        uid, data = self._instance(size)
        part = values(CT, 0, data, (50, 700))[:-1]
        self.peer.send(packed([pdv(CT, 3, store_command(uid.encode())), *part], 2))
        {
            "abort": self.AA_2_AA_3_an_abort,
            "half close": self.AA_4_AA_5_nothing_more_is_sent,
            "reset": self.AA_4_AA_5_a_reset,
            "release": self.AR_2_a_release,
            "wrong": lambda: self.AA_8_a_PDU_that_has_no_place_here(AC),
        }[how]()

    # -- the ends a peer has in any state --------------------------------------------------

    @precondition(lambda self: self.state != "none")
    @rule()
    def AA_2_AA_3_an_abort(self) -> None:
        self.peer.send(pdu(ABORT))
        self._closed()

    @precondition(lambda self: self.state != "none")
    @rule()
    def AA_4_AA_5_nothing_more_is_sent(self) -> None:
        self.peer.sock.shutdown(socket.SHUT_WR)
        self._closed()

    @precondition(lambda self: self.state != "none")
    @rule()
    def AA_4_AA_5_a_reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.peer.sock.close()
        self.state = "none"

    @precondition(lambda self: self.state != "none")
    @rule(count=st.integers(1, 5))
    def half_a_PDU_and_the_end(self, count: int) -> None:
        self.peer.send(pdu(P_DATA if self.state == "Sta6" else 1)[:count])
        self.AA_4_AA_5_nothing_more_is_sent()

    # -- whatever happened -----------------------------------------------------------------

    @rule()
    def somebody_else_is_served(self) -> None:
        other = Peer(port_of(self.node))
        other.associate()
        uid, data = self._instance(64)
        store = [pdv(CT, 3, store_command(uid.encode())), pdv(CT, 2, data)]
        other.send(packed(store, 2))
        assert other.status() == (1, SUCCESS)
        self.acknowledged[uid] = data
        other.send(pdu(RELEASE_RQ))
        assert other.read()[0] == RELEASE_RP
        other.sock.close()

    def teardown(self) -> None:
        if self.state != "none":
            self.peer.sock.close()
        wait_until(lambda: len(self.node._slots) == 0, "every slot to be free")
        self.somebody_else_is_served()
        for uid, data in self.acknowledged.items():
            (entry,) = self.archive.find(uid)
            assert data_set(self.archive.folder / entry.path) == data


SERIAL = iter(range(1, 1 << 40))


def _matches(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
    """Answer with two matches; or with one, and wait to be cancelled."""
    match, asked = Dataset(), str(event.identifier.PatientID)
    match.PatientID = "1"
    yield PENDING, match
    if asked != "WAIT":
        yield PENDING, match
        return
    wait_until(lambda: event.is_cancelled, "a C-CANCEL")
    yield CANCELLED, None


def _look(_event: evt.Event) -> None:
    """Be there: with such a handler bound, pynetdicom decodes every PDU."""


@contextmanager
def _node(folder: Path, handlers: Sequence[Any]) -> Iterator[tuple[SecureServer, Archive]]:
    with Archive(folder) as archive:
        storage = StoragePlugin(archive)
        with serving(
            [storage],
            application={evt.EVT_C_FIND: _matches},
            ae=application_entity(FIND),
            listener=Listener("machine", limits=LIMITS),
            receive=storage.receive,
            evt_handlers=handlers,
        ) as node:
            yield node, archive


def _open_now() -> tuple[int, int]:
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.timeout(0 if EXAMPLES > 100 else 120)
@pytest.mark.parametrize("handlers", [[], [(evt.EVT_PDU_RECV, _look)]], ids=["direct", "decoded"])
def test_PS38_9_2_any_walk_gets_the_answers_of_table_9_10(
    handlers: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: died.append(repr(told.exc_value)))
    with _node(tmp_path, handlers) as (node, archive):
        Walk(node, archive).somebody_else_is_served()
        wait_until(lambda: not node.associations(), "the first association to end")
        before = _open_now()
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            lambda: Walk(node, archive),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                derandomize=EXAMPLES <= 100,
                suppress_health_check=list(HealthCheck),
            ),
        )
        wait_until(lambda: not node.associations(), "every association to end")
        wait_until(lambda: _open_now() <= before, f"threads and descriptors back to {before}")
        assert not list((tmp_path / "incoming").glob("*.part"))
    assert died == []
