"""The established connection: what pynetdicom needs of a socket, and what breaks one."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import profile_named
from dicom_secure_node.tls.refusal import TLSBroken
from dicom_secure_node.tls.socket import TLSSocket
from tests.tls.conftest import Pki
from tests.tls.listener import WAIT, Listener

MIB = 1 << 20


@contextmanager
def pair(pki: Pki) -> Iterator[tuple[TLSSocket, TLSSocket]]:
    """Yield a server's and a client's end of one established connection."""
    profile = profile_named("8996")
    one, other = socket.socketpair()
    server = ServerContext(profile, pki.server, pki.trust).wrap_socket(one)
    client = ClientContext(profile, pki.credential(pki.client), pki.trust).wrap_socket(
        other, server_hostname="localhost"
    )
    thread = threading.Thread(target=server.handshake, args=(WAIT,))
    thread.start()
    with server, client:
        client.handshake(WAIT)
        thread.join()
        for end in (server, client):
            end.settimeout(WAIT)
        yield server, client


def read_all(end: TLSSocket, count: int) -> bytes:
    """Return exactly `count` bytes."""
    buffer = bytearray(count)
    filled = 0
    while filled < count:
        got = end.recv_into(memoryview(buffer)[filled:])
        assert got, "closed early"
        filled += got
    return bytes(buffer)


def readable(end: TLSSocket) -> bool:
    """Return what pynetdicom's `AssociationSocket.ready` would."""
    ready, _, _ = select.select([end], [], [], 0)
    return bool(ready) or bool(end.pending())


def wait_readable(end: TLSSocket) -> None:
    assert select.select([end], [], [], WAIT)[0]


# -- reading and writing


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 5 * MIB + 7])
def test_bytes_arrive_as_they_were_sent(size: int, pki: Pki) -> None:
    sent = os.urandom(size)
    with pair(pki) as (server, client):
        writer = threading.Thread(target=client.sendall, args=(sent,))
        writer.start()
        assert read_all(server, size) == sent
        writer.join()


def test_both_directions_at_once_from_two_threads(pki: Pki) -> None:
    """OpenSSL's object is not thread-safe; one thread reads while another writes."""
    sent = [os.urandom(8 * MIB), os.urandom(8 * MIB)]
    with pair(pki) as ends:
        writers = [
            threading.Thread(target=end.sendall, args=(data,))
            for end, data in zip(ends, sent, strict=True)
        ]
        got: list[bytes] = [b"", b""]

        def read(index: int) -> None:
            got[index] = read_all(ends[index], 8 * MIB)

        readers = [threading.Thread(target=read, args=(i,)) for i in (0, 1)]
        for thread in writers + readers:
            thread.start()
        for thread in writers + readers:
            thread.join(WAIT)
    assert [hashlib.sha256(g).digest() for g in got] == [
        hashlib.sha256(s).digest() for s in reversed(sent)
    ]


def test_recv_into_takes_all_that_is_at_hand_in_one_call(pki: Pki) -> None:
    with pair(pki) as (server, client):
        for _ in range(6):
            client.sendall(bytes(10_000))
        wait_readable(server)
        buffer = bytearray(MIB)
        assert server.recv_into(buffer) == 60_000


@pytest.mark.parametrize("nbytes", [1, 5, 100])
def test_recv_into_takes_no_more_than_asked(nbytes: int, pki: Pki) -> None:
    with pair(pki) as (server, client):
        client.sendall(b"0123456789")
        buffer = bytearray(20)
        count = server.recv_into(buffer, nbytes)
        assert count == min(nbytes, 10)
        assert buffer[:count] == b"0123456789"[:count]
        assert not any(buffer[count:])


def test_send_takes_any_buffer(pki: Pki) -> None:
    with pair(pki) as (server, client):
        for data in (b"bytes", bytearray(b"array"), memoryview(b"viewing")[:5]):
            assert client.send(data) == 5
            assert server.recv(5) == bytes(data)


def test_recv_of_nothing_is_nothing(pki: Pki) -> None:
    with pair(pki) as (server, _):
        assert server.recv(0) == b""


# -- pending


def test_rule1_a_second_pdu_in_one_record_is_seen(pki: Pki) -> None:
    with pair(pki) as (server, client):
        client.sendall(b"first second")
        assert server.recv(6) == b"first "
        assert not select.select([server], [], [], 0)[0]
        assert server.pending() == 6
        assert readable(server)
        assert server.recv(100) == b"second"
        assert server.pending() == 0
        assert not readable(server)


def test_records_not_yet_decrypted_count_as_pending(pki: Pki) -> None:
    with pair(pki) as (server, client):
        for _ in range(3):
            client.sendall(b"x" * 1000)
        wait_readable(server)
        got = 0
        while got < 3000:
            assert readable(server)
            got += len(server.recv(500))
        assert server.pending() == 0


def test_a_partial_record_is_not_pending(pki: Pki) -> None:
    with pair(pki) as (server, _):
        ours = server._channel
        assert ours is not None
        ours.connection.bio_write(b"\x17\x03\x03\x40")
        ours._fed = True
        assert server.pending() == 0


def test_pending_is_nothing_before_the_handshake_and_after_close(pki: Pki) -> None:
    with Listener(ServerContext(profile_named("8996"), pki.server, pki.trust)) as listener:
        context = ClientContext(profile_named("8996"), None, pki.trust)
        with context.wrap_socket(listener.connect(), server_hostname="localhost") as client:
            assert client.pending() == 0
        assert client.pending() == 0


def test_an_end_that_waits_to_be_told_is_pending(pki: Pki) -> None:
    with pair(pki) as (server, client):
        client.sendall(b"last")
        client.close()
        wait_readable(server)
        assert server.recv(1) == b"l"
        assert read_all(server, 3) == b"ast"
        assert readable(server)
        assert server.recv(1) == b""


def test_ready_knows_tickets_and_half_records_from_data(pki: Pki) -> None:
    with pair(pki) as (server, client):
        wait_readable(client)  # session tickets, which TLS 1.3 servers send unasked
        assert not client.ready()
        socket.socket.send(client, b"\x17\x03\x03")
        wait_readable(server)
        assert not server.ready()
        server.sendall(b"data")
        wait_readable(client)
        assert client.ready()
        assert client.recv(4) == b"data"
        assert not client.ready()
        server.close()
        wait_readable(client)
        assert client.ready()
        assert client.recv(4) == b""
        assert client.ready()


def test_ready_is_false_before_the_handshake(pki: Pki) -> None:
    one, other = socket.socketpair()
    with other, ServerContext(profile_named("8996"), pki.server, pki.trust).wrap_socket(one) as end:
        assert not end.ready()


# -- time-outs


def test_recv_times_out(pki: Pki) -> None:
    with pair(pki) as (server, _):
        server.settimeout(0.05)
        assert server.gettimeout() == 0.05
        with pytest.raises(TimeoutError):
            server.recv(1)


def test_bytes_that_bring_no_data_do_not_put_the_end_off(pki: Pki) -> None:
    """Half a record, KeyUpdates and the like could come for ever, faster than they are read."""
    with pair(pki) as (server, client):
        assert server._channel is not None
        server._channel._buffer = bytearray(1)  # so that a few bytes are many pieces
        socket.socket.send(client, b"\x17\x03\x03\x40\0" + bytes(1000))
        wait_readable(server)
        server.settimeout(0)
        with pytest.raises(TimeoutError):
            server.recv(1)
        assert len(socket.socket.recv(server, 2000, socket.MSG_PEEK)) > 900


def test_a_peer_that_never_reads_does_not_hold_the_sender(pki: Pki) -> None:
    with pair(pki) as (server, _):
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.sendall(bytes(64 * MIB))


def test_after_a_time_out_what_was_encrypted_goes_first(pki: Pki) -> None:
    block = os.urandom(MIB)
    with pair(pki) as (server, client):
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.sendall(block * 16)
        client.settimeout(WAIT)
        writer = threading.Thread(target=client.sendall, args=(b"end",))
        writer.start()
        received = bytearray()
        while not received.endswith(b"end"):
            received += server.recv(MIB)
        writer.join()
    body = bytes(received[:-3])
    assert body == (block * 16)[: len(body)]  # nothing lost, nothing out of order


def test_setblocking(pki: Pki) -> None:
    with pair(pki) as (server, _):
        server.setblocking(True)
        assert server.gettimeout() is None
        server.setblocking(False)
        with pytest.raises(TimeoutError):
            server.recv(1)


# -- the handshake on demand


def test_rule3_wrapping_does_not_shake_hands_and_the_first_recv_does(pki: Pki) -> None:
    profile = profile_named("8996")
    one, other = socket.socketpair()
    with ServerContext(profile, pki.server, pki.trust).wrap_socket(one) as server:
        assert server.facts is None
        assert "no handshake yet" in repr(server)
        context = ClientContext(profile, pki.credential(pki.client), pki.trust)
        with context.wrap_socket(other, server_hostname="localhost") as client:
            sender = threading.Thread(target=client.sendall, args=(b"ping",))
            sender.start()
            assert server.recv(4) == b"ping"
            sender.join()
            assert server.handshake(0) is server.facts  # done already: no time needed


def test_facts_of_an_established_connection(pki: Pki) -> None:
    with pair(pki) as (server, client):
        facts = server.facts
        assert facts is not None
        assert facts.version == server.version() == client.version() == "TLSv1.3"
        assert facts.suite == "TLS_AES_128_GCM_SHA256"
        assert facts.group == "x25519"
        assert facts.peer_certificate == pki.client.certificate
        assert facts.subject == "CN=client,O=Test Hospital"
        assert len(facts.peer_chain) == 2
        assert "B.12" in facts.satisfied
        assert server.cipher() == ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128)
        assert server.getpeercert(True) == pki.client.certificate.public_bytes(Encoding.DER)
        assert isinstance(server, ssl.SSLSocket)


# -- the end


def test_close_is_told_to_the_peer(pki: Pki) -> None:
    with pair(pki) as (server, client):
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        assert client.recv(1) == b""
        assert client.recv(1) == b""


def test_a_transport_closed_without_close_notify_reads_as_the_end(pki: Pki) -> None:
    with pair(pki) as (server, client):
        socket.socket.shutdown(server, socket.SHUT_RDWR)
        assert client.recv(1) == b""


def test_shutdown_after_the_peer_has_gone_does_not_raise(pki: Pki) -> None:
    """pynetdicom calls close() only if shutdown() went well."""
    with Listener(ServerContext(profile_named("8996"), pki.server, pki.trust, "ignore")) as there:
        context = ClientContext(profile_named("8996"), None, pki.trust)
        with context.wrap_socket(there.connect(), server_hostname="localhost") as client:
            client.handshake(WAIT)
            client.shutdown(socket.SHUT_RDWR)
            assert there.ending() is None
            client.shutdown(socket.SHUT_RDWR)


def test_a_closed_socket_raises_oserror_only(pki: Pki) -> None:
    with pair(pki) as (server, _):
        server.close()
        for use in (lambda: server.recv(1), lambda: server.send(b"x")):
            with pytest.raises(OSError, match="closed"):
                use()
        server.close()


PAST_TLS = ["unwrap", "accept", "connect_ex", "read", "write", "sendfile", "sendto", "sendmsg"]
PAST_TLS += ["recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"]


@pytest.mark.parametrize("method", PAST_TLS)
def test_B12_nothing_goes_past_tls(method: str, pki: Pki) -> None:
    """What ssl.SSLSocket offers and we do not override would send in clear."""
    with pair(pki) as (server, client):
        with pytest.raises(OSError, match="not to be had"):
            getattr(server, method)(b"secret")
        assert not client.ready()


def test_every_method_of_a_socket_that_moves_bytes_is_ours() -> None:
    ours = vars(TLSSocket)
    moving = ("send", "recv", "read", "write", "connect", "accept", "shutdown", "unwrap")
    names = {n for n in dir(ssl.SSLSocket) if n.startswith(moving) and not n.startswith("_")}
    assert names - set(ours) == set()


def test_closing_in_one_thread_ends_a_wait_in_another(pki: Pki) -> None:
    with pair(pki) as (server, _):
        ended: list[object] = []

        def read() -> None:
            try:
                ended.append(server.recv(1))
            except OSError as exc:
                ended.append(exc)

        reader = threading.Thread(target=read)
        reader.start()
        server.shutdown(socket.SHUT_RDWR)
        reader.join(WAIT)
        assert ended


# -- damage


def test_B12_item6_a_damaged_record_is_an_integrity_failure_on_both_sides(pki: Pki) -> None:
    with pair(pki) as (server, client):
        socket.socket.send(client, b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(TLSBroken, match="integrity failure") as caught:
            server.recv(1)
        assert caught.value.integrity
        with pytest.raises(TLSBroken, match="bad_record_mac") as caught:
            client.recv(1)
        assert caught.value.integrity


def test_what_came_before_the_damage_is_delivered_first(pki: Pki) -> None:
    with pair(pki) as (server, client):
        client.sendall(b"good")
        socket.socket.send(client, b"\x17\x03\x03\x00\x20" + bytes(32))
        wait_readable(server)
        assert server.recv(100) == b"good"
        assert server.pending() >= 0
        with pytest.raises(TLSBroken):
            server.recv(100)
        with pytest.raises(TLSBroken):  # and stays so
            server.recv(100)


def test_clear_text_after_the_handshake_is_refused(pki: Pki) -> None:
    with pair(pki) as (server, client):
        socket.socket.send(client, b"\x04\x00\x00\x00\x00\x0a plain DICOM")
        with pytest.raises(TLSBroken):
            server.recv(100)


def test_no_secret_in_repr(pki: Pki) -> None:
    with pair(pki) as (server, _):
        assert repr(server).startswith("<TLSSocket fd=")
