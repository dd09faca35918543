"""From the inbox to the log: one thread writes, in groups.

A message is on the disk at most `Collect.group_seconds` and two writes after it was received:
it waits for the write under way, then its own group gathers, then that is written.

When the disk takes nothing, the batch at hand is kept and tried again; meanwhile
nobody adds to the inbox: senders over TLS are not read from and keep their queues, datagrams
are lost and counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from dicom_secure_node.audit.collecting.inbox import Inbox
from dicom_secure_node.audit.collecting.records import Arrival, Head
from dicom_secure_node.audit.collecting.reporting import Reporter
from dicom_secure_node.audit.collecting.store import RecordStore
from dicom_secure_node.errors import ServiceUnavailable

logger = logging.getLogger(__name__)

_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0)  # the last one repeats


class Writer:
    """The thread that writes.

    Parameters
    ----------
    gather : float
        Seconds a group gathers.
    written : callable
        Told the new head after each group.
    """

    def __init__(
        self,
        store: RecordStore,
        inbox: Inbox,
        reporter: Reporter,
        gather: float,
        written: Callable[[Head], None],
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._reporter = reporter
        self._gather = gather
        self._written = written
        self._giving_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-writer")

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Write what is in the inbox and end; what the disk does not take by then is given up."""
        self._inbox.close()
        if self._thread.ident is not None:
            self._thread.join(seconds)
            self._giving_up.set()
            self._thread.join()

    def _run(self) -> None:
        while batch := self._inbox.take(self._gather):
            if not self._keep(batch):
                self._reporter.add("given_up", len(batch))
                logger.error("%d messages were received and could not be written", len(batch))
                self._inbox.give_up()
        self._inbox.give_up()

    def _keep(self, batch: list[Arrival]) -> bool:
        """Write a batch, however long the disk takes; False when told to give up."""
        attempts = 0
        while True:
            try:
                head = self._store.append(batch)
            except ServiceUnavailable as exc:
                if not attempts:
                    self._inbox.hold(True)
                    logger.error("nothing is received until it can be written: %s", exc)
            else:
                self._reporter.add("stored", len(batch))
                self._inbox.settle(len(batch))
                if attempts:
                    self._inbox.hold(False)
                    lost = self._reporter.counts.lost
                    logger.warning("written again; datagrams lost so far: %d", lost)
                self._written(head)
                return True
            seconds = _RETRY_SECONDS[min(attempts, len(_RETRY_SECONDS) - 1)]
            attempts += 1
            if self._giving_up.wait(seconds):
                return False
