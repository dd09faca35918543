"""What a plug-in gets to see: three objects, three lifetimes.

`Connection` is what is known of a peer before any DICOM was spoken, `AssociationContext`
lives as long as an association, `OperationContext` and `StoreContext` as long as one DIMSE
request. None of them holds a pynetdicom object, so a plug-in can be tested with plain values
and cannot get round the host.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO, Protocol, TypeVar

from dicom_secure_node.identity.claims import Claim, Identity
from dicom_secure_node.tls.facts import TLSFacts

T = TypeVar("T")


@dataclass(frozen=True)
class Connection:
    """A transport connection, before and below any association.

    Attributes
    ----------
    listener : str
        Name of the listener that accepted it.
    address, port : str, int
        Where the peer comes from.
    local_address, local_port : str, int
        Where it arrived.
    observe : bool
        The listener only observes: policy refusals are recorded, not carried out.
    id : str
        Unique in this process and on disk; the association keeps it.
    opened : float
        When it was accepted, `time.monotonic`.
    """

    listener: str
    address: str
    port: int
    local_address: str = ""
    local_port: int = 0
    observe: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    opened: float = field(default_factory=time.monotonic, compare=False)


class Keeps:
    """Lets one plug-in leave a result where later ones find it, by its type."""

    def __init__(self) -> None:
        self._kept: dict[type[Any], Any] = {}

    def keep(self, value: object) -> None:
        """Leave `value` for the plug-ins that follow; one value of each type."""
        self._kept[type(value)] = value

    def kept(self, kind: type[T]) -> T | None:
        """Return what an earlier plug-in left of type `kind`, or None."""
        return self._kept.get(kind)


class AssociationContext(Keeps):
    """One association, from its A-ASSOCIATE-RQ to its end.

    Attributes
    ----------
    connection : Connection
    tls : TLSFacts or None
        None on a plain connection.
    calling_ae, called_ae : str
        Titles as sent, without padding.
    claim : Claim or None
        The user identity sub-item of the request (PS3.7 D.3.3.7), unproven.
    identity : Identity or None
        Who it turned out to be; set by the identity plug-in.
    respond : bytes or None
        Content of the 59H sub-item to answer with; None sends none.
    requested : mapping
        Abstract syntax UID to the transfer syntax UIDs proposed with it.
    peer_serves : frozenset of str
        Abstract syntaxes for which the peer would be the SCP (PS3.7 D.3.3.4), as for the
        instances of a C-GET.
    refused_contexts : mapping
        Abstract syntax UID to the reason; see `refuse_context`.
    started : datetime
        UTC.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        tls: TLSFacts | None = None,
        calling_ae: str = "",
        called_ae: str = "",
        claim: Claim | None = None,
        requested: Mapping[str, tuple[str, ...]] | None = None,
        peer_serves: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.connection = connection
        self.tls = tls
        self.calling_ae = calling_ae
        self.called_ae = called_ae
        self.claim = claim
        self.requested = dict(requested or {})
        self.peer_serves = peer_serves
        self.refused_contexts: dict[str, str] = {}
        self.identity: Identity | None = None
        self.respond: bytes | None = None
        self.started = datetime.now(UTC)

    @property
    def id(self) -> str:
        """Return the identifier that log, index and audit share."""
        return self.connection.id

    def refuse_context(self, abstract_syntax: str, reason: str) -> None:
        """Have the presentation contexts of `abstract_syntax` rejected, and no more than them.

        Counts while the association is being requested. The peer sees the result 1,
        user-rejection (PS3.8 Table 9-18).
        """
        self.refused_contexts.setdefault(abstract_syntax, reason)

    @property
    def user(self) -> str | None:
        """Return the user's name, if the association has one."""
        return self.identity.user if self.identity else None

    def __repr__(self) -> str:
        return (
            f"<association {self.id[:8]} {self.calling_ae!r} -> {self.called_ae!r} "
            f"from {self.connection.address}>"
        )


@dataclass(frozen=True)
class OperationContext:
    """One DIMSE request, read and not yet served.

    Attributes
    ----------
    association : AssociationContext
    service : str
        ``C-ECHO``, ``C-STORE``, ``C-FIND``, ``N-ACTION`` ...
    sop_class, sop_instance : str
        Affected or Requested UIDs; empty where the request names none.
    message_id : int
    identifier : bytes
        The encoded Identifier of C-FIND, C-MOVE and C-GET; empty otherwise.
    transfer_syntax : str
        UID, of the identifier.
    """

    association: AssociationContext
    service: str
    sop_class: str
    sop_instance: str = ""
    message_id: int = 0
    identifier: bytes = field(default=b"", repr=False)
    transfer_syntax: str = ""


@dataclass(frozen=True)
class Suspicion:
    """What a gate holds against an instance without refusing it; kept in its `StoreContext`.

    Attributes
    ----------
    reason : str
        In words fit for log and audit.
    quarantined : bool
        Keep the instance apart from the others.
    """

    reason: str
    quarantined: bool


class Sink(Protocol):
    """Something that sees the data set's bytes as they come in, like a digest."""

    def update(self, data: memoryview, /) -> None:
        """Take the next bytes. They are good for this call only: what is kept has to be copied."""


class Body(Protocol):
    """Where the bytes of one data set are while the gates decide."""

    @property
    def size(self) -> int: ...

    def write(self, data: memoryview, /) -> object: ...

    def open(self) -> BinaryIO:
        """Return a reader at the first byte of the data set."""

    def abandon(self) -> None:
        """Let the bytes go; harmless when they were kept or let go before."""


class StoreContext(Keeps):
    """One C-STORE, from its command to its status.

    Attributes
    ----------
    association : AssociationContext
    sop_class, sop_instance : str
        Affected UIDs of the command set; not yet compared with the data set.
    transfer_syntax : str
        Of the accepted presentation context.
    message_id : int
    received : datetime
        When the command was read, UTC.
    began : float
        The same moment, `time.monotonic`: what times are measured from.
    body : Body or None
        The bytes; complete when `on_store` runs.
    findings : dict
        What gates found out and the archive's index should remember, JSON values by a name.
    """

    def __init__(
        self,
        association: AssociationContext,
        sop_class: str,
        sop_instance: str,
        transfer_syntax: str,
        message_id: int = 0,
    ) -> None:
        super().__init__()
        self.association = association
        self.sop_class = sop_class
        self.sop_instance = sop_instance
        self.transfer_syntax = transfer_syntax
        self.message_id = message_id
        self.received = datetime.now(UTC)
        self.began = time.monotonic()
        self.body: Body | None = None
        self.findings: dict[str, object] = {}
        self.sinks: dict[object, Sink] = {}

    def verdict_of(self, plugin: object) -> Sink | None:
        """Return the sink `plugin` gave at `on_store_started`, now that it saw every byte."""
        return self.sinks.get(plugin)

    def as_operation(self) -> OperationContext:
        """Return the same request as the gates of every DIMSE service see it."""
        return OperationContext(
            self.association, "C-STORE", self.sop_class, self.sop_instance, self.message_id
        )
