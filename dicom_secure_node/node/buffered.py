"""An acceptor's socket that reads ahead: few large reads in place of many small ones.

What has been read and not yet taken lies in one buffer, so a PDU need not fit in: whoever reads
takes it in pieces, as they come. The peer's PDU length costs no memory.
"""

from __future__ import annotations

from typing import Any

from dicom_secure_node.node.transport import BoundedSocket

_AHEAD = 256 * 1024  # bytes read ahead of who takes them; resident only as far as it was filled


class BufferedSocket(BoundedSocket):
    """`BoundedSocket` with a buffer in front; for one reading thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._buffer = memoryview(bytearray(_AHEAD))
        self._start = self._end = 0
        self._failure: OSError | None = None

    def close_wake(self) -> None:
        """Give the buffer back as well: the association may lie about until it is collected."""
        super().close_wake()
        self._buffer = memoryview(b"")
        self._start = self._end = 0

    @property
    def ready(self) -> bool:
        """Return True where something can be read; else wait a moment, as `BoundedSocket` does."""
        if self._is_connected and (self._end > self._start or self._failure is not None):
            return True  # what is left when the connection is closed nobody reads
        if not self._readable():
            return False
        try:
            self._fill(1, 0.0)
        except (BlockingIOError, TimeoutError):  # half a TLS record is nothing yet
            return False
        except OSError as exc:
            self._failure = exc  # for who reads to hear
        return True

    @property
    def at_hand(self) -> int:
        """Return how many bytes can be taken without waiting."""
        return self._end - self._start

    def peek(self, count: int) -> memoryview:
        """Return the next `count` bytes without taking them, or fewer when the peer closed.

        Good until the next call. `count` is at most 256 KiB.

        Raises
        ------
        TimeoutError
            The deadline passed first.
        OSError
            The connection broke.
        """
        while self._end - self._start < count:
            if not self._fill(count, self._left()):
                break
        return self._buffer[self._start : min(self._start + count, self._end)]

    def some(self, most: int) -> memoryview:
        """Take up to `most` bytes, waiting only if there are none; empty when the peer closed.

        Good until the next call. Raises as `peek` does.
        """
        start = self._start
        if start == self._end:
            if not self._fill(1, self._left()):
                return self._buffer[:0]
            start = self._start
        self._start = end = min(start + most, self._end)
        return self._buffer[start:end]

    def skip(self, count: int) -> None:
        """Take `count` bytes that `peek` has shown."""
        self._start += count

    def recv_exactly(self, view: memoryview) -> int:
        """Fill `view` and return how many bytes came before the peer closed.

        Raises as `peek` does.
        """
        filled = 0
        while filled < len(view):
            piece = self.some(len(view) - filled)
            if not piece:
                break
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def drop_some(self) -> bool:
        """Read and forget what is there; return False when the peer has closed."""
        if self.at_hand:
            self._start = self._end
            return True
        return super().drop_some()

    def _fill(self, wanted: int, seconds: float | None) -> int:
        """Read what is there, with room for `wanted` bytes in a row; 0 when the peer closed."""
        if self._failure is not None:
            raise self._failure
        sock = self.socket
        if sock is None:
            raise ConnectionResetError("the connection is closed")
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + wanted > len(self._buffer):
            rest = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, len(rest)
            self._buffer[: self._end] = rest
        sock.settimeout(seconds)
        count = sock.recv_into(self._buffer[self._end :])
        self._end += count
        return count
