"""Records as CSV and as JSON lines, a piece at a time: however long, little memory."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from dicom_secure_node.audit.collecting.records import Record
from dicom_secure_node.audit.text import timestamp
from dicom_secure_node.audit_web.text import cell

_PIECE = 64 * 1024  # octets gathered before they are sent
_BOM = "\ufeff"  # spreadsheets take CSV for a local code page without it


def facts(record: Record) -> dict[str, Any]:
    """Return what is known of a record, in the order of the columns of a CSV file."""
    said = record.summary
    return {
        "number": record.sequence,
        "received": timestamp(record.received_at),
        "time": timestamp(said.time) if said.time else said.time_text,
        "outcome": said.outcome,
        "event": said.event.value if said.event else "",
        "event_meaning": said.event.meaning if said.event else "",
        "types": [code.meaning or code.value for code in said.types],
        "action": said.action,
        "users": [user.user_id for user in said.users],
        "user_names": [user.name for user in said.users if user.name],
        "addresses": [user.address for user in said.users if user.address],
        "patients": [patient.patient_id for patient in said.patients],
        "patient_names": [patient.name for patient in said.patients if patient.name],
        "studies": list(said.studies),
        "accessions": list(said.accessions),
        "source": said.source,
        "text": said.text,
        "valid": record.valid,
        "rules": list(record.rules),
        "intact": record.intact,
        "peer": record.peer,
        "transport": record.transport,
        "sender": record.sender,
        "trouble": said.trouble,
    }


def as_csv(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield a CSV file (RFC 4180) with a heading; lists are joined by `` | ``."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    buffer.write(_BOM)
    writer.writerow(COLUMNS)
    for record in records:
        writer.writerow([_cell(value) for value in facts(record).values()])
        if buffer.tell() >= _PIECE:
            yield _taken(buffer)
    yield _taken(buffer)


def as_ndjson(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield one JSON object a line, in ASCII; ``raw`` is the SYSLOG-MSG in base64."""
    buffer = io.StringIO()
    for record in records:
        raw = base64.b64encode(record.raw).decode("ascii")
        json.dump({**facts(record), "chain": record.chain, "raw": raw}, buffer)
        buffer.write("\n")
        if buffer.tell() >= _PIECE:
            yield _taken(buffer)
    yield _taken(buffer)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return cell(" | ".join(value))
    return cell(str(value).lower() if isinstance(value, bool) else str(value))


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode("utf-8", "replace")


COLUMNS = (
    *("number", "received", "time", "outcome", "event", "event_meaning", "types", "action"),
    *("users", "user_names", "addresses", "patients", "patient_names", "studies", "accessions"),
    *("source", "text", "valid", "rules", "intact", "peer", "transport", "sender", "trouble"),
)

Format = Callable[[Iterable[Record]], Iterator[bytes]]
FORMATS: Mapping[str, tuple[Format, str]] = MappingProxyType(
    {
        "csv": (as_csv, "text/csv; charset=utf-8"),
        "ndjson": (as_ndjson, "application/x-ndjson"),
    }
)
