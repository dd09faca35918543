"""`SecureNode.audit`: where every audit message of a node goes in, its application's included."""

from __future__ import annotations

import logging
from typing import Any

from dicom_secure_node.audit.messages import AuditMessage, Participant
from dicom_secure_node.audit.suppress import AuditSuppressions
from dicom_secure_node.audit.trail import AuditTrail
from dicom_secure_node.node import participants
from dicom_secure_node.node.association import SecureAssociation
from dicom_secure_node.node.context import AssociationContext

logger = logging.getLogger(__name__)


class NodeAudit:
    """Reports events, after the suppress rules have been asked.

    The builders are in `dicom_secure_node.audit.messages`; the helpers here give them this node
    and the peer of an association as participants.

    Parameters
    ----------
    trail : AuditTrail
        Keeps and delivers.
    suppressions : AuditSuppressions
    ae_title : str
        Ours.
    """

    def __init__(self, trail: AuditTrail, suppressions: AuditSuppressions, ae_title: str) -> None:
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


def _context(event: Any) -> AssociationContext:
    assoc = event.assoc
    if not isinstance(assoc, SecureAssociation):
        raise LookupError("an association this node did not accept")
    return assoc.host.context(assoc)
