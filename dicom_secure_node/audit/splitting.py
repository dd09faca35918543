"""One input, several messages: XML, stores of a node, frames, and syslog as it lies in logs.

The first octets decide:

* ``{``: JSON lines, the node's own store; each has its XML in ``xml``;
* an octet count before ``<PRI>``: frames of RFC 5425, one after the other;
* a UTF-16 or UTF-32 mark or a NUL: one document;
* anything else: lines. A message begins where a line begins with ``<PRI>``, with a log's own header
  and a document behind it, or with a document after the end of the one before. So XML over many
  lines stays together, be it in a file or, unescaped, in a log.

Memory is bounded by the limit for one message, whatever the input's size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from dicom_secure_node.audit.text import cut

_COUNT = re.compile(rb"[1-9][0-9]{0,8} ")
_FRAMES = re.compile(rb"[1-9][0-9]{0,8} <[0-9]{1,3}>")
_PRIORITY = re.compile(rb"<[0-9]{1,3}>")
_DOCUMENT = re.compile(
    rb"(?:\xef\xbb\xbf)*<(?:\?xml|!DOCTYPE|(?:[\w.-]{1,64}:)?AuditMessage)\b", re.I
)
_END = re.compile(rb"</(?:[\w.-]{1,64}:)?AuditMessage\s*>", re.I)
_MESSAGE_IDS = (b" DICOM+RFC3881 ", b" IHE+RFC-3881 ")
_HEADER_LIMIT = 1024  # octets of a log's header, structured data included
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"\0", b"<\0")

__all__ = ["Piece", "split"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One message of an input.

    Attributes
    ----------
    number : int
        The line it begins in, or which frame it is; from 1.
    raw : bytes
        The octets, at most one more than the limit: the judge then says so.
    trouble : str
        Why there is no message here, in words; empty where there is one.
    foreign : bool
        A syslog message of another kind: an error of nobody (note in A.6).
    """

    number: int
    raw: bytes
    trouble: str = ""
    foreign: bool = False


def split(stream: BinaryIO, limit: int) -> Iterator[Piece]:
    """Yield the messages in a stream.

    Parameters
    ----------
    stream : binary file
        Read forwards only; a pipe will do.
    limit : int
        Octets of one message.
    """
    start = stream.read(64)
    if start.startswith(_WIDE):
        yield Piece(1, (start + stream.read(max(limit + 1 - len(start), 0)))[: limit + 1])
        return
    source = _Pushback(start, stream)
    if start.lstrip()[:1] == b"{":
        yield from _stored(source, limit)
    elif _FRAMES.match(start):
        yield from _frames(source, limit)
    else:
        yield from _lines(source, limit)


class _Pushback:
    """A stream with its first octets back in front."""

    def __init__(self, start: bytes, stream: BinaryIO) -> None:
        self._start = start
        self._stream = stream

    def read(self, size: int) -> bytes:
        taken, self._start = self._start[:size], self._start[size:]
        return taken + self._stream.read(size - len(taken)) if len(taken) < size else taken

    def line(self, limit: int) -> bytes:
        """Return a line of at most `limit` octets with its end; a longer one comes in parts."""
        head, feed, rest = self._start.partition(b"\n")
        head += feed
        if feed or len(head) >= limit:
            self._start = head[limit:] + rest
            return head[:limit]
        self._start = b""
        return head + self._stream.readline(limit - len(head))


def _stored(source: _Pushback, limit: int) -> Iterator[Piece]:
    number = 0
    # Escapes may take six octets for one character; the rest of the record is small.
    while line := source.line(6 * limit + 65536):
        number += 1
        if not line.strip():
            continue
        try:
            xml = json.loads(line)["xml"]
            if not isinstance(xml, str):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            yield Piece(number, line[: limit + 1], "a line that is no stored message")
        else:
            yield Piece(number, xml.encode("utf-8", "surrogatepass")[: limit + 1])


def _frames(source: _Pushback, limit: int) -> Iterator[Piece]:
    number = 0
    while True:
        digits = b""
        while len(digits) < 10 and (octet := source.read(1)):
            digits += octet
            if octet == b" ":
                break
        # A file may have a line feed at its end, a frame has none (RFC 5425 section 4.3).
        if not digits.strip():
            return
        number += 1
        if _COUNT.fullmatch(digits) is None:
            yield Piece(number, digits, f"{cut(repr(digits), 40)} where an octet count should be")
            return
        size = int(digits)
        raw = source.read(min(size, limit + 1))
        left = size - len(raw)
        while left and (skipped := source.read(min(left, 65536))):  # stay in step (RX.2)
            left -= len(skipped)
        if left and len(raw) <= limit:
            yield Piece(number, raw, f"the input ends {left} octets before the frame")
        else:
            yield Piece(number, raw, foreign=_is_foreign(raw))


def _lines(source: _Pushback, limit: int) -> Iterator[Piece]:
    message = bytearray()
    begun, number, ended, fresh = 1, 0, False, True
    while line := source.line(65536):
        number += fresh
        if fresh and message.strip() and _begins(line, bytes(message), ended=ended):
            yield Piece(begun, bytes(message), foreign=_is_foreign(bytes(message)))
            message.clear()
        if not message.strip():
            message.clear()
            begun, ended = number, False
        ended = ended or _END.search(line) is not None
        if len(message) <= limit:
            message += line[: limit + 1 - len(message)]
        fresh = line.endswith(b"\n")
    if message.strip() or begun == 1:
        yield Piece(begun, bytes(message), foreign=_is_foreign(bytes(message)))


def _begins(line: bytes, before: bytes, *, ended: bool) -> bool:
    """Return True when a line is the first of a message."""
    if _PRIORITY.match(line):
        return True
    is_log = _PRIORITY.match(before) or before.lstrip()[:1].isalnum()
    if line[:1].isalnum() and (ended or is_log):
        return _DOCUMENT.search(line, 0, _HEADER_LIMIT) is not None or (
            ended and is_log is not None and b"<" not in line[:_HEADER_LIMIT]
        )
    return ended and _DOCUMENT.match(line.lstrip()) is not None


def _is_foreign(raw: bytes) -> bool:
    """Return True for a syslog message that does not claim to be an audit message and has none."""
    if not _PRIORITY.match(raw) or _DOCUMENT.search(raw):
        return False
    return not any(name in raw[:_HEADER_LIMIT] for name in _MESSAGE_IDS)
