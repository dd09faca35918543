"""How many connections may be open, in all and from each address."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Protocol

from dicom_secure_node.node.context import Connection

logger = logging.getLogger(__name__)


class Counting(Protocol):
    """What a server needs of `Slots`."""

    def take(self, connection: Connection, sock: socket.socket) -> str: ...

    def secured(self, connection: Connection, sock: socket.socket) -> None: ...

    def associated(self, connection: Connection) -> bool: ...

    def give_back(self, connection: Connection) -> bool: ...

    def __len__(self) -> int: ...


@dataclass
class _Open:
    """One open connection."""

    host: str
    sock: socket.socket


class Slots:
    """Counts open connections, in all and from each address.

    An IPv6 host has a network of 64 bits of addresses to itself, so that counts as one.

    Connections without an association yet may fill half of all; one more ends the oldest of
    them. A peer that means it is through its handshake long before it is the oldest; peers
    that connect and say nothing cannot keep it out.

    Parameters
    ----------
    total, per_address : int
        Connections open at once.
    associations : int, optional
        Those of them that may have an association; all, where left out. What remains is for
        peers to be told that there are too many (PS3.8 Table 9-21).
    end : callable, optional
        Given a connection's ID and socket, ends it; for connections of other processes.
    """

    def __init__(
        self,
        total: int,
        per_address: int,
        end: Callable[[str, socket.socket], None] | None = None,
        associations: int | None = None,
    ) -> None:
        self._total = total
        self._associations = total if associations is None else associations
        self._per_address = per_address
        self._end = end or _cut_here
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}
        self._waiting: dict[str, None] = {}  # without an association, the oldest first

    def take(self, connection: Connection, sock: socket.socket) -> str:
        """Take a slot; return why there is none, or an empty string."""
        host = _host(connection.address)
        with self._lock:
            if sum(1 for one in self._open.values() if one.host == host) >= self._per_address:
                return f"{self._per_address} connections are open from this address"
            if len(self._waiting) >= max(1, self._total // 2):
                self._end_oldest()
            elif len(self._open) >= self._total:
                return f"{self._total} connections are open"
            self._open[connection.id] = _Open(host, sock)
            self._waiting[connection.id] = None
            return ""

    def _end_oldest(self) -> None:
        oldest = next(iter(self._waiting))
        logger.warning("too many connections without an association: the oldest is ended")
        self._end(oldest, self._open[oldest].sock)
        self._forget(oldest)

    def secured(self, connection: Connection, sock: socket.socket) -> None:
        """Note the socket that stands for a connection from now on."""
        with self._lock:
            if connection.id in self._open:
                self._open[connection.id].sock = sock

    def associated(self, connection: Connection) -> bool:
        """Note that a connection is to have an association; False: there are too many."""
        with self._lock:
            if connection.id not in self._waiting:
                return True  # it has one, or was ended meanwhile
            if len(self._open) - len(self._waiting) >= self._associations:
                return False
            del self._waiting[connection.id]
            return True

    def give_back(self, connection: Connection) -> bool:
        """Give a slot back; return False when it had been taken away."""
        with self._lock:
            held = connection.id in self._open
            self._forget(connection.id)
            return held

    def _forget(self, connection_id: str) -> None:
        self._open.pop(connection_id, None)
        self._waiting.pop(connection_id, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)


def cut(sock: socket.socket) -> None:
    """End a connection another thread is busy with."""
    with contextlib.suppress(OSError):  # it may have ended by itself
        # Not by way of TLS, which that thread may be in the middle of.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _cut_here(_: str, sock: socket.socket) -> None:
    cut(sock)


def _host(address: str) -> str:
    """Return what one peer cannot change of its address."""
    if ":" not in address or address.startswith("fe80:"):
        return address  # a link-local peer has to be on our own link
    return str(ip_network((address.partition("%")[0], 64), strict=False))
