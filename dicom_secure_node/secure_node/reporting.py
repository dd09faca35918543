"""`SecureNode.audit`: where every audit message of a node goes in, its application's included."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from dicom_secure_node.audit.messages import AuditMessage, Participant
from dicom_secure_node.audit.suppress import AuditSuppressions
from dicom_secure_node.node import participants
from dicom_secure_node.node.association import SecureAssociation
from dicom_secure_node.node.context import AssociationContext

logger = logging.getLogger(__name__)


_SUM_UP_SECONDS = 5.0


class Trail(Protocol):
    """What `NodeAudit` needs of `audit.trail.AuditTrail`."""

    @property
    def full(self) -> bool: ...

    def emit(self, message: AuditMessage) -> None: ...


class NodeAudit:
    """Reports events, after the suppress rules have been asked.

    The builders are in `dicom_secure_node.audit.messages`; the helpers here give them this node
    and the peer of an association as participants.

    Parameters
    ----------
    trail : Trail
        Keeps and delivers.
    suppressions : AuditSuppressions
    ae_title : str
        Ours.
    """

    def __init__(self, trail: Trail, suppressions: AuditSuppressions, ae_title: str) -> None:
        self.suppressions = suppressions
        self._trail = trail
        self._ae_title = ae_title

    def emit(self, message: AuditMessage) -> bool:
        """Keep a message; it is on the disk when this returns, delivery follows.

        What a builder made is valid. Whoever puts an `AuditMessage` together otherwise has
        `audit.validate` to check it with.

        Returns
        -------
        bool
            False when a suppress rule says that it is not kept.

        Raises
        ------
        ServiceUnavailable
            The disk refused: the event is not recorded. Do not go on with what it was about.
        """
        if self.suppressions.suppresses(message):
            return False
        self._trail.emit(message)
        return True

    @property
    def full(self) -> bool:
        """Return True when the node had better not create further events."""
        return self._trail.full

    def process(self, *, requestor: bool = False) -> Participant:
        """Return this node's process as a participant."""
        return participants.process(self._ae_title, requestor=requestor)

    def peer(self, event: Any) -> Participant:
        """Return the peer of a pynetdicom `Event`; it is the requestor where no user is known.

        Parameters
        ----------
        event : pynetdicom.events.Event
            As a handler of an intervention event gets it; while the association lasts.

        Raises
        ------
        LookupError
            The association is none of this node's, or over.
        """
        return participants.peer(_context(event))

    def user(self, event: Any) -> tuple[Participant, ...]:
        """Return the user of a pynetdicom `Event`, the requestor then; empty without one."""
        return participants.user(_context(event))

    # -- for the node ----------------------------------------------------------------------

    def remark(self) -> str:
        """Return what the trail itself says of its suppress rules, at start and stop."""
        rules = self.suppressions.describe()
        if not rules:
            return ""
        count = sum(self.suppressions.counts)
        return f"{count} messages suppressed so far by {len(rules)} rules: {' | '.join(rules)}"

    def log_rules(self) -> None:
        """Log every rule, at the start."""
        for line in self.suppressions.describe():
            logger.warning("not recorded: %s", line)

    def log_counts(self) -> None:
        """Log how often each rule has suppressed, at the stop."""
        for line, count in zip(self.suppressions.describe(), self.suppressions.counts, strict=True):
            logger.info("%d messages not recorded: %s", count, line)


class SummingUp:
    """A thread that has alerts summed up now and then (`AuditPlugin.sum_up`).

    Parameters
    ----------
    sum_up : callable
    """

    def __init__(self, sum_up: Callable[[], None]) -> None:
        self._sum_up = sum_up
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node housekeeping", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_SUM_UP_SECONDS):
            try:
                self._sum_up()
            except Exception:
                logger.exception("alerts could not be summed up")


def _context(event: Any) -> AssociationContext:
    assoc = event.assoc
    if not isinstance(assoc, SecureAssociation):
        raise LookupError("an association this node did not accept")
    return assoc.host.context(assoc)
