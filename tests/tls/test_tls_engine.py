"""The private side of pyOpenSSL: still where it was, and not indispensable."""

from __future__ import annotations

import contextlib

import pytest
from OpenSSL import SSL

from dicom_secure_node.tls import engine


def test_this_pyopenssl_needs_no_fall_back() -> None:
    """Fails when a release moves one of the private calls: then read `engine` again."""
    assert engine.fallbacks() == ()


def test_a_list_openssl_does_not_know_is_an_error() -> None:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    with pytest.raises(ValueError, match="no-such-group"):
        engine.set_groups(context, ["no-such-group"])


def test_a_call_that_has_gone_is_noticed() -> None:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    assert engine._set_list(context, "SSL_CTX_no_such_call", ["P-256"]) is False


def test_both_readers_read_the_same() -> None:
    for read in (engine._read_public, engine.reader()):
        server, client = _memory_pair()
        client.send(b"hello")
        server.bio_write(client.bio_read(65536))
        buffer = bytearray(10)
        count, end = read(server, memoryview(buffer)[2:])
        assert (count, type(end)) == (5, SSL.WantReadError)
        assert buffer == b"\0\0hello\0\0\0"
        client.send(b"again")
        client.shutdown()
        server.bio_write(client.bio_read(65536))
        count, end = read(server, memoryview(buffer)[:3])
        assert (count, end, bytes(buffer[:3])) == (3, None, b"aga")
        count, end = read(server, memoryview(buffer))
        assert (count, type(end), bytes(buffer[:2])) == (2, SSL.ZeroReturnError, b"in")


def test_a_damaged_record_ends_a_read_after_what_came_before_it() -> None:
    for read in (engine._read_public, engine.reader()):
        server, client = _memory_pair()
        client.send(b"good")
        good = client.bio_read(65536)
        client.send(b"bad")
        bad = bytearray(client.bio_read(65536))
        bad[-1] ^= 1
        server.bio_write(good + bytes(bad))
        buffer = bytearray(10)
        count, end = read(server, memoryview(buffer))
        assert (count, bytes(buffer[:4])) == (4, b"good")
        assert isinstance(end, SSL.Error)
        assert not isinstance(end, (SSL.WantReadError, SSL.ZeroReturnError))


def test_output_is_seen_before_it_is_taken() -> None:
    server, client = _memory_pair()
    assert not engine.has_output(client)
    client.send(b"hello")
    assert engine.has_output(client)
    server.bio_write(client.bio_read(65536))
    assert not engine.has_output(client)


def test_a_reader_refuses_a_buffer_it_may_not_write() -> None:
    server, client = _memory_pair()
    client.send(b"hello")
    server.bio_write(client.bio_read(65536))
    with pytest.raises((TypeError, ValueError, BufferError)):
        engine.reader()(server, memoryview(b"constant"))


def _memory_pair() -> tuple[SSL.Connection, SSL.Connection]:
    """Return two ends without certificates; this is about bytes only."""
    contexts = [SSL.Context(SSL.TLS_SERVER_METHOD), SSL.Context(SSL.TLS_CLIENT_METHOD)]
    for context in contexts:
        context.set_cipher_list(b"aNULL:@SECLEVEL=0")
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    server, client = (SSL.Connection(context, None) for context in contexts)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(6):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    return server, client


def test_group_name_of_a_connection_that_has_none() -> None:
    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    assert engine.group_name(connection) is None
