"""The accept loop and the bounds of a connection: what a peer cannot do to us."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Any

import pydicom
import pytest
from pynetdicom import evt

from dicom_secure_node.errors import HandshakeRefused
from dicom_secure_node.node.context import Connection
from dicom_secure_node.node.limits import Limits
from dicom_secure_node.node.server import Listener
from dicom_secure_node.node.slots import Slots
from tests.loopback import (
    CT_SMALL,
    Recorder,
    associate,
    knock,
    port_of,
    request_pdu,
    serving,
)
from tests.node.by_hand import ECHO, STORE, Raw, command, p_data
from tests.parts import listening, run, wait_until

SHORT = Limits(handshake_seconds=0.5, request_seconds=0.5, pdu_seconds=0.5, idle_seconds=0.7)
ABORTED = b"\x07\x00\x00\x00\x00\x04\x00\x00"


def kept(_: Any) -> int:
    return 0x0000


BEFORE = {
    "garbage": (b"GET / HTTP/1.0\r\n\r\n", "not DICOM", "unknown PDU type 0x47"),
    "a PDU of 4 GiB": (b"\x01\0\xff\xff\xff\xff" + b"x" * 100, "not DICOM", "4294967295 bytes"),
    "P-DATA before any association": (p_data(1, 3, b"x"), "not DICOM", ""),
    "TLS on a plain listener": (b"\x16\x03\x01\0\x05hello", "unexpected TLS", "ClientHello"),
    "half a PDU header, then the end": (b"\x01\0\0", "not DICOM", "closed in the middle"),
    "an A-ASSOCIATE-RQ cut off": (request_pdu()[:40], "not DICOM", "closed in the middle"),
    "an item longer than the PDU": (
        request_pdu()[:80] + b"\xff" * (len(request_pdu()) - 80), "not DICOM", "",
    ),
    "nothing at all, then the end": (b"", "closed by peer", ""),
}  # fmt: skip


@pytest.mark.parametrize(("data", "kind", "words"), BEFORE.values(), ids=BEFORE)
def test_before_an_association(data: bytes, kind: str, words: str) -> None:
    recorder = Recorder()
    with serving([recorder]) as node:
        with socket.create_connection(("127.0.0.1", port_of(node)), timeout=20) as peer:
            peer.sendall(data)
            with contextlib.suppress(OSError):  # the node may have closed already
                peer.shutdown(socket.SHUT_WR)
            connection, error = recorder.wait_for("on_handshake_failed")
        assert isinstance(error, HandshakeRefused)
        assert (error.kind, connection.address) == (kind, "127.0.0.1")
        assert words in error.reason
        assert associate(port_of(node)).is_established


def test_silent_peer_is_shown_the_door_and_keeps_nobody_out() -> None:
    recorder = Recorder()
    with (
        serving([recorder], listener=Listener("short", limits=SHORT)) as node,
        socket.create_connection(("127.0.0.1", port_of(node)), timeout=20) as silent,
    ):
        assoc = associate(port_of(node))
        assert assoc.is_established
        assoc.release()
        _, error = recorder.wait_for("on_handshake_failed")
        assert error.kind == "time-out"
        assert silent.recv(1) == b""


def test_one_byte_at_a_time_hits_the_deadline_of_the_whole_request() -> None:
    recorder, stop = Recorder(), threading.Event()
    with (
        serving([recorder], listener=Listener("short", limits=SHORT)) as node,
        socket.create_connection(("127.0.0.1", port_of(node)), timeout=20) as peer,
    ):

        def drip() -> None:
            for byte in request_pdu():
                try:
                    peer.sendall(bytes((byte,)))
                except OSError:
                    return
                if stop.wait(0.05):
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            _, error = recorder.wait_for("on_handshake_failed")
            assert error.kind == "time-out"
        finally:
            stop.set()
            thread.join()


def test_500_connections_at_once_do_not_keep_a_peer_out_for_long() -> None:
    limits = Limits(connections=40, connections_per_address=30, request_seconds=1.0)
    recorder = Recorder()
    with serving([recorder], listener=Listener("crowded", limits=limits)) as node:
        crowd = [socket.socket() for _ in range(500)]
        try:
            for one in crowd:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port_of(node)))
            kinds = {recorder.wait_for("on_handshake_failed")[1].kind for _ in range(500)}
            assert kinds <= {"limit reached", "time-out"}
            assert "limit reached" in kinds
        finally:
            for one in crowd:
                one.close()
        wait_until(lambda: not len(node._slots), "all slots given back")
        assoc = associate(port_of(node))
        assert assoc.is_established
        assoc.release()


def connection_from(address: str) -> tuple[Connection, socket.socket]:
    return Connection("loopback", address, 1), socket.socket()


def test_slots_count_each_address_and_all() -> None:
    slots = Slots(total=3, per_address=2)
    taken = [connection_from(address) for address in ("a", "a", "a", "b", "c")]
    try:
        assert not slots.take(*taken[0])
        slots.associated(taken[0][0])
        assert not slots.take(*taken[1])
        slots.associated(taken[1][0])
        assert "from this address" in slots.take(*taken[2])
        assert not slots.take(*taken[3])
        slots.associated(taken[3][0])
        assert "3 connections" in slots.take(*taken[4])
        assert slots.give_back(taken[0][0])
        assert not slots.take(*taken[4])
        assert len(slots) == 3
    finally:
        for _, sock in taken:
            sock.close()


def test_silent_connections_from_everywhere_keep_nobody_out() -> None:
    """With a limit for each address alone, a few addresses could fill the node."""
    limits = Limits(connections=8, connections_per_address=8)
    recorder = Recorder()
    with serving([recorder], listener=Listener("crowded", limits=limits)) as node:
        silent = [socket.create_connection(("127.0.0.1", port_of(node))) for _ in range(8)]
        try:
            _, error = recorder.wait_for("on_handshake_failed")
            assert error.reason == "limit reached: too many connections without an association"
            assoc = associate(port_of(node))
            assert assoc.is_established
            assoc.release()
        finally:
            for one in silent:
                one.close()


AFTER = {
    "PDU longer than announced": b"\x04\0" + struct.pack(">L", 1_100_000),
    "unknown PDU type": b"\x09\0\0\0\0\x04abcd",
    "empty presentation data value": b"\x04\0" + struct.pack(">LLB", 5, 1, 1),
    "presentation data value longer than its PDU": b"\x04\0" + struct.pack(">LLBB", 6, 99, 1, 3),
    "data set before its command": p_data(1, 2, b"data"),
    "command inside a data set": (
        p_data(1, 3, command(STORE, data_set=True)) + p_data(1, 3, command(ECHO, data_set=False))
    ),
    "context nobody accepted": p_data(7, 3, command(STORE, data_set=True)),
    "message continues on another context": (
        p_data(1, 3, command(STORE, data_set=True)) + p_data(3, 2, b"data")
    ),
    "command set without end": p_data(1, 1, b"\0" * 70_000),
    "command set that is none": p_data(1, 3, b"\xff" * 50),
    "UID of 10,000 characters": p_data(
        1, 3, command(STORE, data_set=True, instance="1." * 5000)
    ) + p_data(1, 2, b"data"),
    "a second A-ASSOCIATE-RQ": request_pdu(),
}  # fmt: skip


@pytest.mark.parametrize("data", AFTER.values(), ids=AFTER)
def test_broken_protocol_ends_the_association_and_nothing_else(data: bytes) -> None:
    recorder = Recorder()
    with serving([recorder], application={evt.EVT_C_STORE: kept}) as node:
        peer = Raw(port_of(node))
        peer.send(data)
        answer = peer.pdu()
        assert answer[:1] == b"\x07", answer
        peer.close()
        _, how = recorder.wait_for("on_association_closed")
        assert how == "aborted"
        assert associate(port_of(node)).is_established


def test_flood_of_requests_is_bounded() -> None:
    release = threading.Event()

    def slow(_: Any) -> int:
        release.wait(20)
        return 0x0000

    with serving(application={evt.EVT_C_ECHO: slow}) as node:
        peer = Raw(port_of(node), "1.2.840.10008.1.1")
        peer.send(p_data(1, 3, command(ECHO, data_set=False)) * 200)
        assert peer.pdu()[:1] == b"\x07"
        release.set()
        peer.close()


def test_too_many_requests_before_our_answers() -> None:
    """PS3.7 D.3.3.3: one at a time unless negotiated; ours is a bound on memory and disk."""
    release = threading.Event()

    def slow(_: Any) -> int:
        release.wait(20)
        return 0x0000

    with serving(application={evt.EVT_C_STORE: slow}) as node:
        peer = Raw(port_of(node))
        for number in range(40):
            peer.send(p_data(1, 3, command(STORE, data_set=True, message_id=number)))
            try:
                peer.send(p_data(1, 2, b"data"))
            except OSError:
                break
        assert peer.pdu()[:1] == b"\x07"
        release.set()
        peer.close()


@pytest.mark.parametrize("ending", ["abort", "vanish"])
def test_association_that_ends_in_mid_store_leaves_nothing(ending: str) -> None:
    abandoned = threading.Event()

    class Body:
        size = 0

        def write(self, data: memoryview) -> None:
            self.size += len(data)

        def open(self) -> Any:
            raise AssertionError("never complete")

        def abandon(self) -> None:
            abandoned.set()

    recorder = Recorder()
    with serving([recorder], receive=lambda _: Body()) as node:
        peer = Raw(port_of(node))
        peer.send(p_data(1, 3, command(STORE, data_set=True)) + p_data(1, 0, b"half"))
        recorder.wait_for("on_store_started")
        if ending == "abort":
            peer.send(b"\x07\0\0\0\0\x04\0\0\0\0")
        peer.close()
        recorder.wait_for("on_association_closed")
        assert abandoned.is_set()


def test_data_set_over_the_limit_is_read_and_refused() -> None:
    limits = Limits(instance_length=1000)
    with serving(
        application={evt.EVT_C_STORE: kept}, listener=Listener("small", limits=limits)
    ) as node:
        assoc = associate(port_of(node))
        assert assoc.send_c_store(pydicom.dcmread(CT_SMALL)).Status == 0xA700
        assert assoc.send_c_echo().Status == 0x0000
        assoc.release()


def test_idle_association_is_ended() -> None:
    recorder = Recorder()
    with serving([recorder], listener=Listener("short", limits=SHORT)) as node:
        peer = Raw(port_of(node))
        assert peer.pdu()[:1] == b"\x07"
        recorder.wait_for("on_association_closed")
        peer.close()


def test_peer_that_stops_in_the_middle_of_a_pdu_is_ended() -> None:
    recorder = Recorder()
    limits = Limits(pdu_seconds=0.5)
    with serving([recorder], listener=Listener("short", limits=limits)) as node:
        peer = Raw(port_of(node))
        peer.send(p_data(1, 3, command(ECHO, data_set=False))[:20])
        recorder.wait_for("on_association_closed")
        assert peer.pdu() == b""
        peer.close()


def test_peer_that_never_reads_is_given_up() -> None:
    recorder = Recorder()
    limits = Limits(pdu_seconds=0.5, outstanding=100_000)
    echo = p_data(1, 3, command(ECHO, data_set=False))

    def shrink(event: Any) -> None:  # so that few answers fill what the kernel holds for us
        event.assoc.dul.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    with serving(
        [recorder],
        listener=Listener("short", limits=limits),
        evt_handlers=[(evt.EVT_REQUESTED, shrink)],
    ) as node:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.settimeout(0.2)
            sock.connect(("127.0.0.1", port_of(node)))
            sock.sendall(request_pdu())
            assert sock.recv(1) == b"\x02"
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    sock.send(echo * 500)
                except TimeoutError:
                    continue  # the node is busy with us, or waits for us to read
                except OSError:
                    break  # cut off
            recorder.wait_for("on_association_closed")
        assert associate(port_of(node)).is_established


def test_10_000_characters_of_application_context_are_refused() -> None:
    """The AE title has sixteen bytes on the wire; the application context name has more."""
    recorder = Recorder()
    with serving([recorder]) as node:
        answer = knock(port_of(node), request_pdu(application_context=b"1." * 5000))
        assert answer[:1] in (b"\x03", b"\x07")
        assert associate(port_of(node)).is_established


def test_control_characters_of_a_peer_are_escaped_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()
    with caplog.at_level("INFO", "dicom_secure_node"), serving([recorder]) as node:
        knock(port_of(node), request_pdu(calling=b"A\x1b[2J\r\nFAKE") + b"\x07\0\0\0\0\x04\0\0\0\0")
        wait_until(lambda: not len(node._slots), "the connection's end")
    for record in caplog.records:
        if record.name.startswith("dicom_secure_node"):
            assert record.getMessage().isprintable(), record.getMessage()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ipv4_and_ipv6(host: str) -> None:
    with serving(address=(host, 0)) as node:
        done = run(["echoscu", host, str(port_of(node))])
        # DCMTK 3.6.7 takes no IPv6 literal; pynetdicom does.
        if host == "127.0.0.1":
            assert done.returncode == 0
        else:
            from pynetdicom import AE

            ae = AE()
            ae.add_requested_context("1.2.840.10008.1.1")
            assoc = ae.associate(host, port_of(node))
            assert assoc.is_established
            assoc.release()


def test_tcp_nodelay_is_set() -> None:
    """Without it a TLS 1.3 association loses 40 ms."""
    seen: list[int] = []
    with serving(
        evt_handlers=[
            (
                evt.EVT_REQUESTED,
                lambda event: seen.append(
                    event.assoc.dul.socket.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                ),
            )
        ]
    ) as node:
        associate(port_of(node)).release()
    assert seen == [1]


def test_stop_lets_a_store_in_progress_finish_and_refuses_new_ones() -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(_: Any) -> int:
        started.set()
        go_on.wait(20)
        return 0x0000

    statuses: list[int] = []
    with serving(application={evt.EVT_C_STORE: slow}) as node:
        busy, idle = associate(port_of(node)), associate(port_of(node))

        def send() -> None:
            statuses.append(busy.send_c_store(pydicom.dcmread(CT_SMALL)).Status)

        sender = threading.Thread(target=send)
        sender.start()
        assert started.wait(20)
        stopper = threading.Thread(target=node.stop, args=(20.0,))
        stopper.start()
        wait_until(lambda: idle.is_aborted or not idle.is_established, "the idle one ended")
        assert not listening(port_of(node))
        go_on.set()
        sender.join()
        stopper.join()
        assert statuses == [0x0000]
        assert not node.associations()


def test_stop_cuts_off_what_takes_too_long() -> None:
    started, go_on = threading.Event(), threading.Event()

    def stuck(_: Any) -> int:
        started.set()
        go_on.wait(20)
        return 0x0000

    with serving(application={evt.EVT_C_STORE: stuck}) as node:
        assoc = associate(port_of(node))
        sender = threading.Thread(target=assoc.send_c_store, args=(pydicom.dcmread(CT_SMALL),))
        sender.start()
        assert started.wait(20)
        assert node.stop(0.2) == 1
        go_on.set()
        sender.join()


BAD_REQUESTS = {
    "an abstract syntax that is no UID": request_pdu(abstract=b"\xff" * 300),
    "no presentation context": b"\x01\0\0\0\0\x44\0\x01\0\0" + b"A" * 32 + bytes(32),
    "an empty identity item": request_pdu(user_information=b"\x58\0\0\0"),
    "an identity longer than its item": request_pdu(
        user_information=b"\x58\0\0\x08\x02\0\xff\xff\0\0\0\0"
    ),
    "blank AE titles": request_pdu(calling=b""),
    "AE titles of bytes above 127": request_pdu(calling=b"\xff" * 16),
}


@pytest.mark.parametrize("data", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_request_with_bad_fields_is_refused_and_harms_nobody(data: bytes) -> None:
    recorder = Recorder()
    with serving([recorder]) as node:
        assert knock(port_of(node), data)[:1] in (b"\x03", b"\x07")
        assert associate(port_of(node)).is_established


def test_PS38_9_21_one_association_too_many_is_told_to_try_again() -> None:
    limits, recorder = Limits(connections=20, associations=2), Recorder()
    with serving([recorder], listener=Listener("full", limits=limits)) as node:
        first, second = associate(port_of(node)), associate(port_of(node))
        third = associate(port_of(node))
        assert third.is_rejected
        answer = third.acceptor.primitive
        # rejected-transient, by the provider, local-limit-exceeded
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        _, error = recorder.wait_for("on_association_refused")
        assert error.reason == "too many associations are open"
        first.release()
        wait_until(lambda: len(node._slots) == 1, "the places given back")
        again = associate(port_of(node))
        assert again.is_established
        for one in (second, again):
            one.release()
