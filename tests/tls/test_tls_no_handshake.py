"""What is no TLS handshake, or never ends, is named and met with a deadline."""

from __future__ import annotations

import os
import random
import select
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from dicom_secure_node.errors import HandshakeRefused
from dicom_secure_node.tls.context import ServerContext
from dicom_secure_node.tls.refusal import TLSRefused, alert_of, from_error
from tests.tls.conftest import Pki
from tests.tls.listener import WAIT, Listener

NOT_TLS = {
    "A-ASSOCIATE-RQ": (b"\x01\x00\x00\x00\x00\xcd\x00\x01", "not TLS", "A-ASSOCIATE-RQ"),
    "one byte of it": (b"\x01", "not TLS", "A-ASSOCIATE-RQ"),
    "A-ABORT": (b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00", "not TLS", "A-ABORT"),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "not TLS", "a plain HTTP request"),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", "not TLS", "bytes starting 53 53 48 2d"),
    "zeros": (bytes(100), "not TLS", "bytes starting 00 00 00 00"),
    "SSL 2": (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", "protocol version", "SSL 2"),
    "SSL 3 record of rubbish": (b"\x16\x03\x00\x00\x05hello", "tls failure", ""),
    "an alert at once": (b"\x15\x03\x01\x00\x02\x02\x28", "tls failure", ""),
    "nothing": (b"", "closed by peer", "without a word"),
    "half a hello": (b"\x16\x03\x01\x02\x00\x01\x00", "closed by peer", "during the handshake"),
}


@pytest.mark.parametrize(("sent", "kind", "words"), NOT_TLS.values(), ids=NOT_TLS)
def test_what_is_no_handshake_is_named(sent: bytes, kind: str, words: str, pki: Pki) -> None:
    refusal = _refused_bytes(pki.server_context(), sent)
    assert refusal.kind == kind
    assert words in refusal.reason


def test_client_meets_a_plain_dicom_server(pki: Pki) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x01")
    with (
        theirs,
        pki.client_context().wrap_socket(ours, server_hostname="localhost") as client,
        pytest.raises(TLSRefused, match="not TLS: found a plain DICOM A-ABORT"),
    ):
        client.handshake(WAIT)


def test_a_silent_peer_meets_the_deadline(pki: Pki) -> None:
    ours, theirs = socket.socketpair()
    with theirs, pki.server_context().wrap_socket(ours) as server:
        with pytest.raises(TLSRefused, match="time-out"):
            server.handshake(0.1)
        with pytest.raises(TLSRefused, match="time-out"):  # and stays refused
            server.recv(1)


def test_a_slow_peer_meets_the_same_deadline_with_every_byte(pki: Pki) -> None:
    hello = _client_hello()
    with Listener(pki.server_context(), seconds=0.5) as listener, listener.connect() as peer:
        started = time.monotonic()
        for byte in hello:
            closed, _, _ = select.select([peer], [], [], 0.1)  # its pace, and our alarm
            if closed:
                break
            peer.send(bytes([byte]))
        assert listener.refusal().kind == "time-out"
        assert time.monotonic() - started >= 0.5  # never before the deadline


def test_a_peer_that_does_not_read_meets_the_deadline_too(pki: Pki) -> None:
    ours, theirs = socket.socketpair()
    with theirs, pki.server_context().wrap_socket(ours) as server:
        theirs.sendall(_client_hello())
        with pytest.raises(TLSRefused, match="time-out"):
            server.handshake(0.2)


@given(st.binary(min_size=1, max_size=200))
def test_random_first_bytes_raise_nothing_but_a_refusal(pki: Pki, start: bytes) -> None:
    assert _refused_bytes(pki.server_context(), start).kind in HandshakeRefused.KINDS


@given(st.integers(0, 2**32))
def test_a_damaged_hello_raises_nothing_but_a_refusal(pki: Pki, seed: int) -> None:
    chance = random.Random(seed)
    hello = bytearray(_client_hello())
    for _ in range(chance.randint(1, 6)):
        hello[chance.randrange(len(hello))] = chance.randrange(256)
    assert _refused_bytes(pki.server_context(), bytes(hello)).kind in HandshakeRefused.KINDS


def test_a_refusal_is_ours_and_an_oserror_for_pynetdicom() -> None:
    refusal = TLSRefused("expired", "the certificate has expired")
    assert isinstance(refusal, HandshakeRefused)
    assert isinstance(refusal, OSError)
    assert str(refusal) == "expired: the certificate has expired"
    assert refusal.kind == "expired"


ERRORS = {
    "an alert": ("tlsv1 alert unknown ca", "refused by peer", "unknown_ca"),
    "an alert of TLS 1.3": ("tlsv13 alert certificate required", "refused by peer", None),
    "an alert of new wording": ("ssl/tls alert bad certificate", "refused by peer", None),
    "something new": ("a reason of next year", "tls failure", None),
    "nothing at all": ("", "tls failure", None),
}


@pytest.mark.parametrize(("reason", "kind", "alert"), ERRORS.values(), ids=ERRORS)
def test_errors_of_openssl(reason: str, kind: str, alert: str | None) -> None:
    error = SSL.Error([("SSL routines", "", reason)])
    assert from_error(error).kind == kind
    if alert:
        assert alert_of(error) == alert


@pytest.mark.parametrize("error", [SSL.Error(), SSL.Error([]), SSL.Error("text"), SSL.Error(5)])
def test_errors_of_another_shape(error: SSL.Error) -> None:
    assert from_error(error).kind == "tls failure"


def _refused_bytes(context: ServerContext, sent: bytes) -> HandshakeRefused:
    """Return how a server refuses a peer that sends these bytes and no more."""
    ours, theirs = socket.socketpair()
    with theirs, context.wrap_socket(ours) as server:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(HandshakeRefused) as caught:
            server.handshake(WAIT)
    return caught.value


def _client_hello() -> bytes:
    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(os.sysconf("SC_PAGESIZE") * 4)
