"""Text fit for an audit message: printable, bounded, escaped (PS3.15 A.5.1.1, A.5.2.no_empty)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

UNKNOWN = "(unknown)"
TEXT_LIMIT = 256  # characters of one field; peers choose names, we choose their length
ID_LIMIT = 64  # characters of a UID or accession number
REASON_LIMIT = 512  # characters of an outcome or alert description

# XML 1.0 production [2] Char, less the C1 controls that syslog had better not carry (RFC 5424).
_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKUP = re.compile(r'[&<>"]')
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def timestamp(when: datetime) -> str:
    """Return `when` in UTC with milliseconds and ``Z`` (A.5.2.5: unambiguous as to time zone)."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def cut(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return `text` fit for XML: printable, white space collapsed, at most `limit` characters."""
    long = len(text) > 4 * limit
    if long:  # no need to look at all of what a peer thought of
        text = text[: 4 * limit]
    if not text.isprintable():
        text = _FORBIDDEN.sub("\ufffd", text)
    text = " ".join(text.split())
    if long or len(text) > limit:
        return text[: limit - 1] + "\u2026"
    return text


def escaped(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return `cut` text for XML content or an attribute in double quotes."""
    text = cut(text, limit)
    if _MARKUP.search(text):
        text = _MARKUP.sub(lambda found: _ENTITIES[found[0]], text)
    return text


def mandatory(text: str) -> str:
    """Return escaped text, ``(unknown)`` where there is none."""
    return escaped(text) or UNKNOWN


def optional(attribute: str, text: str, limit: int = TEXT_LIMIT) -> str:
    """Return the attribute with a blank before it, or nothing where there is no text."""
    text = escaped(text, limit) if text else ""
    return f' {attribute}="{text}"' if text else ""
