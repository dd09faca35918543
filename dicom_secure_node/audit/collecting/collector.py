"""The repository, running: receivers, inbox, writer, index, housekeeping."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

from dicom_secure_node.audit.collecting.inbox import Inbox
from dicom_secure_node.audit.collecting.indexing import Indexing
from dicom_secure_node.audit.collecting.records import Head, Lost
from dicom_secure_node.audit.collecting.reporting import Counts, Reporter
from dicom_secure_node.audit.collecting.settings import Collect
from dicom_secure_node.audit.collecting.store import RecordStore
from dicom_secure_node.audit.collecting.tls_receiver import ServerContext, TLSReceiver
from dicom_secure_node.audit.collecting.udp_receiver import UDPReceiver
from dicom_secure_node.audit.collecting.writing import Writer
from dicom_secure_node.errors import ServiceUnavailable

logger = logging.getLogger(__name__)

_GOODBYE_SECONDS = 3.0
_WRITE_SECONDS = 10.0
_RETENTION_SECONDS = 3600.0
_FLUSH_SECONDS = 60.0


class Collector:
    """An audit record repository.

    Parameters
    ----------
    settings : Collect
    context : callable
        Returns the TLS context for the next connection.

    Raises
    ------
    ServiceUnavailable
        A port is taken, or the folder cannot be used.
    """

    def __init__(self, settings: Collect, context: Callable[[], ServerContext]) -> None:
        self.settings = settings
        self._reporter = Reporter()
        self._inbox = Inbox(settings.buffer)
        self.store = RecordStore(
            settings.folder,
            settings.index,
            writing=True,
            keep_days=settings.keep_days,
            segment_bytes=settings.segment_bytes,
        )
        self._udp: UDPReceiver | None = None
        tls: TLSReceiver | None = None
        try:
            tls = self._tls = TLSReceiver(settings, context, self._inbox, self._reporter)
            if settings.udp_port is not None:
                port = settings.udp_port
                self._udp = UDPReceiver(settings, port, self._inbox, self._reporter)
        except OSError as exc:
            if tls is not None:
                tls.stop(0)
            self.store.close()
            number = settings.port if tls is None else settings.udp_port
            where = f"listener {settings.host}:{number}"
            raise ServiceUnavailable(where, exc.strerror or str(exc)) from exc
        self._indexing = Indexing(self.store, settings.judges, self._lost)
        self._writer = Writer(
            self.store, self._inbox, self._reporter, settings.group_seconds, self._written
        )
        self._stopping = threading.Event()
        self._keeping = threading.Thread(target=self._keep_house, name="audit-housekeeping")
        self._shown = Head(0, "")

    @property
    def port(self) -> int:
        """Return the port for TLS."""
        return self._tls.port

    @property
    def udp_port(self) -> int | None:
        """Return the port for UDP, if there is one."""
        return self._udp.port if self._udp is not None else None

    @property
    def counts(self) -> Counts:
        """Return what was counted since the start."""
        return self._reporter.counts

    def start(self) -> None:
        """Receive, write, index.

        Raises
        ------
        ServiceUnavailable
            The disk takes nothing.
        """
        self._note("start", {"version": version("dicom-secure-node")})
        self._show_head()
        self._writer.start()
        self._indexing.start()
        self._keeping.start()
        self._tls.start()
        if self._udp is not None:
            self._udp.start()

    def stop(self) -> None:
        """Tell the senders, write what was received, and end."""
        self._stopping.set()
        self._tls.stop(_GOODBYE_SECONDS)
        if self._udp is not None:
            self._udp.stop()
        self._writer.stop(_WRITE_SECONDS)
        if self._keeping.ident is not None:
            self._keeping.join()
        try:
            self._note("stop", {})
        except ServiceUnavailable as exc:
            logger.error("the stop could not be noted: %s", exc)
        self._indexing.stop()
        self._show_head()
        self._reporter.flush()
        logger.info("%s", self.counts)
        self.store.close()

    # --- Called by the parts ---

    def _written(self, _: Head) -> None:
        self._indexing.moved()

    def _lost(self, lost: Lost) -> None:
        """The index knows what the log does not have: say so where it cannot be taken back."""
        logger.error(
            "records %d to %d were in this log once and are missing or changed: "
            "run audit verify-log",
            lost.agreed.sequence + 1,
            lost.known.sequence,
        )
        try:
            self.store.log.note_lost(datetime.now(UTC), lost)
        except ServiceUnavailable as exc:
            logger.error("that could not be noted: %s", exc)

    def _note(self, note: str, facts: dict[str, str]) -> None:
        self.store.log.note(note, datetime.now(UTC), facts)
        self._indexing.moved()

    # --- Housekeeping ---

    def _keep_house(self) -> None:
        tasks = (
            (self._reporter.flush, _FLUSH_SECONDS),
            (self._show_head, self.settings.head_seconds),
            (self._discard_old, _RETENTION_SECONDS),
        )
        due = [0.0, time.monotonic() + self.settings.head_seconds, 0.0]
        while True:
            now = time.monotonic()
            for place, (task, seconds) in enumerate(tasks):
                if now >= due[place]:
                    due[place] = now + seconds
                    task()
            if self._stopping.wait(max(0.0, min(due) - time.monotonic())):
                return

    def _discard_old(self) -> None:
        try:
            last = self.store.discard_old()
        except (ServiceUnavailable, OSError) as exc:
            logger.error("old records cannot be deleted: %s", exc)
            return
        if last:
            logger.info("deleted as older than %g days: up to %d", self.settings.keep_days, last)
            self._indexing.moved()

    def _show_head(self) -> None:
        """Log the head: kept elsewhere, it shows later whether the log was cut off or replaced."""
        head = self.store.log.head
        if head != self._shown:
            self._shown = head
            logger.info("head %s", head)
