"""The way to an audit record repository: syslog over TLS (A.6) or UDP (A.7).

Syslog has no receipt. A write that succeeds says only that the kernel took the octets, so a link
does two things more:

* before each batch, and while idle, it looks whether the repository has closed: the first write
  after that would still succeed, and the message would be lost;
* after connecting it waits a moment for the server's word: with TLS 1.3 a client whose
  certificate is refused hears of it only when it reads.

What is uncertain when a connection breaks is re-sent by the trail, see `Repository.window`.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import ssl
import struct
import termios
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dicom_secure_node.audit.syslog import DICOM_MESSAGE_ID, SEQUENCE, frame, is_identifier
from dicom_secure_node.audit.text import cut
from dicom_secure_node.errors import (
    ConfigurationError,
    HandshakeRefused,
    SecureNodeError,
    ServiceUnavailable,
)

BACK_OFF = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds; the last one repeats


class SocketLike(Protocol):
    """What a link needs of a connected socket; `ssl.SSLSocket` fits."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class ContextLike(Protocol):
    """What a link needs of a TLS context; `ssl.SSLContext` and `tls.ClientContext` fit."""

    def wrap_socket(
        self, sock: socket.socket, server_side: bool = ..., *, server_hostname: str | None = ...
    ) -> Any: ...


@dataclass(frozen=True)
class Repository:
    """Where audit messages go, and how.

    Attributes
    ----------
    name : str
        In logs, status and the name of its cursor file.
    transport : str
        ``tls`` or ``udp``.
    context : ContextLike, optional
        For ``tls``; checks the repository's certificate and shows ours.
    server_name : str, optional
        Name expected in the repository's certificate; `host` if absent.
    message_id : str
        MSGID: ``DICOM+RFC3881`` or ``IHE+RFC-3881``.
    identifier : str
        How a message that comes twice is known again: ``sequence``, ``name@number`` or ``none``,
        see `audit.syslog`.
    size_limit : int
        Octets of one datagram; a longer message is logged and counted, never cut (A.7).
    timeout : float
        Seconds for connecting, the handshake and one write.
    window : int
        When a connection breaks, all that the other side's TCP has not acknowledged is sent
        again, and without an orderly close this many messages before that: acknowledged by
        TCP does not mean read, and syslog has no receipt.
    resend_seconds : float
        What was sent this shortly before any end of the connection is sent again as well.
    back_off : sequence of float
        Seconds between attempts to connect; the last one repeats.
    connect : callable, optional
        Replaces the whole of connecting: returns a connected `SocketLike`.
    """

    name: str
    host: str
    port: int
    transport: str = "tls"
    context: ContextLike | None = None
    server_name: str | None = None
    message_id: str = DICOM_MESSAGE_ID
    identifier: str = SEQUENCE
    size_limit: int = 60_000
    timeout: float = 10.0
    window: int = 64
    resend_seconds: float = 5.0
    back_off: Sequence[float] = BACK_OFF
    connect: Callable[[], SocketLike] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        where = f"audit.repository {self.name!r}"
        if self.transport not in ("tls", "udp"):
            raise ConfigurationError(f"transport {self.transport!r}, wanted tls or udp", where)
        if self.transport == "tls" and self.context is None and self.connect is None:
            raise ConfigurationError("transport tls without trust and credential", where)
        if not is_identifier(self.identifier):
            wanted = "sequence, none, or name@number with a private enterprise number"
            raise ConfigurationError(f"identifier {self.identifier!r}, wanted {wanted}", where)
        if not self.back_off:
            raise ConfigurationError("back_off is empty, wanted seconds", where)

    def open(self) -> Link:
        """Return a connected link.

        Raises
        ------
        ServiceUnavailable
            Nobody there, or one side refused the other.
        """
        link: type[Link] = TLSLink if self.transport == "tls" else UDPLink
        with self.errors("connecting"):
            return link(self)

    @contextlib.contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Turn what goes wrong inside into `ServiceUnavailable`."""
        try:
            yield
        except ServiceUnavailable:
            raise
        except HandshakeRefused as exc:
            raise self.unavailable(f"{doing}: {exc.reason}") from exc
        except (OSError, SecureNodeError) as exc:
            raise self.unavailable(f"{doing}: {_words(exc)}") from exc

    def unavailable(self, reason: str) -> ServiceUnavailable:
        """Return the error for this repository."""
        where = f"audit repository {self.name} {self.host}:{self.port}"
        return ServiceUnavailable(where, cut(reason))  # may hold words of the other side


class Closed(ServiceUnavailable):
    """The repository closed the connection in good order."""


class Truncated(Closed):
    """TCP ended in good order and TLS did not: as when the repository is killed."""


class Link:
    """One connection to a repository; used by one thread."""

    batch = 128  # messages given to one `send`
    pause = 0.0  # seconds between batches
    stream = True  # reading nothing means that the other side has closed

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        connect = repository.connect or self._connect
        self._socket = connect()
        try:
            self._confirm()
        except BaseException:
            self._socket.close()
            raise

    def _connect(self) -> SocketLike:
        raise NotImplementedError

    def _confirm(self) -> None:
        """Wait for a sign that the other side has taken us; may do nothing."""

    def send(self, messages: Sequence[bytes]) -> int:
        """Send SYSLOG-MSGs in order; return how many were too large to send.

        Raises
        ------
        Closed
            The repository had closed the connection; nothing was sent.
        ServiceUnavailable
            The connection broke; what arrived is not known.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Raise `Closed` or `ServiceUnavailable` if the other side has ended the connection."""
        with self._repository.errors("connection lost"):
            # Not select(): what a TLS layer has read ahead is not visible in the descriptor.
            self._socket.settimeout(0)
            try:
                while self._socket.recv(1024) or not self.stream:
                    pass  # nothing is expected; read it away
            except (BlockingIOError, TimeoutError):
                return
            except OSError as exc:
                if _wants_more(exc):
                    return
                raise
        where = f"audit repository {self._repository.name}"
        if getattr(self._socket, "truncated", False):  # not known of ssl's own sockets
            raise Truncated(where, "ended by the repository without close_notify")
        raise Closed(where, "closed by the repository")

    def unacknowledged(self) -> int:
        """Return the octets sent that the other side's TCP has not acknowledged.

        0 where the system does not tell: the window then has to do.
        """
        return 0

    def close(self) -> bool:
        """End the connection in good order (TLS: close_notify first).

        Returns
        -------
        bool
            Whether nothing speaks against everything having arrived.
        """
        with contextlib.suppress(OSError):
            self._socket.close()
        return True


class TLSLink(Link):
    """RFC 5425: octet-counted frames over TLS."""

    def _connect(self) -> SocketLike:
        to = self._repository
        if to.context is None:  # Repository refuses this when it is made
            raise ConfigurationError("no TLS context", f"audit.repository {to.name!r}")
        raw = socket.create_connection((to.host, to.port), to.timeout)
        try:
            _notice_silence(raw)
            name = to.server_name or to.host
            secure: SocketLike = to.context.wrap_socket(
                raw, server_side=False, server_hostname=name
            )
        except BaseException:
            raw.close()
            raise
        handshake = getattr(secure, "handshake", None)
        try:
            if callable(handshake):  # our own TLS sockets put one deadline on all of it
                handshake(to.timeout)
        except BaseException:
            secure.close()
            raise
        return secure

    def _confirm(self) -> None:
        # TLS 1.3: the server's tickets, or its alert, come after its verdict on our certificate.
        # A server that sends no tickets costs this wait once a connection.
        version = getattr(self._socket, "version", None)
        if callable(version) and version() == "TLSv1.3":
            select.select([self._socket], [], [], min(0.5, self._repository.timeout))
        self.check()

    def send(self, messages: Sequence[bytes]) -> int:
        self.check()
        with self._repository.errors("sending"):
            self._socket.settimeout(self._repository.timeout)
            self._socket.sendall(b"".join([frame(message) for message in messages]))
        return 0

    def unacknowledged(self) -> int:
        try:
            # Linux: SIOCOUTQ, the same number as TIOCOUTQ.
            answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        except (OSError, ValueError):
            return 0
        count: int = struct.unpack("i", answer)[0]
        return count

    def close(self) -> bool:
        # RFC 5425: close_notify before closing. Its answer need not be waited for, but shows that
        # the repository has read everything before it.
        answered = not isinstance(self._socket, ssl.SSLSocket)
        with contextlib.suppress(OSError, ValueError):
            self._socket.settimeout(2.0)
            if isinstance(self._socket, ssl.SSLSocket):
                answered = self._say_goodbye(self._socket)
        super().close()
        return answered

    @staticmethod
    def _say_goodbye(secure: ssl.SSLSocket) -> bool:
        try:
            secure.unwrap()
        except (ssl.SSLError, TimeoutError, ConnectionError):
            return False
        except OSError:  # our own TLS sockets do it with shutdown
            secure.shutdown(socket.SHUT_WR)
            while secure.recv(1024):
                pass
        return True


class UDPLink(Link):
    """RFC 5426: one message, one datagram."""

    # Nothing holds back a fast sender but itself: a replay must not outrun the receiver's buffer.
    batch = 32
    pause = 0.005
    stream = False

    def _connect(self) -> SocketLike:
        to = self._repository
        found = socket.getaddrinfo(to.host, to.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(to.timeout)
            plain.connect(address)  # so that "port unreachable" comes back to us
        except BaseException:
            plain.close()
            raise
        return plain

    def send(self, messages: Sequence[bytes]) -> int:
        oversized = 0
        self.check()
        with self._repository.errors("sending"):
            self._socket.settimeout(self._repository.timeout)
            for message in messages:
                if len(message) > self._repository.size_limit:
                    oversized += 1
                else:
                    self._socket.sendall(message)
        return oversized


def _notice_silence(raw: socket.socket) -> None:
    """Have TCP break within half a minute with a repository that vanished without a word."""
    options = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    options["TCP_USER_TIMEOUT"] = 30_000  # milliseconds
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if hasattr(socket, name):  # not every system has all of them
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _wants_more(error: OSError) -> bool:
    """Return True for the TLS stacks' way of saying that no data is there yet."""
    return type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
