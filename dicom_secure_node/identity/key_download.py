"""Fetch the keys of a token issuer by HTTP GET over TLS, within bounds.

No redirection is followed (it could lead away from TLS, or to a host nobody chose), no proxy
is used, and nothing is read from the environment.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable
from dicom_secure_node.identity.jwks import MAX_SET_BYTES

SERVICE = "keys of the JWT issuer"


class Download:
    """Fetches a key set by HTTP GET, over TLS.

    One deadline holds for everything after the connection is made, whatever the other side
    trickles.

    Parameters
    ----------
    url : str
        ``https:``; ``http:`` on the loopback interface only.
    trust : sequence of Path
        CA certificates, PEM; the system's where none is given. Read at each download.
    seconds : float
        To connect, and again for the rest.

    Raises
    ------
    ConfigurationError
        The URL is none we would ask, or a CA file cannot be used.
    """

    def __init__(self, url: str, *, trust: Sequence[Path] = (), seconds: float = 5.0) -> None:
        self._host, self._port, self._target, self._encrypted = _parts(url)
        self._trust = tuple(trust)
        self._seconds = seconds
        if self._encrypted:
            self._context()  # now, so that a wrong file shows before the node listens

    def __call__(self) -> bytes:
        """Return the body of the answer.

        Raises
        ------
        ServiceUnavailable
            Nobody there, no trust, no answer in time, or an answer other than 200.
        """
        late = threading.Event()
        try:
            with self._connected() as sock:
                watchdog = threading.Timer(self._seconds, _cut, (sock, late))
                watchdog.daemon = True
                watchdog.start()
                try:
                    data = self._get(sock)
                finally:
                    watchdog.cancel()
        except (OSError, http.client.HTTPException) as exc:
            problem = self._late if late.is_set() else _words(exc)
            raise ServiceUnavailable(SERVICE, problem) from exc
        if late.is_set():  # what we have may be cut short
            raise ServiceUnavailable(SERVICE, self._late)
        return data

    @property
    def _late(self) -> str:
        return f"no whole answer within {self._seconds:g} s"

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self._trust:
            context.load_default_certs()
        for path in self._trust:
            try:
                context.load_verify_locations(path)
            except (OSError, ssl.SSLError) as exc:
                raise ConfigurationError("no CA certificates in PEM", str(path)) from exc
        return context

    def _connected(self) -> socket.socket:
        sock = socket.create_connection((self._host, self._port), timeout=self._seconds)
        if not self._encrypted:
            return sock
        try:
            return self._context().wrap_socket(
                sock, server_hostname=self._host, do_handshake_on_connect=False
            )
        except ConfigurationError as exc:
            sock.close()
            raise ServiceUnavailable(SERVICE, str(exc)) from exc

    def _get(self, sock: socket.socket) -> bytes:
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        connection = http.client.HTTPConnection(self._host, self._port)
        connection.sock = sock
        accept = "application/jwk-set+json, application/json"
        connection.request("GET", self._target, headers={"Accept": accept, "Connection": "close"})
        with connection.getresponse() as answer:
            if answer.status != 200:
                raise ServiceUnavailable(SERVICE, f"HTTP status {answer.status}, wanted 200")
            data = answer.read(MAX_SET_BYTES + 1)
            if answer.length and len(data) <= MAX_SET_BYTES:  # less than Content-Length said
                raise ServiceUnavailable(SERVICE, "the answer was cut short")
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


def _parts(url: str) -> tuple[str, int, str, bool]:
    """Return host, port, path with query, and whether the connection is to be encrypted."""
    try:
        found = urlsplit(url)
        host, port = found.hostname or "", found.port
    except ValueError as exc:
        raise ConfigurationError(f"no URL: {exc}") from exc
    plain = not url.isascii() or not url.isprintable() or " " in url
    if plain or not host or found.fragment or found.username is not None:
        raise ConfigurationError(
            "found a URL with spaces, user, fragment or without host, wanted https://HOST/PATH"
        )
    if found.scheme != "https" and not (found.scheme == "http" and _is_loopback(host)):
        raise ConfigurationError(
            f"found {found.scheme}://{host}, wanted https (http only on the loopback interface)"
        )
    encrypted = found.scheme == "https"
    target = (found.path or "/") + (f"?{found.query}" if found.query else "")
    return host, port or (443 if encrypted else 80), target, encrypted


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
