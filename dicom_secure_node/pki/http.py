"""One small HTTP exchange within bounds: revocation answers, timestamps, keys of token issuers.

One deadline holds for everything after the connection is made, whatever the other side trickles.
No redirection is followed, no proxy is used, and nothing is read from the environment.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from dicom_secure_node.errors import InvalidInput, ServiceUnavailable

MAX_URL = 2048


@dataclass(frozen=True)
class Address:
    """Where an URL points to."""

    host: str
    port: int
    target: str
    encrypted: bool


def parse_url(url: str) -> Address:
    """Return the parts of an ``http:`` or ``https:`` URL.

    Raises
    ------
    InvalidInput
        It is none, or one with a user, a fragment, or characters that must be escaped.
    """
    wanted = "http://HOST/PATH or https://HOST/PATH"
    try:
        found = urlsplit(url)
        host, port = found.hostname or "", found.port
    except ValueError:
        raise InvalidInput("no URL", wanted) from None
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput("a URL with spaces or beyond ASCII, or a long one", wanted)
    if found.scheme not in ("http", "https") or not host:
        raise InvalidInput("a URL of another scheme, or without host", wanted)
    if found.fragment or found.username is not None:
        raise InvalidInput("a URL with user or fragment", wanted)
    encrypted = found.scheme == "https"
    target = (found.path or "/") + (f"?{found.query}" if found.query else "")
    return Address(host, port or (443 if encrypted else 80), target, encrypted)


def exchange(
    address: Address,
    service: str,
    *,
    body: bytes = b"",
    kind: str = "",
    accept: str = "",
    seconds: float,
    max_bytes: int,
    trust: ssl.SSLContext | None = None,
) -> bytes:
    """Return the body of the answer to a GET, or to a POST of `body`.

    Parameters
    ----------
    address : Address
        Where.
    service : str
        What to call it in an error.
    body : bytes
        What to send; without, it is a GET.
    kind : str
        Media type of `body`.
    accept : str
        Media types wanted back.
    seconds : float
        To connect, and again for the rest.
    max_bytes : int
        The longest body of an answer.
    trust : ssl.SSLContext, optional
        For ``https:``; the system's certificates where none is given.

    Raises
    ------
    ServiceUnavailable
        Nobody there, no trust, no answer in time, a long one, or one other than 200.
    """
    late = threading.Event()
    headers = {"Connection": "close"}
    headers |= {"Content-Type": kind} if kind else {}
    headers |= {"Accept": accept} if accept else {}
    try:
        with _connected(address, seconds, trust) as sock:
            watchdog = threading.Timer(seconds, _cut, (sock, late))
            watchdog.daemon = True
            watchdog.start()
            try:
                answer = _ask(sock, address, service, body, headers, max_bytes)
            finally:
                watchdog.cancel()
    except (OSError, http.client.HTTPException) as exc:
        if not late.is_set():
            raise ServiceUnavailable(service, _words(exc)) from exc
    except ServiceUnavailable:
        if not late.is_set():
            raise
    else:
        if not late.is_set():  # else it may be cut short
            return answer
    raise ServiceUnavailable(service, f"no whole answer within {seconds:g} s")


def _connected(address: Address, seconds: float, trust: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection((address.host, address.port), timeout=seconds)
    if not address.encrypted:
        return sock
    context = trust or _system_trust()
    try:
        return context.wrap_socket(
            sock, server_hostname=address.host, do_handshake_on_connect=False
        )
    except BaseException:
        sock.close()
        raise


def _system_trust() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    return context


def _ask(
    sock: socket.socket,
    address: Address,
    service: str,
    body: bytes,
    headers: dict[str, str],
    max_bytes: int,
) -> bytes:
    if isinstance(sock, ssl.SSLSocket):
        sock.do_handshake()
    connection = http.client.HTTPConnection(address.host, address.port)
    connection.sock = sock
    connection.request("POST" if body else "GET", address.target, body or None, headers)
    with connection.getresponse() as answer:
        if answer.status != 200:
            raise ServiceUnavailable(service, f"HTTP status {answer.status}, wanted 200")
        data = answer.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise ServiceUnavailable(service, f"an answer of more than {max_bytes} bytes")
        if answer.length:  # less than Content-Length said
            raise ServiceUnavailable(service, "the answer was cut short")
        return data


def _cut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    try:
        # Not `SSLSocket.shutdown`, which takes the TLS state away from the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it is over already


def _words(exc: OSError | http.client.HTTPException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate refused: {exc.verify_message}"
    if isinstance(exc, TimeoutError):
        return "time-out"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return f"no HTTP answer ({type(exc).__name__})"
