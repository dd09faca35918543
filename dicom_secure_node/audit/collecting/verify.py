"""Was the log changed? Every line is read, every hash computed anew.

What each tampering looks like, and what finds it:

=========================== ==================================================================
an octet of a record        its own hash: ``edited``
record and its hash         the hash of the next: ``edited`` there; the index: ``index``
a record deleted            a number is not there: ``missing``
two swapped                 a number where another should be: ``moved``
the oldest deleted          no note of a deletion that ends there: ``missing``
a file of another log       the first hash in it: ``edited``
the newest deleted          the index, or a head noted elsewhere: ``truncated``
everything written anew     only a head noted elsewhere: ``replaced``
a row of the index          judged once more: ``index``
=========================== ==================================================================

The hashes hold no secret: whoever can write the files can compute them anew. That is what
heads noted elsewhere are for.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dicom_secure_node.audit.collecting import chain, files, index, judge
from dicom_secure_node.audit.collecting.files import NAME, RawLine, Spot
from dicom_secure_node.audit.collecting.index import Index
from dicom_secure_node.audit.collecting.records import Finding, Head
from dicom_secure_node.audit.collecting.repeats import Repeats
from dicom_secure_node.errors import InvalidInput

_BATCH = 256
_BEYOND = 2**62  # above every number


def verify(
    folder: Path,
    expected: Iterable[Head] = (),
    asked: Index | None = None,
    repeats: Repeats | None = None,
) -> Iterator[Finding]:
    """Yield what is wrong with the log in `folder`, in the order it is found.

    Parameters
    ----------
    expected : iterable of Head
        Noted elsewhere, at any time.
    asked : Index, optional
        Compared with the log as well.
    repeats : Repeats, optional
        Is shown every message, in order.
    """
    walk = _Walk(folder)
    for head in expected:
        walk.expected.setdefault(head.sequence, set()).add(head.chain)
    # Taken before the log is read: the log may grow meanwhile, and the index with it.
    known = asked.head() if asked is not None else None
    lines = walk.lines()
    compared = None if asked is None else _Rows(asked)
    while batch := list(itertools.islice(lines, _BATCH)):
        yield from walk.found()
        if repeats is not None:
            _show(batch, repeats)
        if compared is not None:
            yield from compared.differences(batch)
    yield from walk.found()
    yield from walk.end(known)
    if asked is not None:
        newest = index.newest(asked, _BEYOND, 1)
        if newest and newest[0][0] > asked.head().sequence:
            yield _of_index(newest[0][0], "has it, the log does not")


def _show(batch: Iterable[tuple[chain.Line, Spot]], repeats: Repeats) -> None:
    for line, _ in batch:
        with contextlib.suppress(InvalidInput):  # one of the log's own notes, or damaged
            repeats.see(line.arrival().raw)


@dataclass
class _Walk:
    """The state of one walk over the log."""

    folder: Path
    expected: dict[int, set[str]] = field(default_factory=dict)  # number -> hashes noted
    before: str | None = chain.GENESIS  # hash of the line before, None where it is not known
    start: int = 1  # number the oldest file begins with
    wanted: int = 1  # the next number
    first: chain.Line | None = None  # the line with the number `start`
    gaps: dict[int, int] = field(default_factory=dict)  # missing, so far: first -> last
    deleted: dict[int, str] = field(default_factory=dict)  # last number deleted -> its hash
    _found: list[Finding] = field(default_factory=list)

    def found(self) -> list[Finding]:
        """Return what was found since the last call."""
        found, self._found = self._found, []
        return found

    def _note(self, kind: str, sequence: int, text: str, last: int | None = None) -> None:
        self._found.append(Finding(kind, sequence, sequence if last is None else last, text))

    def lines(self) -> Iterator[tuple[chain.Line, Spot]]:
        """Check the lines one after the other, and yield those that are lines."""
        firsts = files.segments(self.folder)
        if firsts and firsts[0] != 1:  # `end` sees whether the oldest were to be deleted
            self.start = self.wanted = firsts[0]
            self.before = None
        for segment in firsts:
            for number, raw in enumerate(files.lines_of(self.folder, segment), 1):
                where = f"{files.path_of(self.folder, segment).name}:{number}"
                if not raw.whole:
                    self._unfinished(where)
                    continue
                line = self._parsed(raw, where)
                if line is not None:
                    self._check(line, where)
                    yield line, raw.spot

    def _unfinished(self, where: str) -> None:
        if not _in_use(self.folder):  # else it is being written
            self._note(
                "unfinished", self.wanted, f"{where}: the line has no end: a crash, or a cut"
            )

    def _parsed(self, raw: RawLine, where: str) -> chain.Line | None:
        try:
            return chain.parse(raw.octets)
        except InvalidInput as exc:
            self._note("damaged", self.wanted, f"{where}: {exc.found}")
            self.wanted, self.before = self.wanted + 1, None
            return None

    def _check(self, line: chain.Line, where: str) -> None:
        sequence = line.sequence
        if sequence == self.start and self.first is None:
            self.first = line
        if sequence < self.wanted:
            self._note("moved", sequence, f"{where}: record {sequence} after {self.wanted - 1}")
            self._fill(sequence)
            return
        if sequence > self.wanted:
            self.gaps[self.wanted] = sequence - 1
            self.before = None
        if self.before is not None and chain.link(self.before, line.head) != line.chain:
            self._note(
                "edited", sequence, f"{where}: record {sequence} does not have the hash it says"
            )
        self.wanted, self.before = sequence + 1, line.chain
        for noted in sorted(self.expected.pop(sequence, ())):
            if noted != line.chain:
                text = f"{where}: record {sequence} is not the one of head {sequence}:{noted}"
                self._note("replaced", sequence, text)
        self._own_note(line, where)

    def _own_note(self, line: chain.Line, where: str) -> None:
        facts = line.facts
        if line.note == "deleted":
            first, last = _number(facts.get("first")), _number(facts.get("last"))
            self.deleted[last] = str(facts.get("head", ""))
            text = f"{where}: at {facts.get('at')} {_span(first, last)} were deleted as too old"
            self._note("deleted", first, text, last)
        elif line.note == "lost":
            first, last = _number(facts.get("first")), _number(facts.get("last"))
            text = f"{where}: at {facts.get('at')} the index knew {_span(first, last)} otherwise"
            self._note("lost", line.sequence, text)

    def _fill(self, sequence: int) -> None:
        """A number that seemed to be missing is there, elsewhere."""
        for first, last in self.gaps.items():
            if first <= sequence <= last:
                del self.gaps[first]
                if first < sequence:
                    self.gaps[first] = sequence - 1
                if sequence < last:
                    self.gaps[sequence + 1] = last
                return

    def end(self, known: Head | None) -> Iterator[Finding]:
        """Yield what shows only at the end."""
        for first, last in sorted(self.gaps.items()):
            yield Finding("missing", first, last, f"{_span(first, last)} missing")
        yield from self._beginning()
        last = self.wanted - 1
        for sequence, hashes in sorted(self.expected.items()):
            for noted in sorted(hashes):
                head = Head(sequence, noted)
                if sequence > last:
                    text = f"the log ends with record {last}, head {head} was noted"
                    yield Finding("truncated", last + 1, sequence, text)
                elif self.deleted.get(sequence, noted) != noted:
                    text = f"record {sequence} was not the one of head {head} when it was deleted"
                    yield Finding("replaced", sequence, sequence, text)
        if known is not None and known.sequence > last:
            text = f"the log ends with record {last}, the index knows {known.sequence}"
            yield Finding("truncated", last + 1, known.sequence, text)

    def _beginning(self) -> Iterator[Finding]:
        """Is the first record left the one that follows a recorded deletion?"""
        last = self.start - 1
        if not last:
            return
        head = self.deleted.get(last)
        if head is None:
            text = f"{_span(1, last)} missing, and no deletion up to {last} is recorded"
            yield Finding("missing", 1, last, text)
        elif self.first is not None and chain.link(head, self.first.head) != self.first.chain:
            text = f"record {last + 1} does not follow the one that was deleted before it"
            yield Finding("edited", last + 1, last + 1, text)


class _Rows:
    """Compares the index with the log, batch by batch."""

    def __init__(self, asked: Index) -> None:
        self._asked = asked
        # Verdicts of another edition are not comparable; hashes are.
        self._same_edition = asked.judged_by() == judge.EDITION

    def differences(self, batch: list[tuple[chain.Line, Spot]]) -> Iterator[Finding]:
        """Yield where rows and lines differ."""
        numbers = [line.sequence for line, _ in batch]
        known = self._asked.head().sequence
        rows = index.rows_between(self._asked, min(numbers), max(numbers))
        terms = index.terms_between(self._asked, min(numbers), max(numbers))
        for line, spot in batch:
            row = rows.get(line.sequence)
            if line.note:
                if row is not None:
                    yield _of_index(line.sequence, "has it as a message, it is a note")
            elif row is not None:
                yield from self._differences(line, spot, row, terms.get(line.sequence, set()))
            elif line.sequence <= known:
                yield _of_index(line.sequence, "does not have it")

    def _differences(
        self, line: chain.Line, spot: Spot, row: index.Row, terms: set[tuple[str, str]]
    ) -> Iterator[Finding]:
        if row.chain != line.chain:
            yield _of_index(line.sequence, "has another hash: one of the two was changed")
            return
        if not self._same_edition:
            return
        try:
            wanted, wanted_terms = index.row_of(line, spot)
        except InvalidInput:
            yield _of_index(line.sequence, "has it, and it cannot be read")
            return
        if row != wanted:
            yield _of_index(line.sequence, "says something else about it")
        elif terms != {(kind, value) for kind, value, _ in wanted_terms}:
            yield _of_index(line.sequence, "has other terms for it")


def _of_index(sequence: int, text: str) -> Finding:
    return Finding("index", sequence, sequence, f"record {sequence}: the index {text}")


def _span(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def _number(value: object) -> int:
    return value if type(value) is int else 0


def _in_use(folder: Path) -> bool:
    """Tell whether a collector has the log open."""
    try:
        descriptor = os.open(folder / f"{NAME}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
