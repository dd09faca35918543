"""The small HTTP exchange: what it reads, and what it does not wait for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dicom_secure_node.errors import InvalidInput, ServiceUnavailable
from dicom_secure_node.pki.http import MAX_URL, exchange, parse_url


@contextmanager
def server(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """Accept one connection, read the request, then do what `talk` does; yield the URL."""
    over = threading.Event()

    def run() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            try:
                talk(peer, over)
            except OSError:
                return  # the other side hung up, as it should

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/list.crl?x=1"
        finally:
            over.set()
            thread.join()


def sends(content: bytes) -> Callable[[socket.socket, threading.Event], None]:
    return lambda peer, over: peer.sendall(content)


def trickles(head: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """Send `head`, then a byte now and then, always before a time-out between two of them."""

    def talk(peer: socket.socket, over: threading.Event) -> None:
        peer.sendall(head)
        while not over.wait(0.05):
            peer.sendall(b"x")

    return talk


def ask(url: str, seconds: float = 5.0) -> bytes:
    return exchange(parse_url(url), "the service", seconds=seconds, max_bytes=100)


def test_an_answer_is_read() -> None:
    with server(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlist")) as url:
        assert ask(url) == b"list"


OK = b"HTTP/1.1 200 OK\r\n"
REFUSED = {
    "another status": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP status 404"),
    "a redirection": (
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        "HTTP status 302",
    ),
    "a long body": (OK + b"Content-Length: 101\r\n\r\n" + bytes(101), "more than 100"),
    "a long body of unknown length": (OK + b"\r\n" + bytes(101), "more than 100"),
    "a short body": (OK + b"Content-Length: 9\r\n\r\nlist", "the answer was cut short"),
    "nothing": (b"", "no HTTP answer"),
    "no HTTP": (b"220 mail.example ESMTP\r\n", "no HTTP answer"),
    "headers without end": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200, "no HTTP answer"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "reason"), REFUSED.values(), ids=REFUSED)
def test_it_does_not_take(answer: bytes, reason: str) -> None:
    with server(sends(answer)) as url, pytest.raises(ServiceUnavailable, match=reason):
        ask(url)


TRICKLES = {
    "the head": b"HTTP/1.1 200 OK\r\nA: ",
    "the body": b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n",
}


@pytest.mark.parametrize("head", TRICKLES.values(), ids=TRICKLES)
def test_it_does_not_wait_for_who_trickles(head: bytes) -> None:
    with (
        server(trickles(head)) as url,
        pytest.raises(ServiceUnavailable, match=r"no whole answer within 0\.3 s"),
    ):
        ask(url, seconds=0.3)


WRONG = (
    "",
    "ldap://ca.example/cn=list",
    "http://",
    "http://user:secret@ca.example/",
    "http://ca.example/#part",
    "http://ca.example:port/",
    "http://ca.example/a b",
    "http://ca.example/\r\nHost: other",
    "http://ca.example/é",
    "http://[::1",
    "http://ca.example/" + "a" * MAX_URL,
)


@pytest.mark.parametrize("url", WRONG, ids=range(len(WRONG)))
def test_it_is_no_url(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)
