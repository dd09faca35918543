"""The identity gate: who is the user behind this association (PS3.15 B.4 to B.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dicom_secure_node.identity.claims import Backend, PeerFacts
from dicom_secure_node.identity.policy import IdentityPolicy
from dicom_secure_node.node.context import AssociationContext
from dicom_secure_node.node.plugin import Plugin


class IdentityPlugin(Plugin):
    """Decides on the user identity of each association by its listener's policy.

    Parameters
    ----------
    policies : mapping of str to IdentityPolicy
        By listener name.
    backends : sequence of Backend
        What verifies the claims.
    """

    def __init__(
        self, policies: Mapping[str, IdentityPolicy], backends: Sequence[Backend] = ()
    ) -> None:
        self._policies = dict(policies)
        self._backends = tuple(backends)
        for policy in self._policies.values():
            policy.check(self._backends)

    def on_association_requested(self, association: AssociationContext) -> None:
        """Verify the claim, or refuse for want of one."""
        policy = self._policies[association.connection.listener]
        decision = policy.decide(association.claim, peer_facts(association), self._backends)
        association.identity = decision.identity
        association.respond = decision.response

    def describe(self) -> str:
        """Return what each listener demands, type by type."""
        return f"user identity ({'; '.join(map(_described, self._policies.items()))})"


def _described(item: tuple[str, IdentityPolicy]) -> str:
    name, policy = item
    others = f" with exceptions for {' '.join(policy.overrides)}" if policy.overrides else ""
    return f"{name}: {policy.default}{others}"


def peer_facts(association: AssociationContext) -> PeerFacts:
    """Return what an identity back-end may know of the peer."""
    tls = association.tls
    return PeerFacts(
        address=association.connection.address,
        calling_ae=association.calling_ae,
        called_ae=association.called_ae,
        listener=association.connection.listener,
        certificate=tls.peer_certificate if tls else None,
        protected=tls is not None,
    )
