"""The plug-in host: from pynetdicom's events to the hooks, failing closed.

Rules, in order:

1. A plug-in sees plain contexts, never a pynetdicom object.
2. Gates run in the order given. The first refusal stops them.
3. Any other exception from a gate is a refusal, and is logged with its traceback.
4. Endings run in reverse order after every outcome; an ending that raises is logged and the
   rest still run.
5. The application's own handler runs last, after every gate has agreed, with pynetdicom's
   own `Event`. What it raises refuses, too.
6. On a listener that observes, the refusal of an observable plug-in is recorded and not
   carried out. Storage and the audit trail are not observable: what they cannot keep is
   never acknowledged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.status import code_to_category

from dicom_secure_node.errors import (
    AssociationRefused,
    HandshakeRefused,
    IdentityRefused,
    LimitReached,
    OperationRefused,
    Refused,
    ServiceUnavailable,
    StoreRefused,
)
from dicom_secure_node.node.association import SecureAssociation
from dicom_secure_node.node.body import ApplicationBody
from dicom_secure_node.node.context import (
    AssociationContext,
    Body,
    Connection,
    OperationContext,
    StoreContext,
)
from dicom_secure_node.node.memory import MemoryBudget
from dicom_secure_node.node.messages import InboundStore
from dicom_secure_node.node.negotiation import GatedACSE, check_application_context
from dicom_secure_node.node.peer_facts import (
    claim_of,
    first_of,
    identifier_of,
    no_request,
    tls_facts_of,
)
from dicom_secure_node.node.plugin import HOOKS, Plugin, check_hooks, implements
from dicom_secure_node.node.service import check_fit

if TYPE_CHECKING:
    from dicom_secure_node.node.server import SecureServer

logger = logging.getLogger(__name__)

# Temporary congestion (PS3.8 Table 9-21); out of resources (PS3.4 Table B.2-1).
_TRY_AGAIN = {"result": 2, "source": 3, "diagnostic": 1, "status": 0xA700}
_OUR_FAULT = {"status": 0x0110}  # processing failure (PS3.7 C.5.21)

R = TypeVar("R", bound=Refused)
Receiver = Callable[[StoreContext], Body]
Handler = tuple[Callable[..., Any], Sequence[Any]]


class PluginHost:
    """Runs the plug-ins of one node; shared by all its associations.

    Parameters
    ----------
    plugins : sequence of Plugin
        In wire order.
    receive : callable, optional
        Makes the body a C-STORE's bytes are written to. Without it they stay where
        pynetdicom collects them, for the application's own handler.
    application : dict, optional
        The application's own handlers of intervention events, by event.
    memory : int
        Bytes of data sets that may wait in memory for the application, over all associations.

    Raises
    ------
    ConfigurationError
        A plug-in has a hook nobody would call.
    """

    def __init__(
        self,
        plugins: Sequence[Plugin],
        receive: Receiver | None = None,
        application: dict[Any, Handler] | None = None,
        memory: int = 2 << 30,
    ) -> None:
        check_hooks(plugins)
        self.plugins = tuple(plugins)
        self._interested = {
            hook: tuple(one for one in self.plugins if implements(one, hook)) for hook in HOOKS
        }
        self.memory = MemoryBudget(memory)
        self._receive = receive
        self._application = application or {}
        self._contexts: dict[SecureAssociation, AssociationContext] = {}
        self._identity_answers: dict[SecureAssociation, tuple[bool, bytes | None]] = {}

    @property
    def tees(self) -> bool:
        """Return True when pynetdicom has to collect the data set for the application."""
        return self._receive is None or evt.EVT_C_STORE in self._application

    def handlers(self) -> list[tuple[Any, ...]]:
        """Return the event handlers to bind on a server; everything else is the host's."""
        own: list[tuple[Any, ...]] = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_C_STORE, self._store),
        ]
        if evt.EVT_USER_ID in self._application:
            own.append((evt.EVT_USER_ID, self._user_identity))
        rest = [
            (event, function, list(args))
            for event, (function, args) in self._application.items()
            if event not in (evt.EVT_C_STORE, evt.EVT_USER_ID)
        ]
        return own + rest

    def context(self, assoc: SecureAssociation) -> AssociationContext:
        """Return what the gates know of an association; LookupError when it is over."""
        return self._contexts[assoc]

    # -- gates and endings -----------------------------------------------------------------

    def _gates(self, hook: str, association: AssociationContext, *args: Any) -> None:
        for plugin in self._interested[hook]:
            self._gate(plugin, hook, association, *args)

    def _gate(self, plugin: Plugin, hook: str, association: AssociationContext, *args: Any) -> Any:
        try:
            return getattr(plugin, hook)(*args)
        except Exception as exc:
            if not (association.connection.observe and plugin.observable):
                raise
            refusal = exc if isinstance(exc, Refused) else self.as_refusal(exc, Refused)
            logger.warning("%r would be refused: %s", association, refusal.reason)
            self._end("on_observed", association, refusal)
            return None

    def _end(self, hook: str, *args: Any) -> None:
        for plugin in reversed(self._interested[hook]):
            try:
                getattr(plugin, hook)(*args)
            except Exception:
                logger.exception("%s of %s failed", hook, type(plugin).__name__)

    @staticmethod
    def as_refusal(exc: Exception, kind: type[R]) -> R:
        """Return `exc` as a refusal of `kind`; what nobody raised on purpose is logged.

        A service that is away is no lasting no: the peer is told to try again.
        """
        if isinstance(exc, kind):
            return _failing(exc)
        if isinstance(exc, Refused):
            return kind(exc.reason)
        if isinstance(exc, ServiceUnavailable):
            refusal, codes = kind(str(exc)), _TRY_AGAIN
        else:
            logger.error("refusing because of an error of our own", exc_info=exc)
            refusal, codes = kind(f"internal error ({type(exc).__name__})"), _OUR_FAULT
        for name, value in codes.items():
            if hasattr(refusal, name):
                setattr(refusal, name, value)
        return refusal

    # -- before an association -------------------------------------------------------------

    def handshake_failed(self, connection: Connection, error: HandshakeRefused) -> None:
        """Report a transport that came to nothing."""
        logger.warning(
            "%s: connection from %s refused: %s",
            connection.listener, connection.address, error.reason,
        )  # fmt: skip
        self._end("on_handshake_failed", connection, error)

    # -- the association -------------------------------------------------------------------

    def _requested(self, event: evt.Event) -> None:
        assoc = cast(SecureAssociation, event.assoc)
        try:
            context = self._open(assoc)
            check_application_context(assoc)
            if context.tls is not None and context.tls.observed is not None:
                logger.warning("%r would be refused: %s", context, context.tls.observed.reason)
                self._end("on_observed", context, context.tls.observed)
            context.claim = claim_of(assoc)
            self._gates("on_association_requested", context, context)
            if evt.EVT_USER_ID in self._application and context.claim is not None:
                self._ask_application(assoc)
            self._refuse_contexts(assoc, context)
            if not cast("SecureServer", assoc._server).admits(assoc):
                raise LimitReached("too many associations are open")
            if context.respond is not None:
                # pynetdicom answers only types 3 to 5; PS3.15 B.4 and B.5 want an answer too.
                item = UserIdentityNegotiation()
                item.server_response = context.respond
                assoc.acceptor.add_negotiation_item(item)
        except Exception as exc:
            # pynetdicom accepts when this handler raises, so refuse here. kill() waits for
            # the RJ to leave; without it the peer sees an abort.
            refusal = self.as_refusal(exc, AssociationRefused)
            _reject(assoc, refusal)
            self._refused(assoc, refusal)
            evt.trigger(assoc, evt.EVT_REJECTED, {})  # pynetdicom does not tell the application

    def _open(self, assoc: SecureAssociation) -> AssociationContext:
        request = cast(Any, assoc.requestor.primitive)
        context = AssociationContext(
            assoc.connection,
            tls=tls_facts_of(assoc),
            calling_ae=str(request.calling_ae_title or "").strip(),
            called_ae=str(request.called_ae_title or "").strip(),
            requested={
                str(cx.abstract_syntax): tuple(str(uid) for uid in cx.transfer_syntax)
                for cx in request.presentation_context_definition_list
            },
            peer_serves=frozenset(
                str(uid) for uid, role in assoc.requestor.role_selection.items() if role.scp_role
            ),
        )
        self._contexts[assoc] = context
        return context

    def _refuse_contexts(self, assoc: SecureAssociation, context: AssociationContext) -> None:
        """Have the contexts rejected that a gate refused, or record it where we only observe."""
        refused = context.refused_contexts
        if not refused:
            return
        example, reason = next(iter(refused.items()))
        words = (
            f"presentation contexts of {len(refused)} of {len(context.requested)} SOP classes, "
            f"{example[:64]!r} first: {reason}"
        )
        if context.connection.observe:
            logger.warning("%r would be refused: %s", context, words)
            self._end("on_observed", context, AssociationRefused(words))
            refused.clear()
        else:
            # Senders propose every SOP class they know, so this is no alarm.
            logger.info("%r: refused %s", context, words)
            cast(GatedACSE, assoc.acse).refused = frozenset(refused)

    def _ask_application(self, assoc: SecureAssociation) -> None:
        """Let the application's own EVT_USER_ID handler decide, after every gate."""
        claim = cast(Any, assoc.requestor.user_identity)
        event = evt.Event(
            assoc,
            evt.EVT_USER_ID,
            {
                "user_id_type": claim.user_identity_type,
                "primary_field": claim.primary_field,
                "secondary_field": claim.secondary_field,
            },
        )
        verified, response = self._call(evt.EVT_USER_ID, event)
        if not verified:
            raise IdentityRefused("the application did not verify the user")
        self._identity_answers[assoc] = (True, response)

    def _user_identity(self, event: evt.Event) -> tuple[bool, bytes | None]:
        return self._identity_answers.pop(cast(SecureAssociation, event.assoc), (False, None))

    def _call(self, kind: Any, event: evt.Event) -> Any:
        function, args = self._application[kind]
        return function(event, *args)

    def _accepted(self, event: evt.Event) -> None:
        assoc = cast(SecureAssociation, event.assoc)
        context = self._contexts[assoc]
        logger.info("%r accepted", context)
        self._end("on_association_accepted", context)
        assoc.announced.set()

    def _rejected(self, event: evt.Event) -> None:
        """Report a refusal of pynetdicom's own: AE titles, its maximum of associations."""
        assoc = cast(SecureAssociation, event.assoc)
        if assoc not in self._contexts:
            return  # a refusal of ours, reported already
        primitive = cast(Any, assoc.acceptor.primitive)
        names = ("result", "result_source", "diagnostic")
        result, source, diagnostic = (getattr(primitive, name, None) for name in names)
        self._refused(
            assoc,
            AssociationRefused(
                f"refused by the application entity (result {result}, source {source}, "
                f"reason {diagnostic})",
                result=result,
                source=source,
                diagnostic=diagnostic,
            ),
        )

    def _refused(self, assoc: SecureAssociation, refusal: AssociationRefused) -> None:
        context = self._contexts.pop(assoc, None) or AssociationContext(assoc.connection)
        logger.warning("%r refused: %s", context, refusal.reason)
        self._end("on_association_refused", context, refusal)

    def closed(self, assoc: SecureAssociation) -> None:
        """Report the end of an association, or of a connection that never became one."""
        self._identity_answers.pop(assoc, None)
        context = self._contexts.pop(assoc, None)
        if context is None:
            if assoc.requestor.primitive is None:
                self.handshake_failed(assoc.connection, no_request(assoc))
            return
        how = "released" if assoc.is_released else "lost" if assoc.is_lost else "aborted"
        reason = f" ({assoc.failure})" if assoc.failure else ""
        logger.info("%r %s%s", context, how, reason)
        self._end("on_association_closed", context, how)

    # -- operations ------------------------------------------------------------------------

    def operation(
        self, assoc: SecureAssociation, message: Any, context_id: int
    ) -> OperationRefused | None:
        """Run the gates of one DIMSE request; return the refusal, if there is one.

        A C-STORE has been through them already, when its command was read.
        """
        service = type(message).__name__.replace("_", "-")
        if service == "C-STORE" or not message.is_valid_request:
            return None
        context = assoc.accepted(context_id)
        sop_class = first_of(message, "AffectedSOPClassUID", "RequestedSOPClassUID")
        operation = OperationContext(
            self._contexts[assoc],
            service,
            sop_class,
            first_of(message, "AffectedSOPInstanceUID", "RequestedSOPInstanceUID"),
            int(message.MessageID or 0),
            *identifier_of(assoc, message, context_id),
        )
        try:
            check_fit(service, sop_class, str(context.abstract_syntax))
            self._gates("on_operation", operation.association, operation)
        except Exception as exc:
            refusal = self.as_refusal(exc, OperationRefused)
            self._operation_refused(operation, refusal)
            return refusal
        return None

    def _operation_refused(self, operation: OperationContext, refusal: OperationRefused) -> None:
        logger.warning(
            "%r: %s refused: %s", operation.association, operation.service, refusal.reason
        )
        self._end("on_operation_refused", operation, refusal)

    # -- C-STORE ---------------------------------------------------------------------------

    def new_store(
        self,
        assoc: SecureAssociation,
        sop_class: str,
        sop_instance: str,
        transfer_syntax: str,
        message_id: int,
    ) -> StoreContext:
        """Return the context of a C-STORE whose command has been read."""
        return StoreContext(
            self._contexts[assoc], sop_class, sop_instance, transfer_syntax, message_id
        )

    def store_started(
        self, inbound: InboundStore, message: C_STORE_RQ | None, abstract_syntax: str
    ) -> None:
        """Run the gates that decide by the command alone, and open the body.

        `message` collects the data set where nothing here `receive`s it.
        """
        store = inbound.context
        try:
            check_fit("C-STORE", store.sop_class, abstract_syntax)
            self._gates("on_operation", store.association, store.as_operation())
            for plugin in self._interested["on_store_started"]:
                sink = self._gate(plugin, "on_store_started", store.association, store)
                if sink is not None:
                    store.sinks[plugin] = sink
            store.body = self._receive(store) if self._receive else _application_body(message)
        except Exception as exc:
            inbound.refuse(self.as_refusal(exc, OperationRefused))

    def _store(self, event: evt.Event) -> int | Dataset:
        assoc = cast(SecureAssociation, event.assoc)
        # Before the answer leaves: the message ID is free for the peer's next request then.
        key = (event.context.context_id, int(cast(Any, event.request).MessageID))
        inbound = assoc.inbound.pop(key, None) if isinstance(event.request, C_STORE) else None
        if inbound is None:  # a C-STORE-RQ that announced no data set
            return 0xC000
        return self._decide(inbound, event)

    def store(self, inbound: InboundStore) -> int:
        """Decide on a C-STORE that no handler of the application wants to see."""
        return cast(int, self._decide(inbound, None))

    def serves(self, handler: Any) -> bool:
        """Whether the handler bound to EVT_C_STORE is this host's own."""
        return handler is not None and handler[0] == self._store

    def _decide(self, inbound: InboundStore, event: evt.Event | None) -> int | Dataset:
        """Run the gates, then the application's handler; return the status of the response."""
        store, refusal = inbound.context, inbound.refusal
        status: int | Dataset = 0x0000
        try:
            if refusal is not None:
                raise refusal
            self._gates("on_store", store.association, store)
            if self._receive is None and evt.EVT_C_STORE not in self._application:
                raise StoreRefused("nothing here keeps instances", status=0xA700)
            if event is not None and evt.EVT_C_STORE in self._application:
                status = self._call(evt.EVT_C_STORE, event)
                refusal = _application_refusal(status)
        except Exception as exc:
            refused = self.as_refusal(exc, OperationRefused)
            status, refusal = refused.status, refused
        if refusal is not None:
            logger.warning("%r: C-STORE refused: %s", store.association, refusal.reason)
        inbound.abandon()  # nothing happens to what was kept
        self._end("on_store_ended", store, refusal)
        return status

    def store_broke_off(self, inbound: InboundStore) -> None:
        """End a C-STORE whose association ended before its status could be given."""
        inbound.abandon()
        refusal = inbound.refusal or StoreRefused("the association ended in the middle")
        logger.warning("%r: C-STORE refused: %s", inbound.context.association, refusal.reason)
        self._end("on_store_ended", inbound.context, refusal)


def _application_body(message: C_STORE_RQ | None) -> ApplicationBody:
    assert message is not None  # a host that `tees` takes no C-STORE by the fast lane
    return ApplicationBody(message)


def _failing(refusal: R) -> R:
    """Return `refusal`; a status of success or warning would say that it is none."""
    status = getattr(refusal, "status", None)
    if status is not None and code_to_category(status) in ("Success", "Warning", "Pending"):
        logger.error("%r has the status 0x%04X, which is no failure", refusal, status)
        setattr(refusal, "status", 0x0110)  # noqa: B010 - R does not promise one
    return refusal


def _reject(assoc: SecureAssociation, refusal: AssociationRefused) -> None:
    """Send the A-ASSOCIATE-RJ; nothing but that may come of a refusal."""
    try:
        assoc.acse.send_reject(refusal.result, refusal.source, refusal.diagnostic)
    except ValueError:  # a plug-in's codes, and not those of PS3.8 Table 9-21
        logger.error("%r has codes that are none", refusal)
        assoc.acse.send_reject(1, 1, 1)
    assoc.is_rejected = True
    assoc.kill()


def _application_refusal(status: int | Dataset) -> StoreRefused | None:
    """Return what an application's status means: success and warnings kept the instance."""
    code = int(status.Status) if isinstance(status, Dataset) else int(status)
    if code == 0x0000 or code & 0xF000 == 0xB000:
        return None
    return StoreRefused(f"the application answered 0x{code:04X}", status=code)
