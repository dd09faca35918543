"""A socket under an association that cannot be waited on for ever.

pynetdicom's own `AssociationSocket` reads 4 KiB at a time, without a deadline: a peer that
sends one byte a second holds its thread for as long as it likes. This one reads straight
into one buffer, gives each PDU a deadline, wakes up when there is something to do instead of
polling, and gives up on a peer that never reads.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from typing import Any

from pynetdicom import evt
from pynetdicom.transport import AssociationSocket


class BoundedSocket(AssociationSocket):
    """`AssociationSocket` with deadlines and a wake-up.

    Attributes
    ----------
    deadline : float or None
        `time.monotonic` value by which the PDU being read must be complete.
    send_seconds : float
        How long one PDU may take to leave.
    """

    _WAIT = 0.1  # seconds: how late a timer of the reactor may be noticed

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline: float | None = None
        self.send_seconds = 30.0
        self._waking = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._polled: int | None = -1  # the socket's descriptor in it

    def wake(self) -> None:
        """End a wait in `ready`, because there is something to send or to stop for."""
        with self._waking:  # or the descriptor's number could be somebody else's by now
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def close_wake(self) -> None:
        """Give the wake-up's file descriptor back; the reactor has ended."""
        with self._waking:
            descriptor, self._wake = self._wake, -1
            if descriptor >= 0:
                os.close(descriptor)

    def __del__(self) -> None:
        """Give it back also where no association came about."""
        if hasattr(self, "_wake"):
            self.close_wake()

    @property
    def ready(self) -> bool:
        """Return True as soon as there is data to read, False when woken or after a moment."""
        if not self._readable():
            return False
        # Half a TLS record, or a session ticket, is nothing to read yet.
        looks_ready = getattr(self.socket, "ready", None)
        return looks_ready is None or bool(looks_ready())

    def _readable(self) -> bool:
        """Wait a moment for the peer or a wake-up; tell whether something has come."""
        sock = self.socket if self._is_connected else None
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        try:
            self._watch(sock)
            wait = self._WAIT if self.event_queue.empty() else 0.0
            happened = dict(self._poll.poll(wait * 1000))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False
        if happened.pop(self._wake, 0):
            self._rest()
        return bool(happened)

    def _watch(self, sock: socket.socket | None) -> None:
        """Poll the wake-up and, where there is one, a socket; ValueError when it is closed."""
        descriptor = None if sock is None else sock.fileno()
        if descriptor == self._polled:
            return
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        if descriptor is not None:
            self._poll.register(descriptor, select.POLLIN)
        self._polled = descriptor

    def _rest(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except (BlockingIOError, OSError):
            return

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, or fewer when the peer closed.

        Raises
        ------
        TimeoutError
            The deadline passed first.
        """
        buffer = bytearray(nr_bytes)
        count = self.recv_exactly(memoryview(buffer))
        return buffer if count == nr_bytes else buffer[:count]

    def recv_exactly(self, view: memoryview) -> int:
        """Fill `view` and return how many bytes came before the peer closed.

        Raises
        ------
        TimeoutError
            The deadline passed first.
        OSError
            The connection broke.
        """
        sock, filled = self.socket, 0
        if sock is None:
            raise ConnectionResetError("the connection is closed")
        while filled < len(view):
            sock.settimeout(self._left())
            count = sock.recv_into(view[filled:])
            if not count:
                break
            filled += count
        return filled

    def drop_some(self) -> bool:
        """Read and forget what is there; return False when the peer has closed."""
        sock = self.socket
        if sock is None:
            return False
        sock.settimeout(self._WAIT)
        try:
            return bool(sock.recv(65_536))
        except TimeoutError:
            return True
        except OSError:
            return False

    def _left(self) -> float | None:
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the peer took too long over one PDU")
        return left

    def send(self, bytestream: bytes) -> None:
        """Send one PDU whole, or report the connection as closed (Evt17).

        A peer that does not read for `send_seconds` counts as gone.
        """
        try:
            sock = self.socket
            if sock is None:
                raise ConnectionResetError("the connection is closed")
            sock.settimeout(self.send_seconds)
            sock.sendall(bytestream)
            evt.trigger(self.assoc, evt.EVT_DATA_SENT, {"data": bytestream})
        except OSError:
            self.event_queue.put("Evt17")

    def _shutdown_socket(self) -> None:
        """Close also where the peer was faster, so that no descriptor is left behind."""
        sock = self.socket
        if sock is None:
            return
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # already gone at the other end
        finally:
            sock.close()
