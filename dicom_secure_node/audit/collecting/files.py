"""The log's files, read without its lock: by whoever indexes, queries or verifies it.

They are those of a `durable.journal.Journal`; what is beyond its durable end is the reader's to
leave alone (`until`).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dicom_secure_node.audit.collecting import chain
from dicom_secure_node.durable.segments import find_segments, segment_path
from dicom_secure_node.errors import InvalidInput

NAME = "records"
LINE_LIMIT = 8 * 1024 * 1024  # octets; a message of 256 KiB, each octet escaped, takes 1.5 MiB

_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a line is: first number of its segment, offset and length with the line feed."""

    segment: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line as it stands in a file; `whole` is False where its line feed is missing."""

    spot: Spot
    octets: bytes = field(repr=False)
    whole: bool = True


def segments(folder: Path) -> list[int]:
    """Return the first numbers of the segments, ascending."""
    return find_segments(folder, NAME)


def path_of(folder: Path, segment: int) -> Path:
    """Return the file of a segment."""
    return segment_path(folder, NAME, segment)


def lines_of(folder: Path, segment: int, offset: int = 0) -> Iterator[RawLine]:
    """Yield the lines of one segment from `offset` on.

    A line longer than `LINE_LIMIT` comes in pieces, which are no records.

    Raises
    ------
    FileNotFoundError
        It has been deleted.
    """
    with path_of(folder, segment).open("rb", buffering=_BLOCK) as file:
        file.seek(offset)
        while octets := file.readline(LINE_LIMIT):
            whole = octets.endswith(b"\n")
            yield RawLine(Spot(segment, offset, len(octets)), octets.removesuffix(b"\n"), whole)
            offset += len(octets)


def read_at(folder: Path, spots: Iterator[Spot]) -> Iterator[bytes | None]:
    """Yield the octets at each place, None where the segment has been deleted."""
    opened, descriptor = 0, -1
    try:
        for spot in spots:
            if spot.segment != opened:
                if descriptor >= 0:
                    os.close(descriptor)
                opened, descriptor = spot.segment, _open(path_of(folder, spot.segment))
            yield os.pread(descriptor, spot.length, spot.offset) if descriptor >= 0 else None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def last_line(folder: Path, before: int | None = None) -> chain.Line | None:
    """Return the last good line of the log, or of its segments that begin before `before`."""
    for segment in reversed(segments(folder)):
        if before is not None and segment >= before:
            continue
        found = None
        for raw in lines_of(folder, segment):
            if raw.whole:
                try:
                    found = chain.parse(raw.octets)
                except InvalidInput:
                    continue
        if found is not None:
            return found
    return None


def first_line(folder: Path, segment: int) -> chain.Line | None:
    """Return the first good line of a segment."""
    for raw in lines_of(folder, segment):
        try:
            return chain.parse(raw.octets)
        except InvalidInput:
            continue
    return None


def line_numbered(folder: Path, sequence: int) -> chain.Line | None:
    """Return one line by its number, or None where it is not, or not readable."""
    firsts = segments(folder)
    place = bisect_right(firsts, sequence)
    if not place:
        return None
    for raw in lines_of(folder, firsts[place - 1]):
        try:
            line = chain.parse(raw.octets)
        except InvalidInput:
            continue
        if line.sequence == sequence:
            return line
    return None


class Follower:
    """A place in the log that moves forward as it grows; one thread at a time.

    Parameters
    ----------
    sequence : int
        The first number wanted.
    """

    def __init__(self, folder: Path, sequence: int) -> None:
        self._folder = folder
        firsts = segments(folder)
        place = bisect_right(firsts, sequence)
        self._segment = firsts[max(0, place - 1)] if firsts else 0
        self._offset = 0
        self._next = sequence

    def read(self, until: int, limit: int = 512) -> list[tuple[chain.Line, Spot]]:
        """Return up to `limit` further lines with numbers up to `until`; empty at the end.

        Lines that are no records are passed over.
        """
        found: list[tuple[chain.Line, Spot]] = []
        while len(found) < limit and self._next <= until:
            # Looked at first: with a later one there, the end of the present one is its end.
            later = [first for first in segments(self._folder) if first > self._segment]
            if self._read_segment(found, until, limit) or not later:
                return found
            self._segment, self._offset = later[0], 0
        return found

    def _read_segment(self, found: list[tuple[chain.Line, Spot]], until: int, limit: int) -> bool:
        """Read on in the present segment; return False when it has been read to its end."""
        try:
            for raw in lines_of(self._folder, self._segment, self._offset):
                if len(found) >= limit:
                    return True
                if not raw.whole:
                    return False
                try:
                    line = chain.parse(raw.octets)
                except InvalidInput:
                    line = None
                if line is not None and line.sequence > until:
                    return True  # written, perhaps not durable yet
                self._offset += raw.spot.length
                if line is not None and line.sequence >= self._next:
                    found.append((line, raw.spot))
                    self._next = line.sequence + 1
        except FileNotFoundError:
            return False  # deleted, or not there yet
        return False
