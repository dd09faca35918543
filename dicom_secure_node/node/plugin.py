"""The hooks a plug-in may implement, and the moment each one is called.

=============================  ==========================================  ===============
hook                           moment                                      kind
=============================  ==========================================  ===============
`on_handshake_failed`          the transport was refused; no association   ending
`on_association_requested`     A-ASSOCIATE-RQ read, TLS peer and identity  gate
                               claim known
`on_association_accepted`      after the A-ASSOCIATE-AC                    ending
`on_association_refused`       after the A-ASSOCIATE-RJ                    ending
`on_operation`                 any DIMSE request read, not yet served      gate
`on_operation_refused`         after a gate refused a request              ending
`on_store_started`             C-STORE command read, no data yet           gate
`on_store`                     data set complete, not yet kept             gate
`on_store_ended`               status about to be returned                 ending
`on_association_closed`        released, aborted or lost                   ending
`on_observed`                  a gate refused on a listener that only      ending
                               observes
=============================  ==========================================  ===============

*Gates* run in the order listed in the configuration; a gate refuses by raising, and the
first refusal stops the rest. *Endings* run in reverse order, always, and cannot change the
outcome.
"""

from __future__ import annotations

from collections.abc import Sequence

from dicom_secure_node.errors import ConfigurationError, HandshakeRefused, Refused
from dicom_secure_node.node.context import (
    AssociationContext,
    Connection,
    OperationContext,
    Sink,
    StoreContext,
)


class Plugin:
    """Base of every plug-in: each hook exists and does nothing.

    One plug-in serves all associations at once, each in a thread of its own. Keep what
    belongs to one association in its context (`context.keep`), not on ``self``.

    Attributes
    ----------
    observable : bool
        On a listener that only observes, a refusal by this plug-in is recorded and not
        carried out. False for plug-ins whose refusal is no matter of policy, e.g. storage
        on a full disk.
    """

    observable: bool = True

    def on_handshake_failed(self, connection: Connection, error: HandshakeRefused) -> None:
        """Take note of a peer that never got as far as an association."""

    def on_association_requested(self, association: AssociationContext) -> None:
        """Decide on an A-ASSOCIATE-RQ; raise `AssociationRefused` to refuse it."""

    def on_association_accepted(self, association: AssociationContext) -> None:
        """Take note of an association that was accepted."""

    def on_association_refused(self, association: AssociationContext, error: Refused) -> None:
        """Take note of an association that was refused, by a plug-in or by pynetdicom."""

    def on_operation(self, operation: OperationContext) -> None:
        """Decide on a DIMSE request; raise `OperationRefused` to refuse it."""

    def on_operation_refused(self, operation: OperationContext, error: Refused) -> None:
        """Take note of a request that a gate refused."""

    def on_store_started(self, store: StoreContext) -> Sink | None:
        """Decide on a C-STORE by its command; may return a sink that will see its bytes."""
        return None

    def on_store(self, store: StoreContext) -> None:
        """Decide on a C-STORE whose data set is complete; raise `StoreRefused` to refuse it."""

    def on_store_ended(self, store: StoreContext, error: Refused | None) -> None:
        """Take note of a C-STORE's outcome; `error` is None when it was kept."""

    def on_association_closed(self, association: AssociationContext, how: str) -> None:
        """Take note of an association's end: ``released``, ``aborted`` or ``lost``."""

    def on_observed(self, association: AssociationContext, error: Refused) -> None:
        """Take note of what would have been refused if the listener enforced."""

    def describe(self) -> str:
        """Return in one line what this plug-in does, as it is configured."""
        return type(self).__name__


HOOKS = frozenset(name for name in vars(Plugin) if name.startswith("on_"))


def implements(plugin: Plugin, hook: str) -> bool:
    """Tell whether a plug-in has a `hook` of its own, or only the one that does nothing."""
    return hook in vars(plugin) or getattr(type(plugin), hook) is not getattr(Plugin, hook)


def check_hooks(plugins: Sequence[Plugin]) -> None:
    """Refuse a plug-in with a hook that nobody would ever call.

    Raises
    ------
    ConfigurationError
        A plug-in is no `Plugin`, or has a method ``on_...`` that the base class lacks.
    """
    for plugin in plugins:
        name = type(plugin).__name__
        if not isinstance(plugin, Plugin):
            raise ConfigurationError(f"plug-in {name} does not derive from Plugin")
        for attribute in dir(plugin):
            if attribute.startswith("on_") and attribute not in HOOKS:
                raise ConfigurationError(
                    f"plug-in {name} has the hook {attribute}, which is never called; "
                    f"known hooks: {', '.join(sorted(HOOKS))}"
                )
