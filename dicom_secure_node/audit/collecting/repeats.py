"""Messages that were sent again: which of those that are kept are the same one.

Delivery by syslog is at least once. A sender that numbers its messages in STRUCTURED-DATA, ours
or another's, lets a repeat be told from an event that happened twice: host name, application,
number and the message itself are the same. Time and process of the sending are not looked at,
they differ when a sender restarts. Both stay in the log: which came first is evidence, too.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

REMEMBERED = 200_000
"""Messages a repeat may come after. A sender's window is smaller; memory has to be bounded."""

# RFC 5424: PRI, version, time, then HOSTNAME and APP-NAME, PROCID and MSGID, STRUCTURED-DATA.
_HEADER = re.compile(
    rb"<[0-9]{1,3}>1 [\x21-\x7e]{1,64} ([\x21-\x7e]{1,255} [\x21-\x7e]{1,48})"
    rb" [\x21-\x7e]{1,128} [\x21-\x7e]{1,32} ((?:\[(?:[^\]\\\"]|\"(?:[^\"\\]|\\.)*\")*\])+) ",
    re.DOTALL,
)
_NUMBER = re.compile(rb" sequence(?:Id)?=\"([0-9]{1,19})\"")
_STORE = re.compile(rb" store=\"([^\"\\]{1,64})\"")


@dataclass(frozen=True, slots=True)
class Mark:
    """What a sender calls a message: its own name, and a number."""

    source: bytes
    number: int


def mark_of(raw: bytes) -> Mark | None:
    """Return the mark of a SYSLOG-MSG, None where it has none."""
    return _marked(raw)[0]


def _marked(raw: bytes) -> tuple[Mark | None, bytes]:
    """Return the mark, and the message after the header."""
    header = _HEADER.match(raw)
    number = _NUMBER.search(header[2]) if header else None
    if header is None or number is None:
        return None, raw
    store = _STORE.search(header[2])
    source = header[1] + (b" " + store[1] if store else b"")
    return Mark(source, int(number[1])), raw[header.end() :]


class Repeats:
    """Counts repeats among messages given one after the other.

    Attributes
    ----------
    count : int
        Messages that were there before.
    marked : int
        Messages that carry a number at all; of the others nothing can be said.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self.count = self.marked = 0
        self._remembered = remembered
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def see(self, raw: bytes) -> bool:
        """Take the next message and return whether it is a repeat."""
        mark, message = _marked(raw)
        if mark is None:
            return False
        self.marked += 1
        name = b"%b %d " % (mark.source, mark.number)
        key = blake2b(name + message, digest_size=16).digest()
        if key in self._seen:
            self._seen.move_to_end(key)
            self.count += 1
            return True
        self._seen[key] = None
        if len(self._seen) > self._remembered:
            self._seen.popitem(last=False)
        return False
