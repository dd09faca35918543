"""The files of a journal: numbered lines, and what a crash may have done to them.

A line is ``{"seq": NUMBER, ...}`` and a line feed. JSON writes NUL and line feed as escapes, so a
line with a NUL, without its end or without its number was torn by a crash or damaged on the disk.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_secure_node.durable.files import write_atomically
from dicom_secure_node.errors import ConfigurationError

FORMAT = 1
"""Of the files; raised when an older release could not read what this one writes."""

_HEAD = b'{"seq": '
_NUMBERED = re.compile(_HEAD + rb"([0-9]+),").match


@dataclass(frozen=True, slots=True)
class Entry:
    """One durable record: its sequence number and its line (JSON text without line feed)."""

    sequence: int
    line: bytes

    def record(self) -> dict[str, Any]:
        """Return the decoded record, `seq` included."""
        record: dict[str, Any] = json.loads(self.line)
        return record


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a journal: the number of its first record, and when it was last written."""

    first: int
    path: Path
    modified: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Recovery:
    """What `recover` found: good octets, the number after the last record, lines lost."""

    length: int
    following: int
    torn: int  # lines cut off the end
    damaged: int  # lines that stay, with good ones after them


def segment_path(folder: Path, name: str, first: int) -> Path:
    """Return the path of the segment that begins with record `first`."""
    return folder / f"{name}-{first:010d}.ndjson"


def check_format(folder: Path, name: str) -> None:
    """Note the format of a journal, or refuse one that a newer release wrote.

    A journal without a note is of format 1: it is noted, and so are those we migrate to.

    Raises
    ------
    ConfigurationError
        The format is newer than `FORMAT`, or the note is none.
    OSError
        The folder cannot be read or written.
    """
    path = folder / f"{name}.format"
    try:
        found = path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        write_atomically(path, b"%d\n" % FORMAT, 0o640)
        return
    if not found.isdigit() or int(found) > FORMAT:
        raise ConfigurationError(
            f"found format {found[:16]!r} of a newer release, wanted at most {FORMAT}", str(path)
        )


def find_segments(folder: Path, name: str) -> list[int]:
    """Return the first numbers of the segments of a journal, ascending."""
    prefix, suffix = f"{name}-", ".ndjson"
    stems = [p.name[len(prefix) : -len(suffix)] for p in folder.glob(f"{prefix}*{suffix}")]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def encode(record: Mapping[str, Any] | bytes) -> bytes:
    """Return a record ready for `number`: without its opening brace, with the line feed.

    Raises
    ------
    ValueError
        Not a JSON object on one line, or empty.
    """
    if not isinstance(record, bytes):
        record = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace")
    if record[:1] != b"{" or record[-1:] != b"}" or b"\n" in record or len(record) < 3:
        raise ValueError("a journal record is a JSON object that is not empty, on one line")
    return record[1:] + b"\n"


def number(bodies: Sequence[bytes], first: int) -> bytes:
    """Return the lines of encoded records, numbered from `first`."""
    return b"".join([b"%b%d, %b" % (_HEAD, first + n, body) for n, body in enumerate(bodies)])


def sequence_of(line: bytes) -> int | None:
    """Return the number of a whole line, or None when it is torn or damaged."""
    found = _NUMBERED(line)
    if found is None or line[-2:] != b"}\n" or b"\x00" in line:
        return None
    return int(found[1])


def recover(path: Path, first: int) -> Recovery:
    """Cut what a crash left at the end off a segment that begins with record `first`.

    Raises
    ------
    OSError
        The file cannot be read or cut.
    """
    data = path.read_bytes()
    length, following, damaged, bad, position = 0, first, 0, 0, 0
    while position < len(data):
        end = data.find(b"\n", position) + 1 or len(data)
        found = sequence_of(data[position:end])
        if found is None or found < following:
            bad += 1
        else:  # a good line: what was bad before it is damage, not a torn end
            damaged, bad, length, following = damaged + bad, 0, end, found + 1
        position = end
    if length < len(data):
        with path.open("r+b") as segment:
            segment.truncate(length)
            os.fsync(segment.fileno())
    return Recovery(length, following, bad, damaged)
