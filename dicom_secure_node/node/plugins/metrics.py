"""Counts every outcome. It decides nothing, and keeps nothing of what a peer sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dicom_secure_node.archive import Stored
from dicom_secure_node.errors import HandshakeRefused, Refused
from dicom_secure_node.node import measures
from dicom_secure_node.node.context import (
    AssociationContext,
    Connection,
    OperationContext,
    StoreContext,
    Suspicion,
)
from dicom_secure_node.node.metrics import Metrics
from dicom_secure_node.node.plugin import Plugin


@dataclass(frozen=True)
class _Accepted:
    """Left in an association that was accepted, and when (monotonic)."""

    at: float


class MetricsPlugin(Plugin):
    """Counts what happens; a node puts it before all others.

    So its endings come last, and a C-STORE's time has theirs in it.

    Parameters
    ----------
    metrics : Metrics
        Where it counts.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock

    def describe(self) -> str:
        """Return what it does."""
        return "counts every outcome"

    def on_handshake_failed(self, connection: Connection, error: HandshakeRefused) -> None:
        """Count it by its kind."""
        self._metrics.add(measures.REFUSALS, "handshake", error.kind)

    def on_association_accepted(self, association: AssociationContext) -> None:
        """Count it as open, too, and note how long it took to come about."""
        now = self._clock()
        association.keep(_Accepted(now))
        self._metrics.add(measures.ASSOCIATIONS, "accepted")
        self._metrics.add(measures.OPEN)
        self._metrics.observe(measures.SETUP, now - association.connection.opened)

    def on_association_refused(self, association: AssociationContext, error: Refused) -> None:
        """Count it by its reason."""
        self._metrics.add(measures.ASSOCIATIONS, "refused")
        self._metrics.add(measures.REFUSALS, *measures.refusal("association", error))

    def on_association_closed(self, association: AssociationContext, how: str) -> None:
        """Count how it ended, if it ever began."""
        accepted = association.kept(_Accepted)
        if accepted is None:
            self._metrics.add(measures.ASSOCIATIONS, "abandoned")
            return
        self._metrics.add(measures.OPEN, amount=-1)
        self._metrics.add(measures.ENDED, how)
        self._metrics.observe(measures.DURATION, self._clock() - accepted.at)

    def on_operation(self, operation: OperationContext) -> None:
        """Count a request by its service; what becomes of a C-STORE is counted at its end."""
        if operation.service != "C-STORE":
            self._metrics.add(measures.REQUESTS, operation.service)

    def on_operation_refused(self, operation: OperationContext, error: Refused) -> None:
        """Count it by its status."""
        self._metrics.add(measures.REFUSALS, *measures.refusal("operation", error))

    def on_observed(self, association: AssociationContext, error: Refused) -> None:
        """Count what would have been refused."""
        self._metrics.add(measures.OBSERVED, *measures.observed(error))

    def on_store_ended(self, store: StoreContext, error: Refused | None) -> None:
        """Count it by its outcome, with its bytes and its time."""
        metrics = self._metrics
        metrics.observe(measures.STORE_SECONDS, self._clock() - store.began)
        if error is not None:
            metrics.add(measures.STORES, "refused")
            metrics.add(measures.REFUSALS, *measures.refusal("store", error))
            return
        metrics.add(measures.STORES, _outcome(store))
        if store.body is not None:
            metrics.add(measures.BYTES, amount=store.body.size)


def _outcome(store: StoreContext) -> str:
    suspicion = store.kept(Suspicion)
    if suspicion is not None:
        return "quarantined" if suspicion.quarantined else "marked"
    stored = store.kept(Stored)
    return "repeated" if stored is not None and stored.outcome == "same" else "kept"
