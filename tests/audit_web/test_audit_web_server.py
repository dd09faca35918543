"""HTTPS: who is slow is hung up on, and keys nobody can use are named."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from starlette.responses import PlainTextResponse

from dicom_secure_node.audit_web import server
from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable
from dicom_secure_node.pki.authority import LocalAuthority

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    LocalAuthority(folder).equip()
    return folder


@pytest.fixture
def port(pki: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server in a thread that has no patience."""
    monkeypatch.setattr(server, "_REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(server, "_KEEP_ALIVE_SECONDS", 60)
    ready = threading.Event()

    def listening() -> bool:
        ready.set()
        return True

    bases = [pki / "node", pki / "node-ec"]
    running = server.Server(PlainTextResponse("served"), server.tls_context(bases), listening)
    listener = server.bound("127.0.0.1", 0)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(30)
    yield int(listener.getsockname()[1])
    running.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def connected(port: int, pki: Path) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    return context.wrap_socket(plain, server_hostname="localhost")


def rest(secure: ssl.SSLSocket) -> bytes:
    """Return what comes until the server hangs up."""
    found = b""
    try:
        while piece := secure.recv(4096):
            found += piece
    except (ssl.SSLError, ConnectionError):
        pass
    return found


SLOW = {
    "nothing": (b"", b""),
    "half a line": (b"GET / HT", b""),
    "a header without end": (REQUEST[:-2] + b"A: b\r\n", b""),
    "a second request that has no end": (REQUEST + b"GET / HTTP/1.1\r\nHost:", b"served"),
}


@pytest.mark.parametrize(("sent", "want"), SLOW.values(), ids=SLOW)
def test_who_does_not_come_to_an_end_is_hung_up_on(
    sent: bytes, want: bytes, port: int, pki: Path
) -> None:
    with connected(port, pki) as secure:
        secure.sendall(sent)
        assert rest(secure).endswith(want)


def test_two_requests_on_one_connection(port: int, pki: Path) -> None:
    with connected(port, pki) as secure:
        for _ in range(2):
            secure.sendall(REQUEST)
            answer = b""
            while not answer.endswith(b"served"):
                answer += secure.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")


def test_a_key_with_a_passphrase(pki: Path, tmp_path: Path) -> None:
    key = LocalAuthority(pki).issue("sealed").key
    (tmp_path / "sealed.crt").write_bytes((pki / "sealed.crt").read_bytes())
    sealed = BestAvailableEncryption(b"secret")
    octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)
    (tmp_path / "sealed.key").write_bytes(octets)
    with pytest.raises(ConfigurationError, match="passphrase"):
        server.tls_context([tmp_path / "sealed"])


def test_no_such_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing"):
        server.tls_context([tmp_path / "nothing"])


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(ServiceUnavailable, match="listener"):
        server.bound(host, 0)
