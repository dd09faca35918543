"""Judge what the log holds and put it into the index: a process of its own.

A process, because judging takes far more time than keeping, and because hostile XML is better
parsed where nothing is received. What it does, it does again after a crash: where the index ends
is stored with the rows.

Rules, in order:

1. Only what is durable in the log is indexed: the collector says how far that is.
2. When the index knows what the log does not have, or has otherwise, records were lost or changed:
   it tells the collector, which notes it in the log, and goes back to where both agree.
3. A note of a deletion removes the rows. An index of another edition is made again.
4. An index that cannot be reached is tried again; nothing else waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection, wait
from pathlib import Path

from dicom_secure_node.audit.collecting import chain, files, index, judge
from dicom_secure_node.audit.collecting.files import Follower, Spot
from dicom_secure_node.audit.collecting.index import Index
from dicom_secure_node.audit.collecting.records import Head, Lost
from dicom_secure_node.audit.collecting.store import open_index
from dicom_secure_node.errors import InvalidInput, SecureNodeError, ServiceUnavailable

logger = logging.getLogger(__name__)

_BATCH = 256
_RETRY_SECONDS = 5.0


def catch_up(folder: Path, asked: Index, until: Head) -> Lost | None:
    """Index everything up to `until`; for tests and tools.

    Returns
    -------
    Lost or None
        None where index and log agreed.
    """
    lost = reconcile(folder, asked, until)
    follower = Follower(folder, asked.head().sequence + 1)
    while advance(asked, follower, until.sequence):
        pass
    return lost


def reconcile(folder: Path, asked: Index, end: Head) -> Lost | None:
    """Bring the index back to where it agrees with the log, which ends at `end`.

    Returns
    -------
    Lost or None
        None where they agreed.
    """
    if asked.judged_by() != judge.EDITION:
        logger.info("the index has verdicts of another edition: it is made again")
        asked.clear()
    known = asked.head()
    if not known.sequence or known == end or _agrees(folder, known, end):
        return None
    good = Head(0, "")
    before = min(known.sequence, end.sequence) + 1
    while not good.sequence and (found := index.newest(asked, before, _BATCH)):
        for sequence, link in found:
            if _agrees(folder, Head(sequence, link), end):
                good = Head(sequence, link)
                break
        before = found[-1][0]
    logger.error(
        "the index knows record %d, the log has another one or none: the index goes back to %d",
        known.sequence,
        good.sequence,
    )
    asked.forget(good.sequence + 1, 2**62, good)
    return Lost(good, known)


def _agrees(folder: Path, known: Head, end: Head) -> bool:
    if known.sequence > end.sequence:
        return False
    line = files.line_numbered(folder, known.sequence)
    if line is None:  # deleted as too old, or not there: only verify can tell
        firsts = files.segments(folder)
        return bool(firsts) and known.sequence < firsts[0]
    return line.chain == known.chain


Place = tuple[chain.Line, Spot]
Judged = tuple[index.Row, list[index.Term]] | None


def advance(
    asked: Index,
    follower: Follower,
    until: int,
    judge_all: Callable[[list[Place]], list[Judged]] | None = None,
) -> bool:
    """Index the next records up to `until`; return False when there are none."""
    batch = follower.read(until, _BATCH)
    if not batch:
        return False
    rows, terms, last = [], [], 0
    judged = judge_all(batch) if judge_all is not None else list(map(_judged, batch))
    for (line, _), found in zip(batch, judged, strict=True):
        last = max(last, _deleted(line))
        if found is not None:
            rows.append(found[0])
            terms += found[1]
        elif not line.note:
            logger.error("record %d of the log cannot be read", line.sequence)
    end = batch[-1][0]
    asked.add(rows, terms, Head(end.sequence, end.chain))
    if last:
        asked.forget(0, last)
    return True


def _judged(place: Place) -> Judged:
    """Return row and terms of a message, None where the line holds none."""
    line, spot = place
    if line.note:
        return None
    try:
        return index.row_of(line, spot)
    except InvalidInput:
        return None


def _deleted(line: chain.Line) -> int:
    """Return the last number a note says was deleted; 0 for everything else."""
    last = line.facts.get("last") if line.note == "deleted" else 0
    return last if type(last) is int else 0


# --- The process ---


def main(folder: Path, url: str, identity: str, judges: int, ends: Connection) -> None:
    """Run until the collector goes away.

    Parameters
    ----------
    judges : int
        With more than one, so many further processes judge.
    ends : Connection
        Gives the durable ends of the log, as `Head`; takes `Lost`, by rule 2.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the collector's to answer
    with contextlib.ExitStack() as stack:
        judge_all = None
        if judges > 1:
            spawn = multiprocessing.get_context("spawn")
            pool = stack.enter_context(
                ProcessPoolExecutor(judges, spawn, initializer=_end_with_parent)
            )
            chunk = max(1, _BATCH // (2 * judges))

            def judge_all(batch: list[Place]) -> list[Judged]:
                return list(pool.map(_judged, batch, chunksize=chunk))

        process = _Process(folder, url, identity, ends, judge_all)
        while process.run():
            pass


def _end_with_parent() -> None:
    """Do not outlive the process that gives out work, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Process:
    def __init__(
        self,
        folder: Path,
        url: str,
        identity: str,
        ends: Connection,
        judge_all: Callable[[list[Place]], list[Judged]] | None,
    ) -> None:
        self._folder = folder
        self._url = url
        self._identity = identity
        self._ends = ends
        self._judge_all = judge_all
        self._end = Head(0, "")
        self._told = ""

    def run(self) -> bool:
        """Index until something breaks; return False when the collector has gone."""
        asked: Index | None = None
        try:
            if not self._end.sequence and not self._wait(None):
                return False
            asked = open_index(self._folder, self._url, writing=True)
            if not asked.claim(self._identity):
                raise ServiceUnavailable("audit repository index", "it belongs to another log")
            return self._index(asked)
        except (SecureNodeError, OSError) as exc:
            return self._pause(str(exc))
        finally:
            if asked is not None:
                asked.close()

    def _index(self, asked: Index) -> bool:
        lost = reconcile(self._folder, asked, self._end)
        if lost is not None:
            self._ends.send(lost)
        follower = Follower(self._folder, asked.head().sequence + 1)
        while True:
            more = advance(asked, follower, self._end.sequence, self._judge_all)
            if not more and not self._wait(None):
                return False
            self._told = ""
            if self._ends.poll() and not self._wait(0):
                return False

    def _wait(self, seconds: float | None) -> bool:
        """Take the newest end; False when there will be no more."""
        try:
            while self._ends.poll(seconds):
                end = self._ends.recv()
                if end is None:
                    return False
                self._end, seconds = end, 0
        except (EOFError, OSError):
            return False
        return True

    def _pause(self, reason: str) -> bool:
        if reason != self._told:
            self._told = reason
            logger.error("cannot index, trying again: %s", reason)
        deadline = time.monotonic() + _RETRY_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            if not self._wait(left):
                return False
        return True
