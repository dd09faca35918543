"""Bytes between a non-blocking socket and a TLS engine that never touches it.

The engine reads and writes memory (OpenSSL's memory BIO); this moves the bytes, in large pieces
and under deadlines. Compared with giving OpenSSL the file descriptor that is faster, lets us see
a peer's first bytes before OpenSSL does, and keeps every wait in one place.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import threading
import time

from OpenSSL import SSL

from dicom_secure_node.tls.engine import has_output, reader

_READ_SIZE = 128 * 1024  # bytes asked of the kernel at a time
_WRITE_SIZE = 256 * 1024  # bytes encrypted before they are sent
_RECORD = 16 * 1024  # bytes of plain text in one TLS record (RFC 8446 5.1)


class Channel:
    """One TLS connection over one socket.

    May be used by two threads at a time, one reading and one writing; OpenSSL's object is
    locked, waiting is not. Deadlines are `time.monotonic` values, None waits for ever; passing
    one raises ``TimeoutError``. What OpenSSL raises, this raises.

    Parameters
    ----------
    connection : SSL.Connection
        With memory BIOs, its side already chosen.
    sock : socket.socket
        Connected and non-blocking.

    Attributes
    ----------
    first : bytes
        What the peer sent first, at most 16 bytes: enough to tell TLS from what is not.
    ended : bool
        The peer will send no more: it closed TLS, or the transport.
    """

    def __init__(self, connection: SSL.Connection, sock: socket.socket) -> None:
        self.connection = connection
        self.first = b""
        self.ended = False
        self._sock = sock
        self._read = reader()
        self._buffer = bytearray(_RECORD)
        self._fed = False  # the engine may hold bytes it has not looked at
        self._failure: SSL.Error | None = None
        self._outgoing = memoryview(b"")
        self._engine_lock = threading.Lock()
        self._write_lock = threading.Lock()

    # -- the handshake

    def step(self) -> bool:
        """Go on with the handshake as far as the bytes at hand allow; True when it is done."""
        with self._engine_lock:
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                return False
        self._buffer = bytearray(_READ_SIZE)  # a peer is worth that much only now
        return True

    def receive(self, deadline: float | None) -> int:
        """Wait for bytes, give them to the engine and return how many; 0 when the peer ended."""
        while True:
            try:
                count = socket.socket.recv_into(self._sock, self._buffer)
                break
            except (BlockingIOError, InterruptedError):
                self._wait(select.POLLIN, deadline)
        if not count:
            self.ended = True
            return 0
        with memoryview(self._buffer) as view, self._engine_lock:
            self.connection.bio_write(view[:count])
            self._fed = True
        if len(self.first) < 16:
            self.first += bytes(self._buffer[: min(count, 16 - len(self.first))])
        return count

    # -- application data

    def read_into(self, view: memoryview, deadline: float | None) -> int:
        """Decrypt into `view` until it is full or nothing is at hand; wait if nothing ever was.

        Returns
        -------
        int
            Number of bytes, 0 when the peer ended.
        """
        received = 0
        while True:
            filled = self._decrypt(view) if self._fed or self._failure else 0
            if filled or self.ended or not view:
                return filled
            self.flush_if_free()  # an answer OpenSSL owes by itself, such as a key update
            if received and deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError("timed out")  # records without data could go on for ever
            received = self.receive(deadline)

    def _decrypt(self, view: memoryview) -> int:
        with self._engine_lock:
            if self._failure:
                raise self._failure
            filled, end = self._read(self.connection, view)
            if isinstance(end, SSL.WantReadError):
                self._fed = False
            elif isinstance(end, SSL.ZeroReturnError):  # close_notify
                self._fed, self.ended = False, True
            elif end is not None:
                self._failure = end  # what came before it is good and delivered first
                if not filled:
                    raise end
        return filled

    def pending(self) -> int:
        """Return how many bytes can be read without waiting; never raises.

        Also 1 where an end or a failure is waiting to be told, so that a caller who polls
        the socket comes and reads.
        """
        if not (self._fed or self._failure):
            return 0  # it has been asked for more than it had
        with self._engine_lock:
            ready = self.connection.pending()
            if ready:
                return ready
            try:
                self.connection.recv(1, socket.MSG_PEEK)
            except SSL.WantReadError:
                self._fed = False
                return 0
            except SSL.Error as exc:
                if not isinstance(exc, SSL.ZeroReturnError):
                    self._failure = self._failure or exc
                return 1
            return self.connection.pending()

    def write(self, data: memoryview, deadline: float | None) -> int:
        """Encrypt and send the beginning of `data`; return how many bytes of it were taken."""
        with self._write_lock:
            self._flush(deadline)  # what an earlier time-out left
            taken, most = 0, min(len(data), _WRITE_SIZE)
            with self._engine_lock:
                while taken < most:
                    taken += self.connection.send(data[taken : min(taken + _RECORD, most)])
            self._flush(deadline)
        return taken

    def flush(self, deadline: float | None) -> None:
        """Send what the engine has written."""
        with self._write_lock:
            self._flush(deadline)

    def flush_if_free(self) -> None:
        """Send what the engine has written as far as that takes no waiting for anybody."""
        with self._engine_lock:
            if not self._outgoing and not has_output(self.connection):
                return
        if not self._write_lock.acquire(blocking=False):
            return  # the writer will
        try:
            self._flush(0.0)
        except TimeoutError:
            return  # kept for the next flush
        finally:
            self._write_lock.release()

    def _flush(self, deadline: float | None) -> None:
        while True:
            if not self._outgoing:
                with self._engine_lock:
                    if not has_output(self.connection):
                        return
                    try:
                        self._outgoing = memoryview(self.connection.bio_read(64 * 1024))
                    except SSL.WantReadError:
                        return
            try:
                sent = socket.socket.send(self._sock, self._outgoing)
                self._outgoing = self._outgoing[sent:]
            except (BlockingIOError, InterruptedError):
                self._wait(select.POLLOUT, deadline)

    # -- the end

    def say_goodbye(self) -> None:
        """Send close_notify as far as that takes no waiting; never raises."""
        with self._engine_lock:
            try:
                self.connection.shutdown()
            except SSL.Error:
                return  # broken already
        try:
            self.flush_if_free()
        except OSError:
            return  # gone already

    def linger(self, seconds: float) -> None:
        """Let an alert reach the peer: stop sending, and read away what it still sends.

        Closing a socket with unread bytes resets the connection, and the reset may overtake
        the alert. Never raises.
        """
        deadline = time.monotonic() + seconds
        try:
            self.flush(deadline)
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
            for _ in range(64):
                try:
                    if not socket.socket.recv_into(self._sock, self._buffer):
                        return
                except (BlockingIOError, InterruptedError):
                    self._wait(select.POLLIN, deadline)
        except OSError:
            return

    def _wait(self, event: int, deadline: float | None) -> None:
        left = None
        if deadline is not None:
            left = math.ceil((deadline - time.monotonic()) * 1000)  # milliseconds
            if left <= 0:
                raise TimeoutError("timed out")
        descriptor = self._sock.fileno()
        if descriptor < 0:
            raise OSError(errno.EBADF, "the socket was closed meanwhile")
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(left):
            raise TimeoutError("timed out")
