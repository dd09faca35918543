"""What a node has once, however many processes serve it.

`NodeState` is the thing itself: in the only process of a node, or in the one that supervises the
others. `remote` has its twin for those others, which asks for everything.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from dicom_secure_node import config
from dicom_secure_node.audit.delivery import RepositoryStatus
from dicom_secure_node.audit.limiter import AlertLimiter
from dicom_secure_node.audit.messages import AuditMessage, AuditSource
from dicom_secure_node.audit.suppress import AuditSuppressions
from dicom_secure_node.audit.trail import AuditTrail
from dicom_secure_node.node.plugins.audit import Limiter
from dicom_secure_node.node.slots import Counting, Slots
from dicom_secure_node.secure_node import building
from dicom_secure_node.secure_node.reporting import NodeAudit
from dicom_secure_node.secure_node.shared_identity import IdentityState, SharedIdentity

_ALERT_TEXTS = 32


class KeptTrail(Protocol):
    """What a node needs of `AuditTrail`."""

    @property
    def full(self) -> bool: ...

    def emit(self, message: AuditMessage) -> None: ...

    def status(self) -> tuple[RepositoryStatus, ...]: ...

    def waiting_since(self) -> Mapping[str, datetime]: ...


class Shared(Protocol):
    """What a node has once.

    Attributes
    ----------
    owner : bool
        This process starts, sums up and stops it; False: another one does.
    trail : KeptTrail
    audit : NodeAudit
    limiter : Limiter
    slots : Counting
    identity : SharedIdentity
    """

    owner: bool
    trail: KeptTrail
    audit: NodeAudit
    limiter: Limiter
    slots: Counting
    identity: SharedIdentity

    def start(self) -> None:
        """Begin to deliver audit messages."""

    def close(self) -> None:
        """Deliver what can be delivered, and let everything go."""


class NodeState:
    """The one audit trail, slots and identity state of a node; see `Shared`.

    Parameters
    ----------
    tables : NodeConfig
    slots : Slots, optional
        In place of those for connections of this process.

    Raises
    ------
    ServiceUnavailable
        The audit store cannot be used.
    """

    owner = True

    def __init__(self, tables: config.NodeConfig, slots: Slots | None = None) -> None:
        audit = tables.audit
        self.slots: Counting = building.limits_of(tables.limits).slots() if slots is None else slots
        self.limiter: Limiter = AlertLimiter(texts=_ALERT_TEXTS)
        self.identity: SharedIdentity = IdentityState(
            tables.identity.lockout, tables.identity.replay
        )
        self.trail: KeptTrail = _trail(audit)
        self.audit = NodeAudit(self.trail, AuditSuppressions(audit.suppress), tables.node.ae_title)

    def start(self) -> None:
        """Begin to deliver audit messages, and say what is not recorded."""
        assert isinstance(self.trail, AuditTrail)
        self.trail.start()
        self.audit.log_rules()

    def close(self) -> None:
        """Deliver what can be delivered, and let everything go."""
        assert isinstance(self.trail, AuditTrail)
        self.trail.stop()
        self.identity.close()


def _trail(audit: config.Audit) -> AuditTrail:
    source = AuditSource(audit.source_id or socket.gethostname(), audit.site_id, audit.source_type)
    return AuditTrail(
        audit.path,
        source,
        [building.repository(one) for one in audit.repository],
        spool_limit=audit.spool_limit,
        when_full=audit.when_full,
        keep_days=audit.keep_days or 36_500,
    )
