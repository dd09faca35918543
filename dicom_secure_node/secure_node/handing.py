"""How accepted connections get from the supervisor to a worker process.

One socket pair for each worker, whose messages keep their bounds and carry a descriptor each
(SCM_RIGHTS). It goes one way only, and a worker believes what comes: nobody else has the other end.
"""

from __future__ import annotations

import pickle
import socket
from dataclasses import dataclass
from typing import Any

from dicom_secure_node.node.context import Connection

_LONGEST = 65_536  # bytes; a connection takes some 300


@dataclass(frozen=True)
class Arrived:
    """A connection to serve.

    Attributes
    ----------
    connection : Connection
    address : tuple
        Of the peer, as ``accept`` returned it.
    """

    connection: Connection
    address: Any


@dataclass(frozen=True)
class End:
    """A connection to end: others need its place."""

    connection_id: str


@dataclass(frozen=True)
class Tell:
    """Figures are wanted as they are now; the answer is a call with the same number."""

    number: int


@dataclass(frozen=True)
class Last:
    """Nothing comes after this: let what is under way finish, and end."""


Order = Arrived | End | Tell | Last


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the supervisor's end and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)  # a worker that takes nothing must not hold up the others
    return ours, theirs


def give(hand: socket.socket, order: Order, sock: socket.socket | None = None) -> None:
    """Send an order to a worker, with a connection's socket if it brings one.

    Raises
    ------
    BlockingIOError
        The worker has not taken what it was sent before.
    OSError
        It has gone.
    """
    descriptors = [] if sock is None else [sock.fileno()]
    socket.send_fds(hand, [pickle.dumps(order)], descriptors)


def take(hand: socket.socket) -> tuple[Order, socket.socket | None] | None:
    """Wait for an order and return it, with the socket it brought; None: the supervisor is gone."""
    try:
        data, descriptors, _, _ = socket.recv_fds(hand, _LONGEST, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if not data:
        return None
    order: Order = pickle.loads(data)  # noqa: S301 - of our supervisor
    return order, socket.socket(fileno=descriptors[0]) if descriptors else None
