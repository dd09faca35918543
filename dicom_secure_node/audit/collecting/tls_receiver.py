"""Syslog over TLS (RFC 5425), received: a thread for each connection.

Rules, in order:

1. ``accept`` hands each connection to a thread of its own at once; hands are shaken there, within
   `Collect.handshake_seconds`. Nobody waits for a slow one.
2. Connections are limited, in all and from one address. Those still shaking hands may fill half of
   all; one more ends the oldest of them.
3. A connection is read from only while what it brings can be kept (`Inbox.put` waits): its sender
   keeps the rest.
4. It ends when the sender closes, when it is idle for too long, when a message takes too long, or
   when it is out of step; each with a line in the log.
5. close_notify is answered, or sent, only when everything the connection brought is on the disk.
   That is the nearest to a receipt there is in syslog.
6. On a stop each sender is told (close_notify) and read from until it closes, too; unless the
   disk takes nothing: then connections just break off, so that senders send again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from dicom_secure_node.audit.collecting.frames import Frames
from dicom_secure_node.audit.collecting.inbox import Inbox
from dicom_secure_node.audit.collecting.records import TLS, Arrival
from dicom_secure_node.audit.collecting.reporting import Reporter
from dicom_secure_node.audit.collecting.settings import Collect
from dicom_secure_node.audit.text import cut
from dicom_secure_node.errors import HandshakeRefused

logger = logging.getLogger(__name__)

_READ = 64 * 1024
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class Secure(Protocol):
    """What is needed of a TLS connection; `tls.socket.TLSSocket` fits."""

    facts: Any  # tls.facts.TLSFacts after the handshake; that package is none of ours

    def handshake(self, seconds: float, /) -> object: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class ServerContext(Protocol):
    """What is needed of a TLS context; `tls.context.ServerContext` fits."""

    def wrap_socket(self, sock: socket.socket, /) -> Any: ...


@dataclass(eq=False)
class _Open:
    """One open connection."""

    host: str
    sock: Any  # the accepted socket, then the TLS one it was turned into
    shaking: bool = True


class _Places:
    """Who is connected, within the limits."""

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._changed = threading.Condition()
        self._open: dict[_Open, None] = {}  # the oldest first

    def take(self, one: _Open) -> str:
        """Take a place; return why there is none, or an empty string."""
        with self._changed:
            if sum(1 for other in self._open if other.host == one.host) >= self._per_address:
                return f"{self._per_address} connections are open from this address"
            shaking = [other for other in self._open if other.shaking]
            if len(shaking) >= max(1, self._total // 2):
                _end(shaking[0].sock)
            elif len(self._open) >= self._total:
                return f"{self._total} connections are open"
            self._open[one] = None
            return ""

    def free(self, one: _Open) -> None:
        """Give a place back."""
        with self._changed:
            self._open.pop(one, None)
            self._changed.notify_all()

    def wait_empty(self, seconds: float) -> None:
        """Return when nobody is connected, or after so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open, seconds)

    def all(self) -> list[_Open]:
        """Return everybody who is connected."""
        with self._changed:
            return list(self._open)


class TLSReceiver:
    """Listens, and puts what comes into the inbox.

    Parameters
    ----------
    context : callable
        Returns the TLS context for the next connection, so that renewed certificates count.

    Raises
    ------
    OSError
        The address is not to be had.
    """

    def __init__(
        self,
        settings: Collect,
        context: Callable[[], ServerContext],
        inbox: Inbox,
        reporter: Reporter,
    ) -> None:
        self._settings = settings
        self._context = context
        self._inbox = inbox
        self._reporter = reporter
        self._places = _Places(settings.connections, settings.connections_per_address)
        self._stopping = threading.Event()
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._listener = socket.create_server(
            (settings.host, settings.port),
            family=family,
            backlog=256,
            dualstack_ipv6=settings.host == "::" and socket.has_dualstack_ipv6(),
        )
        self.port = int(self._listener.getsockname()[1])
        self._accepting = threading.Thread(target=self._accept, name="audit-tls")

    def start(self) -> None:
        """Begin to accept."""
        self._accepting.start()

    def stop(self, seconds: float) -> None:
        """Accept no more, tell every sender, and wait for them to finish, so long at most."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        if self._accepting.ident is not None:
            self._accepting.join()
        self._listener.close()
        if not self._inbox.held:
            for one in self._places.all():
                # A sender that looks before it writes sends nothing more.
                with contextlib.suppress(OSError):
                    one.sock.shutdown(socket.SHUT_WR)
            self._places.wait_empty(seconds)
        for one in self._places.all():
            _end(one.sock)

    # --- The listening thread ---

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                plain, address = self._listener.accept()
            except OSError as exc:
                if self._stopping.is_set():
                    return
                # Out of descriptors, or the peer was gone before we looked.
                self._reporter.warn("accept", "listener", exc.strerror or str(exc))
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._stopping.wait(0.1)
                continue
            self._begin(plain, address)

    def _begin(self, plain: socket.socket, address: Any) -> None:
        host, port = _host(address), address[1]
        one = _Open(host, plain)
        refused = self._places.take(one)
        if not refused:
            conversation = threading.Thread(
                target=self._converse, args=(one, port), name=f"audit-tls-{port}", daemon=True
            )
            try:
                conversation.start()
            except RuntimeError:  # no more threads
                self._places.free(one)
                refused = "no thread to be had"
            else:
                return
        self._reporter.add("refused")
        self._reporter.warn("refused", host, f"connection refused: {refused}")
        plain.close()

    # --- A connection's thread ---

    def _converse(self, one: _Open, port: int) -> None:
        self._reporter.add("connections")
        peer = f"[{one.host}]:{port}" if ":" in one.host else f"{one.host}:{port}"
        try:
            secure = self._shake_hands(one)
            if secure is not None and self._inbox.wait_settled(self._read(one, secure, peer)):
                secure.close()  # close_notify first
        except OSError as exc:
            self._reporter.warn("broken", one.host, exc.strerror or str(exc), f":{port}")
        except Exception:
            logger.exception("%s: the connection is closed: this should not happen", peer)
        finally:
            _end(one.sock)
            with contextlib.suppress(OSError):
                one.sock.close()
            self._places.free(one)
            self._reporter.add("connections", -1)

    def _shake_hands(self, one: _Open) -> Secure | None:
        plain = one.sock
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):  # not every system has them
                plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        secure: Secure = self._context().wrap_socket(plain)
        one.sock = secure
        try:
            secure.handshake(self._settings.handshake_seconds)
        except HandshakeRefused as exc:
            secure.close()
            self._reporter.add("refused")
            self._reporter.warn("handshake", one.host, f"handshake refused: {exc.reason}")
            return None
        one.shaking = False
        return secure

    def _read(self, one: _Open, secure: Secure, peer: str) -> int:
        """Read to the end; return what `Inbox.wait_settled` wants to know."""
        sender = cut(secure.facts.subject or "") if secure.facts else ""
        logger.info("%s connected%s", peer, f": {sender}" if sender else "")
        frames = Frames(self._settings.message_limit)
        count, added, reason = 0, 0, "closed by the sender"
        begun: float | None = None  # when the message that is coming in began
        while True:
            secure.settimeout(self._patience(begun))
            try:
                octets = secure.recv(_READ)
            except TimeoutError:
                what = "idle for too long" if begun is None else "a message took too long"
                reason = f"{what}: closed"
                break
            except OSError as exc:
                reason = f"broken off: {exc.strerror or exc}"
                break
            if not octets:
                break
            oversized = frames.oversized
            messages = frames.feed(octets)
            now = datetime.now(UTC)
            found = [Arrival(raw, now, peer, TLS, sender) for raw in messages if raw]
            if found:
                taken = self._inbox.put(found)
                if not taken:
                    self._reporter.add("given_up", len(found))
                    added, reason = sys.maxsize, "stopped"  # never settled: no close_notify
                    break
                added = taken
            count += len(found)
            if frames.oversized > oversized:
                self._refuse_oversized(one.host, frames.oversized - oversized)
            if frames.broken:
                self._reporter.add("broken")
                self._reporter.warn("framing", one.host, f"out of step, closed: {frames.broken}")
                reason = "out of step"
                break
            if not frames.partial:
                begun = None
            elif begun is None or found:
                begun = time.monotonic()
        if frames.partial and not frames.broken:
            self._reporter.add("unfinished")
            reason += ", within a message"
        logger.info("%s %s, %d messages", peer, cut(reason), count)
        return added

    def _patience(self, begun: float | None) -> float:
        if begun is None:
            return self._settings.idle_seconds
        return max(0.0, begun + self._settings.frame_seconds - time.monotonic())

    def _refuse_oversized(self, host: str, number: int) -> None:
        self._reporter.add("oversized", number)
        limit = self._settings.message_limit
        self._reporter.warn("oversized", host, f"refused a message of more than {limit} octets")


def _host(address: Any) -> str:
    """Return the address of a peer, without zone; an IPv4 one as such."""
    host = str(address[0]).partition("%")[0]
    return host.removeprefix("::ffff:") if "." in host else host


def _end(sock: Any) -> None:
    """End a connection at once; whoever reads from it notices."""
    with contextlib.suppress(OSError):
        # Not the TLS socket's own: that would first say close_notify.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
