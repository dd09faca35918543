"""Delivery of one audit store to one repository: a thread, a cursor, and what is uncertain.

Syslog has no receipt, so delivery is at least once: when a connection ends, the messages that
may not have arrived (`Repository.window`) are sent again on the next one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from dicom_secure_node.audit.messages import (
    AuditSource,
    Participant,
    security_alert,
)
from dicom_secure_node.audit.stored import Stored
from dicom_secure_node.audit.syslog import NILVALUE, Header, identifier, opening, syslog_message
from dicom_secure_node.audit.text import timestamp
from dicom_secure_node.audit.transport import Closed, Link, Repository, Truncated
from dicom_secure_node.durable.journal import Journal
from dicom_secure_node.durable.reader import Reader
from dicom_secure_node.durable.segments import Entry
from dicom_secure_node.errors import ServiceUnavailable
from dicom_secure_node.spec.audit import AUDIT_RECORDING_STOPPED

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0  # how often an idle connection is looked at
_CURSOR_SECONDS = 1.0  # how often a cursor is stored while messages flow
_CAREFUL = 8  # messages sent one by one after a break
_CAREFUL_SECONDS = 0.02  # between them
_STEADY_SECONDS = 5.0  # a connection this old has worked: back-off starts anew after it


@dataclass(frozen=True)
class Spool:
    """What the senders of one trail share.

    Attributes
    ----------
    name : str
        Of the store, random and unique.
    limit : int
        Messages that may wait for a repository.
    drop_oldest : bool
        Whether a repository is not sent the oldest when more wait.
    """

    journal: Journal
    name: str
    source: AuditSource
    header: Header
    clock: Callable[[], datetime]
    limit: int
    drop_oldest: bool


@dataclass(frozen=True)
class RepositoryStatus:
    """How delivery to one repository stands.

    Attributes
    ----------
    waiting : int
        Stored messages not sent yet.
    sent : int
        Messages sent since start, repeats included.
    dropped, oversized : int
        Given up by ``drop-oldest``; too long for a datagram.
    breaks : int
        Connections that ended neither in good order nor after a while of silence.
    repeated : int
        Messages gone back over at the end of a connection, to be sent again.
    unproven : int
        Messages sent on connections that broke, before what was sent again: there is no proof
        that the repository has them, and good reason to think so (`Repository.window`).
    last_error : str
        Empty when all has been well since the last connection was made.
    """

    name: str
    connected: bool = False
    waiting: int = 0
    sent: int = 0
    dropped: int = 0
    oversized: int = 0
    breaks: int = 0
    repeated: int = 0
    unproven: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch on its way: its first number, when it was sent, octets sent up to its end."""

    first: int
    when: float  # monotonic
    octets: int


class Sender:
    """One repository's thread; only it moves `_place`.

    A repository that is new to the store gets what is emitted from now on.
    """

    def __init__(self, spool: Spool, repository: Repository) -> None:
        self.name = repository.name
        self._spool = spool
        self._journal = spool.journal
        self._repository = repository
        self._fields = replace(spool.header, message_id=repository.message_id).fields()
        self._stopping = threading.Event()
        self._until = float("inf")  # monotonic: when to give up sending once stopping
        self._thread = threading.Thread(
            target=self._run, name=f"audit-{repository.name}", daemon=True
        )
        newest = self._journal.next_sequence
        cursor = self._journal.cursor(repository.name)
        self._place = Reader(self._journal, newest if cursor is None else min(cursor, newest))
        self._recent: deque[_Batch] = deque()
        self._octets = 0  # sent on this connection
        self._acknowledged = self._place.next_sequence  # the other TCP has all before it
        self._stored = self._place.next_sequence
        self._stored_at = time.monotonic()
        if cursor is None:
            self._journal.store_cursor(self.name, self._stored)
        self._link: Link | None = None
        self._connected = self._closed = False
        self._careful = 0  # messages still to be sent one by one
        self._first = 0  # of this connection
        self._sent_before = 0  # all before it were sent on earlier connections
        self._sent = self._dropped = self._oversized = 0
        self._breaks = self._repeated = self._unproven = 0
        self._last_error = ""

    # --- Seen from other threads ---

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ask_to_stop(self, until: float) -> None:
        """Tell the thread to end once all is sent, or at `until` (monotonic seconds)."""
        self._until = until
        self._stopping.set()

    def stopped(self, until: float) -> bool:
        """Wait for the thread until `until` and a little; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, until - time.monotonic()) + 0.5)
        return not self._thread.is_alive()

    @property
    def backlog(self) -> int:
        """Return how many stored messages the repository has not been sent."""
        return max(0, self._journal.next_sequence - self._place.next_sequence)

    @property
    def oldest_waiting(self) -> int | None:
        """Return the number of the oldest message that is still to be sent; None without one."""
        newest, oldest = self._journal.next_sequence, self._place.next_sequence
        if self._spool.drop_oldest:
            oldest = max(oldest, newest - self._spool.limit)
        return oldest if oldest < newest else None

    @property
    def needed(self) -> int:
        """Return the oldest number that may still have to be sent."""
        if self._spool.drop_oldest:
            return max(self._stored, self._journal.next_sequence - self._spool.limit)
        return self._stored

    def status(self) -> RepositoryStatus:
        """Return how delivery stands."""
        waiting, dropped = self.backlog, self._dropped
        if self._spool.drop_oldest and waiting > self._spool.limit:
            dropped += waiting - self._spool.limit
            waiting = self._spool.limit
        return RepositoryStatus(
            self.name,
            self._connected,
            waiting,
            self._sent,
            dropped,
            self._oversized,
            self._breaks,
            self._repeated,
            self._unproven,
            self._last_error,
        )

    # --- The thread ---

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            opened, place = time.monotonic(), self._place.next_sequence
            try:
                self._link = self._repository.open()
                self._connected, self._last_error = True, ""
                opened = time.monotonic()
                logger.info("audit repository %s: connected", self.name)
                self._deliver(self._link)
            except Closed as exc:
                in_order = not isinstance(exc, Truncated) or self._quiet()
                self._broken(exc.reason, logging.INFO, in_order=in_order)
                self._closed = True
            except ServiceUnavailable as exc:
                self._broken(exc.reason, logging.DEBUG if failures else logging.WARNING)
            except Exception:
                # A bug of ours must not end delivery for good.
                logger.exception("audit repository %s: delivery failed", self.name)
                self._broken("internal error, see the log", logging.ERROR)
            steady = self._connected and time.monotonic() - opened > _STEADY_SECONDS
            worked = steady or (self._closed and self._place.next_sequence > place)
            failures = 1 if worked else failures + 1
            self._hang_up()
            self._wait_before_connecting(failures)
        self._place.close()

    def _wait_before_connecting(self, failures: int) -> None:
        steps = self._repository.back_off
        self._stopping.wait(steps[min(failures, len(steps)) - 1])
        # A repository may close what is idle (RFC 5425): come back when there is something to say.
        while self._closed and not self._stopping.is_set():
            if self._journal.wait_for(self._place.next_sequence, _IDLE_SECONDS):
                return

    def _deliver(self, link: Link) -> None:
        """Send what is there and what comes, until asked to stop."""
        self._octets, self._acknowledged = 0, self._place.next_sequence
        self._first = self._place.next_sequence
        while not (self._stopping.is_set() and time.monotonic() >= self._until):
            self._note_acknowledged(link)
            self._skip_what_is_too_much(link)
            entries = self._place.read(1 if self._careful else link.batch)
            if entries:
                self._send(link, entries)
                self._go_gently(link)
                self._store_cursor()
            elif self._stopping.is_set():
                return
            else:
                link.check()
                self._store_cursor()
                self._journal.wait_for(self._place.next_sequence, _IDLE_SECONDS)

    def _send(self, link: Link, entries: list[Entry]) -> None:
        now = timestamp(self._spool.clock())
        messages = self._messages(entries, now)
        # Noted before sending: a write that fails may have delivered a part.
        self._octets += sum(map(len, messages))
        self._recent.append(_Batch(entries[0].sequence, time.monotonic(), self._octets))
        lost = link.send(messages)
        if lost:
            self._oversized += lost
            self._last_error = f"{lost} messages too long for a datagram"
            logger.error("audit repository %s: %s", self.name, self._last_error)
        self._sent += len(messages) - lost
        if link.pause:
            self._stopping.wait(link.pause)

    def _go_gently(self, link: Link) -> None:
        """After a break, look whether the repository closes upon each of the first messages."""
        if self._careful:
            self._careful -= 1
            self._stopping.wait(_CAREFUL_SECONDS)
            self._note_acknowledged(link)
            link.check()

    def _messages(self, entries: list[Entry], now: str) -> list[bytes]:
        """Return the SYSLOG-MSGs of stored records, but for those that are damaged."""
        openings: dict[int, bytes] = {}  # by PRI: what begins every message of this batch
        kind, store, messages = self._repository.identifier, self._spool.name, []
        for entry in entries:
            try:
                stored = Stored.of(entry)
                begin = openings.get(stored.priority)
                if begin is None:
                    begin = openings[stored.priority] = opening(stored.priority, now, self._fields)
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                logger.error("audit store: record %d is damaged: %r", entry.sequence, exc)
            else:
                data = identifier(kind, entry.sequence, store)
                messages.append(syslog_message(begin, data, stored.xml))
        return messages

    def _skip_what_is_too_much(self, link: Link) -> None:
        """``drop-oldest``: tell the repository how many messages it will not get."""
        spool = self._spool
        excess = self.backlog - spool.limit
        if not spool.drop_oldest or excess <= 0:
            return
        text = f"{excess} audit messages are not delivered here: more than {spool.limit} waited"
        logger.error("audit repository %s: %s", self.name, text)
        now = spool.clock()
        reporter = Participant(str(os.getpid()), requestor=True, name=spool.header.application)
        alert = security_alert(AUDIT_RECORDING_STOPPED, text, reporter)
        xml = alert.to_xml(spool.source, now)
        begin = opening(alert.priority, timestamp(now), self._fields)
        link.send([syslog_message(begin, NILVALUE, xml.encode())])
        self._dropped += excess
        self._recent.clear()
        self._place.seek(self._place.next_sequence + excess)

    # --- After a break ---

    def _broken(self, reason: str, level: int, *, in_order: bool = False) -> None:
        """Note the reason and go back to the first message that may not have arrived."""
        logger.log(level, "audit repository %s: %s", self.name, reason)
        self._last_error = reason
        self._closed = False
        if self._connected:
            place = self._uncertain(in_order=in_order)
            self._count_break(place, in_order=in_order)
            self._careful = _CAREFUL
            self._sent_before = max(self._sent_before, self._place.next_sequence)
            self._recent.clear()
            self._place.seek(place)

    def _quiet(self) -> bool:
        """Return whether nothing was sent for so long that what was read is written, too.

        There are repositories that end idle connections without close_notify: they are not to
        get the same messages each time.
        """
        since = time.monotonic() - self._repository.resend_seconds
        return not self._recent or self._recent[-1].when < since

    def _count_break(self, place: int, *, in_order: bool) -> None:
        """Count what the end of a connection leaves uncertain, and say it."""
        repeated = self._place.next_sequence - place
        self._repeated += repeated
        unproven = 0 if in_order else max(0, place - self._first)
        self._breaks += not in_order
        self._unproven += unproven
        text = "audit repository %s: %d messages are sent again, %d before them are not"
        logger.info(text, self.name, repeated, unproven)

    def _uncertain(self, *, in_order: bool = False) -> int:
        """Return the first number that may not have arrived (`Repository.window`)."""
        place = self._place.next_sequence
        if not self._recent:
            return place
        since = time.monotonic() - self._repository.resend_seconds
        young = next((batch.first for batch in self._recent if batch.when >= since), place)
        if in_order and self._acknowledged >= place:
            # A repository that closes after every few messages must not get the same ones for
            # ever: the first of a connection it closed in order has arrived, the second time.
            again = self._first < min(self._sent_before, place)
            return max(young, self._first + 1) if again else young
        # TCP's word is not the repository's: what it acknowledged last may not have been read.
        unread = self._acknowledged - self._repository.window
        return min(young, max(unread, self._recent[0].first))

    def _note_acknowledged(self, link: Link) -> None:
        """Find the first batch the other side's TCP may not have in full.

        On the wire are at least as many octets as we count, TLS adds some: a batch is
        acknowledged for certain when what we sent after it outweighs what is outstanding.
        """
        outstanding = link.unacknowledged()
        self._acknowledged = self._place.next_sequence
        for batch in reversed(self._recent):
            if self._octets - batch.octets >= outstanding:
                return
            self._acknowledged = batch.first

    def _store_cursor(self) -> None:
        """Store the cursor, now and then, before everything that is uncertain."""
        now = time.monotonic()
        if now < self._stored_at + _CURSOR_SECONDS:
            return
        self._stored_at = now
        certain = self._acknowledged - self._repository.window
        since = now - self._repository.resend_seconds
        recent = self._recent
        while len(recent) > 1 and recent[1].first <= certain and recent[1].when < since:
            recent.popleft()
        self._keep_cursor(self._uncertain())

    def _keep_cursor(self, place: int) -> None:
        if place == self._stored:
            return
        try:
            self._journal.store_cursor(self.name, place)
        except ServiceUnavailable as exc:
            logger.error("audit repository %s: cursor not stored: %s", self.name, exc)
        else:
            self._stored = place

    def _hang_up(self) -> None:
        answered = self._link is not None and self._link.close()
        self._link = None
        if self._connected and self._stopping.is_set():
            # After a break `_recent` is empty: the place has gone back already.
            self._keep_cursor(self._place.next_sequence if answered else self._uncertain())
        self._connected = False
