"""One line of the log: what it holds, and the hash that ties it to all before it.

::

    {"seq": 12, "at": "2026-11-22T09:31:03.302114Z", "peer": "192.0.2.7:40112", "via": "tls",
     "sender": "CN=ct1", "raw": "<85>1 ...", "chain": "9f..."}

(on one line).

``chain`` is SHA-256 over the ``chain`` of the line before (64 hexadecimal digits; zeros before the
first) and this line's octets up to the comma before ``"chain"``. So it can be checked by hand::

    printf '%s%s' "$before" "${line%, \"chain\"*}" | sha256sum

``raw`` is the message where it is UTF-8, else it stands in ``base64``. A line with ``note`` in
place of the message is the log's own: ``begin``, ``start``, ``stop``, ``deleted``, ``lost``.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from dicom_secure_node.audit.collecting.records import Arrival
from dicom_secure_node.errors import InvalidInput

GENESIS = "0" * 64
_CHAIN = b', "chain": "'
_TAIL = len(_CHAIN) + 64 + len(b'"}')

_quoted = json.encoder.encode_basestring  # as json.dumps(..., ensure_ascii=False) does


@dataclass(frozen=True, slots=True)
class Line:
    """A line that was read, not yet believed.

    Attributes
    ----------
    head : bytes
        What the hash is over, besides the hash before.
    chain : str
        The hash the line ends with.
    note : str
        Empty for a message.
    facts : mapping
        Everything in it, decoded from JSON.
    """

    sequence: int
    head: bytes = field(repr=False)
    chain: str
    note: str
    facts: Mapping[str, Any] = field(repr=False)

    def arrival(self) -> Arrival:
        """Return the message in it.

        Raises
        ------
        InvalidInput
            It holds none.
        """
        facts = self.facts
        try:
            raw = facts["raw"].encode() if "raw" in facts else b64decode(facts["base64"])
            at = datetime.fromisoformat(facts["at"])
            arrival = Arrival(raw, at, facts["peer"], facts["via"], facts.get("sender", ""))
            at.utctimetuple()
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as exc:
            where = f"record {self.sequence}"
            raise InvalidInput(f"{type(exc).__name__}", "a message", where) from exc
        return arrival


def message_fields(arrival: Arrival) -> bytes:
    """Return the line of a message without its number and hash."""
    try:
        text = arrival.raw.decode("utf-8")
    except UnicodeDecodeError:
        body = b'"base64": "%b"' % b64encode(arrival.raw)
    else:
        body = b'"raw": ' + _quoted(text).encode("utf-8")
    at = instant(arrival.received_at)
    about = f'"at": "{at}", "peer": {_quoted(arrival.peer)}, "via": {_quoted(arrival.transport)}, '
    if arrival.sender:
        about += f'"sender": {_quoted(arrival.sender)}, '
    return about.encode("utf-8", "replace") + body


def note_fields(note: str, at: datetime, facts: Mapping[str, Any]) -> bytes:
    """Return the line of one of the log's own notes without its number and hash."""
    return json.dumps({"at": instant(at), "note": note, **facts})[1:-1].encode()


def instant(when: datetime) -> str:
    """Return a time in UTC with microseconds and ``Z``."""
    return when.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def link(before: str, head: bytes) -> str:
    """Return the hash of a line, given that of the line before it."""
    return sha256(before.encode("ascii") + head).hexdigest()


def head_of(sequence: int, fields: bytes) -> bytes:
    """Return what the hash of a line is over."""
    return b'{"seq": %d, %b' % (sequence, fields)


def sealed(fields: bytes, chain: str) -> bytes:
    """Return the line as the journal wants it: an object without its number."""
    return b'{%b%b%b"}' % (fields, _CHAIN, chain.encode("ascii"))


def parse(line: bytes) -> Line:
    """Return a line of the log, its line feed taken off.

    Raises
    ------
    InvalidInput
        It is no such line.
    """
    if line[-_TAIL : len(_CHAIN) - _TAIL] != _CHAIN:
        raise InvalidInput("a line without its hash", "a line of the log")
    try:
        facts = json.loads(line)
        sequence, chain, note = facts["seq"], facts["chain"], facts.get("note", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise InvalidInput("a line that cannot be read", "a line of the log") from exc
    if type(sequence) is not int or type(chain) is not str or type(note) is not str:
        raise InvalidInput("a line of other types", "a line of the log")
    if sequence < 1 or not chain.isascii():
        raise InvalidInput("a line of other values", "a line of the log")
    return Line(sequence, line[:-_TAIL], chain, note, facts)
