"""Messages out of a stream of octets, in step whatever comes (RFC 5425 section 4.3, RFC 6587).

::

    frame = MSG-LEN SP SYSLOG-MSG            octets counted: what RFC 5425 wants
    frame = SYSLOG-MSG LF                    tolerated where a message starts with "<"

Rules, in order:

1. Each frame is looked at by itself: a connection may mix both forms. Line ends between frames
   are passed over; some products write one after a counted message.
2. A message longer than the limit is thrown away, exactly, and counted; what follows is in step.
3. Anything else at the start of a frame, a length with a leading zero or beyond `ABSURD`, is the
   end: nobody knows where the next message begins.
4. Memory is bounded by the limit, time is linear in the octets.
"""

from __future__ import annotations

import re

ABSURD = 64 * 1024 * 1024
"""A length nobody means; it is not worth reading as far."""

_LENGTH = re.compile(rb"([1-9][0-9]{0,8}) ")
_PERHAPS = re.compile(rb"[1-9][0-9]{0,8}\Z")
_LESS_THAN = ord("<")
_LINE_ENDS = (ord("\n"), ord("\r"))


class Frames:
    """The frames of one connection. Knows no socket.

    Parameters
    ----------
    limit : int
        Octets of one message.

    Attributes
    ----------
    oversized : int
        Messages that were thrown away.
    broken : str
        Why nothing more can be read, in words; empty while in step.
    """

    def __init__(self, limit: int) -> None:
        self.oversized = 0
        self.broken = ""
        self._limit = limit
        self._buffer = bytearray()
        self._wanted = 1  # octets in the buffer before it is worth looking again
        self._searched = 0  # of the buffer, for a line feed
        self._skip = 0  # octets of a counted message to throw away
        self._skip_line = False  # the rest of a line is thrown away

    @property
    def partial(self) -> bool:
        """Return whether a frame has begun and not ended."""
        return bool(self._buffer or self._skip or self._skip_line)

    def feed(self, octets: bytes) -> list[bytes]:
        """Take octets as they came and return the messages that are complete now."""
        found: list[bytes] = []
        self._buffer += octets
        if self.broken:
            self._buffer.clear()
        elif len(self._buffer) >= self._wanted:
            self._cut(found)
        return found

    def _cut(self, found: list[bytes]) -> None:
        """Take what is complete off the buffer."""
        place = 0
        while (following := self._next(place, found)) is not None:
            place = following
        del self._buffer[:place]
        self._wanted = max(1, self._wanted - place)
        self._searched = max(0, self._searched - place)

    def _next(self, place: int, found: list[bytes]) -> int | None:
        """Take one step at `place`; return where the next begins, None to wait for more."""
        buffer = self._buffer
        self._wanted = place + 1
        if place >= len(buffer):
            return None
        if self._skip:
            step = min(self._skip, len(buffer) - place)
            self._skip -= step
            return place + step
        if self._skip_line:
            end = buffer.find(b"\n", place)
            self._skip_line = end < 0
            return len(buffer) if end < 0 else end + 1
        first = buffer[place]
        if first == _LESS_THAN:
            return self._line(place, found)
        if first in _LINE_ENDS:
            return place + 1
        return self._counted(place, found)

    def _counted(self, place: int, found: list[bytes]) -> int | None:
        buffer = self._buffer
        match = _LENGTH.match(buffer, place)
        if match is None:
            if not _PERHAPS.match(buffer, place):
                found_here = bytes(buffer[place : place + 16])
                self.broken = f"found {found_here!r}, wanted a length and a blank, or <"
            self._wanted = len(buffer) + 1
            return None
        length, start = int(match[1]), match.end()
        if length > self._limit:
            if length > ABSURD:
                self.broken = f"found a length of {length}, wanted at most {self._limit}"
                return None
            self.oversized += 1
            self._skip = length
            return start
        end = start + length
        if len(buffer) < end:
            self._wanted = end
            return None
        found.append(bytes(buffer[start:end]))
        return end

    def _line(self, place: int, found: list[bytes]) -> int | None:
        buffer = self._buffer
        end = buffer.find(b"\n", max(place, self._searched), place + self._limit + 2)
        if end >= 0:
            message = bytes(buffer[place:end]).removesuffix(b"\r")
            if len(message) <= self._limit:
                found.append(message)
                return end + 1
        elif len(buffer) - place <= self._limit + 1:
            self._searched = len(buffer)
            self._wanted = len(buffer) + 1
            return None
        self.oversized += 1
        self._skip_line = True
        return place
