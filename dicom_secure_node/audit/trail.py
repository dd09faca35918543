"""The node's own audit store and its delivery to audit record repositories.

`AuditTrail.emit` returns when the message is on the disk. One journal is both the store and the
spool; each repository has a thread and a cursor of its own in it.

Rules, in order:

1. Order is kept; a message is delivered at least once. It can come twice after a break, see
   `Repository.window`, and after a crash of the node; `Repository.identifier` tells.
2. A repository that is away costs nobody else anything; attempts follow its back-off.
3. When `spool_limit` messages wait for a repository, ``refuse`` makes `full` true and the node
   takes no further associations; ``drop-oldest`` gives up delivering the oldest to it. The store
   keeps them; the repository gets, in their place, one Security Alert (110133 Audit Recording
   Stopped) that counts them. That alert is not stored, so that it cannot cause another.
4. Trouble with delivery is logged and shown by `status`; it is never an audit message.
5. A segment of the store is deleted when every repository has it (or gave it up) and it is older
   than `keep_days`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dicom_secure_node.audit.delivery import RepositoryStatus, Sender, Spool
from dicom_secure_node.audit.messages import AuditMessage, AuditSource
from dicom_secure_node.audit.stored import record
from dicom_secure_node.audit.syslog import Header
from dicom_secure_node.audit.text import timestamp
from dicom_secure_node.audit.transport import Repository
from dicom_secure_node.durable.files import kept_name
from dicom_secure_node.durable.journal import Journal
from dicom_secure_node.durable.reader import Reader
from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable

logger = logging.getLogger(__name__)

REFUSE = "refuse"
DROP_OLDEST = "drop-oldest"

_SECONDS_A_DAY = 86_400
_HOUSEKEEPING = 4096  # messages between two looks for old segments


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class AuditTrail:
    """Keeps audit messages and delivers them.

    Parameters
    ----------
    folder : Path
        Of the store; locked against a second process.
    source : AuditSource
        Who reports, in every message.
    spool_limit : int
        Messages that may wait for a repository.
    when_full : str
        ``refuse`` or ``drop-oldest``, rule 3.
    keep_days : float
        Days the store keeps what has been delivered.
    clock : callable
        Returns the time, aware.
    hostname, application : str
        For the syslog header; hostname defaults to the machine's.

    Raises
    ------
    ConfigurationError
        A setting is wrong.
    ServiceUnavailable
        The folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        source: AuditSource,
        repositories: Sequence[Repository] = (),
        *,
        spool_limit: int = 100_000,
        when_full: str = REFUSE,
        keep_days: float = 30,
        clock: Callable[[], datetime] = utc_now,
        hostname: str | None = None,
        application: str = "dicom-secure-node",
    ) -> None:
        if when_full not in (REFUSE, DROP_OLDEST):
            raise ConfigurationError(
                f"when_full {when_full!r}, wanted {REFUSE} or {DROP_OLDEST}", "audit"
            )
        if spool_limit < 1:
            raise ConfigurationError(f"spool_limit {spool_limit}, wanted at least 1", "audit")
        if len({one.name for one in repositories}) != len(repositories):
            raise ConfigurationError("two repositories of one name", "audit.repository")
        self._source = source
        self._clock = clock
        self._keep_seconds = keep_days * _SECONDS_A_DAY
        self._oldest: dict[str, tuple[int, datetime]] = {}  # number and time of what waits
        self.journal = Journal(folder, "audit", service="audit store")
        header = Header(hostname or socket.gethostname(), application, str(os.getpid()))
        drop = when_full == DROP_OLDEST
        try:
            name = kept_name(folder / "audit.id")
            self._spool = Spool(self.journal, name, source, header, clock, spool_limit, drop)
            self._senders = tuple(Sender(self._spool, one) for one in repositories)
        except OSError as exc:
            self.journal.close()
            raise ServiceUnavailable("audit store", f"{folder}: {exc.strerror or exc}") from exc
        except BaseException:
            self.journal.close()
            raise

    def emit(self, message: AuditMessage) -> None:
        """Keep a message; it is on the disk when this returns, delivery follows.

        Raises
        ------
        ServiceUnavailable
            The disk refused: the event is not recorded.
        """
        now = self._clock()
        xml = message.to_xml(self._source, now)
        kept = record(timestamp(now), message.priority, xml)
        if self.journal.append(kept) % _HOUSEKEEPING == 0:
            self.discard_old()

    @property
    def full(self) -> bool:
        """Return True when the node had better not create further events (rule 3)."""
        if self._spool.drop_oldest:
            return False
        return any(sender.backlog >= self._spool.limit for sender in self._senders)

    def status(self) -> tuple[RepositoryStatus, ...]:
        """Return how delivery stands, one entry a repository."""
        return tuple(sender.status() for sender in self._senders)

    def waiting_since(self) -> dict[str, datetime]:
        """Return when the oldest message that waits was kept, for each repository where one does.

        It is looked up in the store, once for each such message: not for the hot path.
        """
        found: dict[str, datetime] = {}
        for sender in self._senders:
            oldest = sender.oldest_waiting
            if oldest is None:
                continue
            number, kept = self._oldest.get(sender.name, (-1, None))
            if kept is None or number != oldest:
                kept = self._kept_at(oldest)
            if kept is not None:
                found[sender.name] = kept
                self._oldest[sender.name] = (oldest, kept)
        return found

    def _kept_at(self, sequence: int) -> datetime | None:
        """Return when a message was kept; None where it is gone or damaged."""
        try:
            with Reader(self.journal, sequence) as reader:
                (entry,) = reader.read(1)
            return datetime.fromisoformat(entry.record()["time"])
        except (ServiceUnavailable, ValueError, KeyError, TypeError):
            return None

    def start(self) -> None:
        """Start delivery."""
        self.discard_old()
        for sender in self._senders:
            sender.start()

    def stop(self, deadline: float = 5.0) -> None:
        """Stop delivery and close the store.

        What waits for a repository that is connected is still sent, for at most `deadline`
        seconds; the rest stays in the store and is sent after the next start.
        """
        until = time.monotonic() + deadline
        for sender in self._senders:
            sender.ask_to_stop(until)
        self.journal.wake()
        for sender in self._senders:
            if not sender.stopped(until):
                logger.warning("audit repository %s: did not stop in time", sender.name)
        self.journal.close()

    def discard_old(self) -> None:
        """Delete what is delivered and older than `keep_days` (rule 5)."""
        oldest = self._clock().timestamp() - self._keep_seconds
        needed = min((one.needed for one in self._senders), default=self.journal.next_sequence)
        young = (part.first for part in self.journal.segments() if part.modified >= oldest)
        try:
            self.journal.discard_before(min(needed, next(young, needed)))
        except ServiceUnavailable as exc:
            logger.error("audit store: old messages cannot be deleted: %s", exc.reason)
