"""The access gate: may this peer, and this user, do that."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dicom_secure_node.errors import AccessRefused, OperationRefused
from dicom_secure_node.identity.access import AccessFacts, AccessPolicy
from dicom_secure_node.node.context import AssociationContext, OperationContext
from dicom_secure_node.node.plugin import Plugin


@dataclass(frozen=True)
class _Known:
    """What is known of everybody's requests on one association."""

    facts: AccessFacts


class AccessPlugin(Plugin):
    """Asks the access policy at the association, for each context, and at each operation.

    Parameters
    ----------
    policy : AccessPolicy
    """

    def __init__(self, policy: AccessPolicy) -> None:
        self._policy = policy

    def on_association_requested(self, association: AssociationContext) -> None:
        """Refuse a peer to whom no rule would allow anything, and contexts it may not use.

        Contexts in which the peer serves us (PS3.7 D.3.3.4) are not what it asks for.
        """
        facts = _facts(association)
        decision = self._policy.decide(facts)
        if not decision.allowed:
            raise AccessRefused(decision.reason)
        asked = [uid for uid in association.requested if uid not in association.peer_serves]
        refused = {
            uid: decision.reason
            for uid, decision in self._policy.decide_contexts(facts, asked).items()
            if not decision.allowed
        }
        if refused and len(refused) == len(association.requested):
            raise AccessRefused(next(iter(refused.values())))
        for uid, reason in refused.items():
            association.refuse_context(uid, reason)

    def on_operation(self, operation: OperationContext) -> None:
        """Refuse a request no rule allows (PS3.7 C.5.25: 0x0124, not authorised)."""
        association = operation.association
        known = association.kept(_Known)
        if known is None:  # nothing of it changes once the association is there
            known = _Known(_facts(association))
            association.keep(known)
        decision = self._policy.decide(
            replace(known.facts, operation=operation.service, sop_class=operation.sop_class)
        )
        if not decision.allowed:
            raise OperationRefused(decision.reason)

    def describe(self) -> str:
        """Return how many rules there are."""
        count = len(self._policy.rules)
        return f"{count} access rules, deny by default" if count else "no access rules"


def _facts(association: AssociationContext) -> AccessFacts:
    identity, tls = association.identity, association.tls
    return AccessFacts(
        calling_ae=association.calling_ae,
        called_ae=association.called_ae,
        user=identity.user if identity else "",
        user_proven=identity.proven if identity else False,
        groups=identity.groups if identity else frozenset(),
        attributes=identity.attributes if identity else {},
        address=association.connection.address,
        certificate=tls.peer_certificate if tls else None,
        listener=association.connection.listener,
    )
