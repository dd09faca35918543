"""The audit trail of a node: who came, who was refused and why, what was transferred.

One DICOM Instances Transferred for each study and association, not for each instance
(PS3.15 A.5.3.7). What a crash left unreported is reported at the next start. Alerts of the
same kind from the same address are counted and summed up, so that a flood of failed
handshakes can neither fill the spool nor push anything else out of it.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dicom_secure_node.archive import Archive, Stored
from dicom_secure_node.archive.index import Unaudited
from dicom_secure_node.archive.keys import Keys, read_head
from dicom_secure_node.audit import messages
from dicom_secure_node.audit.limiter import Key, Summary
from dicom_secure_node.audit.messages import AuditMessage, Participant
from dicom_secure_node.audit.model import LIST_LIMIT
from dicom_secure_node.audit.text import UNKNOWN
from dicom_secure_node.elements.syntax import encoding_of
from dicom_secure_node.errors import (
    AssociationRefused,
    HandshakeRefused,
    IdentityRefused,
    Refused,
    SignatureRejected,
)
from dicom_secure_node.node import participants
from dicom_secure_node.node.context import (
    AssociationContext,
    Connection,
    OperationContext,
    StoreContext,
    Suspicion,
)
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.spec import audit as codes


class Trail(Protocol):
    """What the plug-in needs of `audit.trail.AuditTrail`."""

    @property
    def full(self) -> bool: ...

    def emit(self, message: AuditMessage, /) -> object: ...


class Limiter(Protocol):
    """What the plug-in needs of `audit.limiter.AlertLimiter`."""

    def admit(self, key: Key, /) -> bool: ...

    def due(self, *, everything: bool = False) -> list[Summary]: ...


@dataclass
class _Transfer:
    """What one association has brought of one study."""

    patient_id: str
    patient_name: str
    description: str
    accessions: set[str] = field(default_factory=set)
    created: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)


@dataclass
class _Transfers:
    """All studies of one association, in the order they came."""

    by_study: dict[str, _Transfer] = field(default_factory=dict)
    failures: set[str] = field(default_factory=set)


class AuditPlugin(Plugin):
    """Writes the audit messages of A.5.3 that a storage node owes.

    Parameters
    ----------
    trail : AuditTrail
        Durable when `emit` returns.
    ae_title : str
        Ours.
    archives : sequence of Archive
        They tell what a crash left unreported.
    limiter : Limiter
        Sums up floods.
    remark : callable
        Returns what start and stop are to say, or an empty text.
    """

    observable = False  # a node that cannot record must not serve

    def __init__(
        self,
        trail: Trail,
        ae_title: str,
        limiter: Limiter,
        archives: Sequence[Archive] = (),
        remark: Callable[[], str] = str,
    ) -> None:
        self._trail = trail
        self._ae_title = ae_title
        self._limiter = limiter
        self._archives = tuple(archives)
        self._remark = remark

    # -- the node --------------------------------------------------------------------------

    def started(self) -> None:
        """Report the start, and what an earlier run stored and did not report."""
        self._activity(codes.APPLICATION_START)
        self._report_left_over(None, "reported after a restart")

    def ended_without_report(self, associations: Collection[str]) -> None:
        """Report what associations brought whose process ended before it could report."""
        self._report_left_over(associations, "reported after a worker process ended")

    def _report_left_over(self, associations: Collection[str] | None, reason: str) -> None:
        """Report what was kept and never audited; of these associations, or of all."""
        for archive in self._archives:
            left_over = [
                left
                for left in archive.unaudited()
                if associations is None or left.association_id in associations
            ]
            for left in left_over:
                self._trail.emit(self._left_over(left, reason))
            for association_id in {left.association_id for left in left_over}:
                archive.mark_audited(association_id)

    def stopped(self) -> None:
        """Report the stop, after whatever the limiter still holds back."""
        self.sum_up(everything=True)
        self._activity(codes.APPLICATION_STOP)

    def _activity(self, kind: codes.Code) -> None:
        message = messages.application_activity(kind, self._node(), reason=self._remark())
        self._trail.emit(message)

    def problem(self, description: str, outcome: int = messages.SERIOUS_FAILURE) -> None:
        """Report a security problem of our own, e.g. a certificate file that cannot be used."""
        self._alert(codes.SECURITY_CONFIGURATION, description, "", outcome)

    def locked(self, user: str, address: str) -> None:
        """Report a lock-out: Security Alert, the user's or the address's rights changed."""
        who = f"user {user!r} from {address}" if user else f"address {address}"
        self._alert(
            codes.USER_SECURITY_ATTRIBUTES_CHANGED,
            f"locked after too many failed logins: {who}",
            address,
        )

    def sum_up(self, *, everything: bool = False) -> None:
        """Emit the sums of alerts whose time is over; called now and then."""
        for summary in self._limiter.due(everything=everything):
            event, address, description = summary.key
            kind, _, outcome = event.partition("/")
            counted = f"{summary.count} more since {summary.since:%H:%M:%S} UTC"
            self._emit_alert(
                codes.Code(kind, codes.meanings()[kind]),
                f"{description} ({counted})",
                address,
                int(outcome or messages.SERIOUS_FAILURE),
            )

    def describe(self) -> str:
        """Return what it does."""
        return "records every outcome in the audit trail"

    # -- refusals --------------------------------------------------------------------------

    def on_handshake_failed(self, connection: Connection, error: HandshakeRefused) -> None:
        """Security Alert, Node Authentication (A.5.3.11)."""
        self._alert(
            codes.NODE_AUTHENTICATION,
            f"{connection.listener}: connection refused: {error.reason}",
            connection.address,
        )

    def on_association_requested(self, association: AssociationContext) -> None:
        """Refuse when what happens could not be recorded (temporary congestion)."""
        if self._trail.full:
            raise AssociationRefused("the audit spool is full", result=2, source=3, diagnostic=1)

    def on_association_refused(self, association: AssociationContext, error: Refused) -> None:
        """User Authentication for an identity, Security Alert for everything else."""
        address = association.connection.address
        if isinstance(error, IdentityRefused):
            claimed = association.claim.described if association.claim else "nobody"
            if self._limiter.admit((codes.LOGIN.value, address, f"login refused: {error.reason}")):
                self._trail.emit(
                    messages.user_authentication(
                        codes.LOGIN,
                        Participant(claimed, requestor=True, address=address),
                        self._node(),
                        outcome=messages.SERIOUS_FAILURE,
                        reason=error.reason,
                    )
                )
            return
        self._alert(
            codes.USE_OF_RESTRICTED_FUNCTION,
            f"association of {association.calling_ae!r} refused: {error.reason}",
            address,
        )

    def on_operation(self, operation: OperationContext) -> None:
        """DICOM Instances Accessed (A.5.3.6), when an application is about to serve a retrieval.

        Every gate has agreed, audit being the last. What the application then does is its
        own to report.
        """
        if operation.service not in ("C-GET", "C-MOVE"):
            return
        keys = read_head(
            io.BytesIO(operation.identifier),
            len(operation.identifier),
            encoding_of(operation.transfer_syntax),
        )
        self._trail.emit(
            messages.instances_accessed(
                "R",
                [*self._user(operation.association), self._peer(operation.association)],
                [messages.study(keys.study or UNKNOWN)],
                messages.patient(keys.patient_id, keys.patient_name),
                reason=f"{operation.service} requested",
            )
        )

    def on_operation_refused(self, operation: OperationContext, error: Refused) -> None:
        """Security Alert, Use of Restricted Function."""
        association = operation.association
        self._alert(
            codes.USE_OF_RESTRICTED_FUNCTION,
            f"{operation.service} of {association.calling_ae!r} refused: {error.reason}",
            association.connection.address,
        )

    def on_observed(self, association: AssociationContext, error: Refused) -> None:
        """Informative Security Alert: it would have been refused."""
        self._alert(
            codes.USE_OF_RESTRICTED_FUNCTION,
            f"observed only, {association.calling_ae!r} would be refused: {error.reason}",
            association.connection.address,
            messages.SUCCESS,
        )

    # -- associations and transfers --------------------------------------------------------

    def on_association_accepted(self, association: AssociationContext) -> None:
        """User Authentication, Login, where there is a user."""
        association.keep(_Transfers())
        self._login(association, codes.LOGIN)
        if association.refused_contexts:  # one message, however many there are
            reason = next(iter(association.refused_contexts.values()))
            self._alert(
                codes.USE_OF_RESTRICTED_FUNCTION,
                f"SOP classes refused to {association.calling_ae!r}: {reason}",
                association.connection.address,
                messages.MINOR_FAILURE,
            )

    def on_store(self, store: StoreContext) -> None:
        """Begin Transferring (A.5.3.3), once for each study and association.

        It runs after storage and may still refuse: what cannot be recorded is not
        acknowledged, and the peer will send it again.
        """
        transfers = store.association.kept(_Transfers)
        if transfers is None:
            return
        keys = _keys_of(store)
        store.keep(keys)
        if keys.study not in transfers.by_study:
            self._trail.emit(
                messages.begin_transferring(
                    self._peer(store.association),
                    self._node(),
                    [messages.study(keys.study, keys.study_description)],
                    messages.patient(keys.patient_id, keys.patient_name),
                    others=self._user(store.association),
                )
            )
            transfers.by_study[keys.study] = _Transfer(
                keys.patient_id, keys.patient_name, keys.study_description
            )

    def on_store_ended(self, store: StoreContext, error: Refused | None) -> None:
        """Count what was kept; report one failed transfer for each reason and association."""
        transfers = store.association.kept(_Transfers)
        if transfers is None:
            return
        if error is None:
            self._count(store, transfers)
            self._suspicion(store)
            return
        if isinstance(error, SignatureRejected):
            self._alert(
                codes.USE_OF_RESTRICTED_FUNCTION,
                f"C-STORE of {store.association.calling_ae!r} refused: {error.reason}",
                store.association.connection.address,
            )
        if error.reason in transfers.failures:
            return
        if len(transfers.failures) < 16:
            transfers.failures.add(error.reason)
            self._trail.emit(
                messages.instances_transferred(
                    "R",
                    self._peer(store.association),
                    self._node(),
                    [messages.study(UNKNOWN, sop_classes={store.sop_class: 1})],
                    messages.patient(UNKNOWN),
                    others=self._user(store.association),
                    outcome=messages.SERIOUS_FAILURE,
                    reason=f"C-STORE refused: {error.reason}",
                )
            )

    def _suspicion(self, store: StoreContext) -> None:
        """Security Alert for what was kept although a gate holds something against it."""
        suspicion = store.kept(Suspicion)
        if suspicion is not None:
            how = "quarantined" if suspicion.quarantined else "kept and marked"
            self._alert(
                codes.USE_OF_RESTRICTED_FUNCTION,
                f"instance of {store.association.calling_ae!r} {how}: {suspicion.reason}",
                store.association.connection.address,
                messages.MINOR_FAILURE,
            )

    @staticmethod
    def _count(store: StoreContext, transfers: _Transfers) -> None:
        keys, stored = store.kept(Keys), store.kept(Stored)
        if keys is None:
            return
        transfer = transfers.by_study[keys.study]
        held = stored is not None and stored.outcome == "same"
        (transfer.held if held else transfer.created)[store.sop_class] += 1
        if keys.accession and len(transfer.accessions) < LIST_LIMIT:  # what a message names
            transfer.accessions.add(keys.accession)

    def on_association_closed(self, association: AssociationContext, how: str) -> None:
        """DICOM Instances Transferred for each study, then the user's Logout."""
        transfers = association.kept(_Transfers) or _Transfers()
        for study, transfer in transfers.by_study.items():
            for action, counted in (("C", transfer.created), ("R", transfer.held)):
                if counted:
                    self._trail.emit(
                        self._transferred(association, study, transfer, action, counted)
                    )
        if transfers.by_study:
            for archive in self._archives:
                archive.mark_audited(association.id)
        self._login(association, codes.LOGOUT)

    def _transferred(
        self,
        association: AssociationContext,
        study: str,
        transfer: _Transfer,
        action: str,
        counted: Counter[str],
    ) -> AuditMessage:
        return messages.instances_transferred(
            action,
            self._peer(association),
            self._node(),
            [
                messages.study(
                    study,
                    transfer.description,
                    accessions=sorted(transfer.accessions),
                    sop_classes=counted,
                )
            ],
            messages.patient(transfer.patient_id, transfer.patient_name),
            others=self._user(association),
        )

    def _left_over(self, left: Unaudited, reason: str) -> AuditMessage:
        first = left.first
        peer = Participant(
            first.peer_subject or first.peer_address,
            requestor=not first.identity,
            ae_titles=(first.calling_ae,),
            address=first.peer_address,
        )
        return messages.instances_transferred(
            "C",
            peer,
            self._node(),
            [messages.study(left.study, first.study_description, sop_classes=left.sop_classes)],
            messages.patient(first.patient_id, first.patient_name),
            others=[Participant(first.identity, requestor=True)] if first.identity else (),
            reason=reason,
            when=first.received_at,
        )

    # -- who -------------------------------------------------------------------------------

    def _login(self, association: AssociationContext, kind: codes.Code) -> None:
        if association.identity is not None:
            self._trail.emit(
                messages.user_authentication(
                    kind,
                    Participant(
                        association.identity.user,
                        requestor=True,
                        address=association.connection.address,
                    ),
                    self._node(),
                    reason="" if association.identity.proven else "name not verified",
                )
            )

    def _node(self) -> Participant:
        return participants.process(self._ae_title)

    _peer = staticmethod(participants.peer)
    _user = staticmethod(participants.user)

    # -- alerts ----------------------------------------------------------------------------

    def _alert(
        self,
        kind: codes.Code,
        description: str,
        address: str,
        outcome: int = messages.SERIOUS_FAILURE,
    ) -> None:
        if self._limiter.admit((f"{kind.value}/{outcome}", address, description)):
            self._emit_alert(kind, description, address, outcome)

    def _emit_alert(self, kind: codes.Code, description: str, address: str, outcome: int) -> None:
        performer = Participant(address, address=address) if address else None
        self._trail.emit(
            messages.security_alert(
                kind,
                description,
                self._node(),
                subject=address,
                performer=performer,
                outcome=outcome,
            )
        )


def _keys_of(store: StoreContext) -> Keys:
    """Return study, patient and so on: as archived, or from the beginning of the bytes."""
    stored = store.kept(Stored)
    if stored is not None:
        return stored.keys
    assert store.body is not None  # complete when on_store runs
    with store.body.open() as file:
        return read_head(file, store.body.size, encoding_of(store.transfer_syntax))
