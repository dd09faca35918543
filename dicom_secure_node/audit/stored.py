"""An audit message as a record of the store::

    {"seq": 41, "time": "2026-11-22T09:31:03.302Z", "pri": 85, "xml": "<AuditMessage>..."}

`Stored.of` is the one place that reads it back. Delivery spends most of its time there, so what
`record` writes, with no escapes but those of quotation marks, is not given to a JSON parser;
everything else is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from dicom_secure_node.durable.segments import Entry

_USUAL = re.compile(
    rb'\{"seq": [0-9]{1,19}, "time": "[0-9TZ:.+-]{1,40}", "pri": ([0-9]{1,3}), "xml": "'
)


def record(time: str, priority: int, xml: str) -> dict[str, Any]:
    """Return what the journal is given."""
    return {"time": time, "pri": priority, "xml": xml}


@dataclass(slots=True)
class Stored:
    """What delivery needs of a record: PRI, and the XML in UTF-8."""

    priority: int
    xml: bytes = field(repr=False)

    @classmethod
    def of(cls, entry: Entry) -> Stored:
        """Return the message of a record.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            The record is damaged.
        """
        line = entry.line
        usual = _USUAL.match(line)
        if usual and line.endswith(b'"}'):
            body = line[usual.end() : -2]
            xml = body.translate(None, b"\\")
            escapes = len(body) - len(xml)
            # Each backslash stands before a quotation mark, and each of these behind one: no
            # other escapes, no backslash of the text itself, no further key.
            if body.count(b'\\"') == escapes == xml.count(b'"'):
                xml.isascii() or str(xml, "utf-8")  # raises where it is none
                return cls(int(usual[1]), xml)
        found = entry.record()
        return cls(int(found["pri"]), found["xml"].encode("utf-8"))
