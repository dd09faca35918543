"""An acceptor's association that reads within bounds and streams C-STOREs.

Subclasses of pynetdicom's own classes, set on the association before it starts; nothing of
pynetdicom is patched or switched. What they add:

* every PDU has a size limit and a deadline, before and after the association (PS3.8 9.3);
* the data set of a C-STORE goes to its body fragment by fragment, never wholly into memory;
* every DIMSE request passes the host's gates before pynetdicom serves it;
* however the association ends, the host is told once, and how.

When nobody has bound a notification event that shows PDUs, P-DATA-TF PDUs are taken straight
from one reused buffer; otherwise pynetdicom decodes them and its events fire as always. Both
ways end in `messages.BoundedDIMSE.receive_piece`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse import _RSP_TO_MESSAGE
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from dicom_secure_node.errors import OperationRefused, Refused
from dicom_secure_node.node.context import Connection
from dicom_secure_node.node.limits import Limits, ProtocolFault
from dicom_secure_node.node.messages import BoundedDIMSE, InboundStore
from dicom_secure_node.node.negotiation import GatedACSE
from dicom_secure_node.node.store_codec import LONGEST_ANSWER, StoreRequest
from dicom_secure_node.node.upper_layer import BoundedDUL

if TYPE_CHECKING:
    from dicom_secure_node.node.host import PluginHost
    from dicom_secure_node.node.server import SecureServer

logger = logging.getLogger(__name__)

_LAST_WORD_SECONDS = 2.0  # for an A-ABORT to leave, and the peer to hang up
# Who binds one of these wants to see what the fast lane does not make.
_SHOWS_MESSAGES = (evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT, evt.EVT_PDU_SENT, evt.EVT_DATA_SENT)

_ANNOUNCING = 1.0  # seconds the fast lane waits for plug-ins that are slow to hear of it


class SecureAssociation(Association):
    """An acceptor's `Association` under the host's rules.

    Attributes
    ----------
    failure : str
        Why the connection ended, where it did not end in order; empty otherwise.
    bell : Event
        Rings when there is something for the reactor to do.
    reserved_identities : int
        User identities in the request of a type that PS3.7 reserves.
    is_lost : bool
        The transport went away under the association.
    announced : Event
        The plug-ins know that it was accepted; a peer may be faster.
    request_deadline : float
        `time.monotonic` value by which the A-ASSOCIATE-RQ must be complete.
    """

    def __init__(
        self, ae: Any, mode: str, host: PluginHost, connection: Connection, limits: Limits
    ) -> None:
        super().__init__(ae, mode)
        self.host = host
        self.connection = connection
        self.limits = limits
        self.failure = ""
        self.is_lost = False
        self.reserved_identities = 0
        self.bell = threading.Event()
        self.announced = threading.Event()
        self.request_deadline = time.monotonic() + limits.request_seconds
        self.inbound: dict[tuple[int, int], InboundStore] = {}
        self.supported: Sequence[PresentationContext] = ()  # by the application entity
        self._at_work: set[int] = set()  # threads that serve a request
        self.acse = GatedACSE(self)
        self.dul = BoundedDUL(self)
        self.dimse = BoundedDIMSE(self)
        # The timers live in the DUL provider that has just been replaced.
        self.acse_timeout = limits.request_seconds
        self.network_timeout = limits.idle_seconds

    def _bind_defaults(self) -> None:
        """Bind what answers, and leave out what formats every PDU for the debug log.

        A server that wants those has them among its own handlers.
        """
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def offer(self, requested: Collection[str]) -> None:
        """Support what the application entity supports of the abstract syntaxes `requested`.

        Each context is the association's own, for negotiation changes it. A node has some two
        hundred; to copy those nobody has asked for would take a fifth of a short association.
        """
        self.acceptor.supported_contexts = [
            _own(context) for context in self.supported if context.abstract_syntax in requested
        ]

    @property
    def in_progress(self) -> bool:
        """Return True while a request is being received or served."""
        return bool(self._at_work) or bool(self.inbound)

    @property
    def bounded_socket(self) -> Any:
        """Return the `BoundedSocket` below."""
        return self.dul.socket

    @property
    def bounded_dimse(self) -> BoundedDIMSE:
        """Return the message layer, as what it is."""
        return cast(BoundedDIMSE, self.dimse)

    @property
    def reads_directly(self) -> bool:
        """Whether nobody wants to see the PDUs of the peer."""
        handlers = self._handlers.get
        return not (
            handlers(evt.EVT_DATA_RECV)
            or handlers(evt.EVT_PDU_RECV)
            or handlers(evt.EVT_FSM_TRANSITION)
        )

    @property
    def takes_fast_lane(self) -> bool:
        """Whether a C-STORE may be served without pynetdicom: nobody is there to see it.

        The plug-ins must have been told of the association, and requests before this one must
        have been answered, for both happen in another thread.
        """
        handlers = self._handlers.get
        return (
            not self.host.tees
            and not self._at_work
            and not self.inbound
            and self.dimse.msg_queue.empty()
            and self.reads_directly
            and not any(map(handlers, _SHOWS_MESSAGES))
            and self.host.serves(handlers(evt.EVT_C_STORE))
            and self._takes_answers_whole
            and self.announced.wait(_ANNOUNCING)
        )

    @cached_property
    def _takes_answers_whole(self) -> bool:
        """Whether the peer's Maximum Length (PS3.8 D.1) has room for any C-STORE-RSP; 0: no limit.

        pynetdicom cuts it up where it has not.
        """
        longest = self.requestor.maximum_length or 0
        return not 0 < longest < LONGEST_ANSWER

    def fail(self, exc: Exception) -> None:
        """Abort because of what the peer sent (Evt19), and keep the reason."""
        if self.failure:
            return  # what follows a fault is not another one
        known = isinstance(exc, Refused)
        self.failure = str(exc) if known else f"{type(exc).__name__} while reading"
        logger.warning(
            "association %s aborted: %s", self.connection.id[:8], self.failure,
            exc_info=None if known else exc,
        )  # fmt: skip
        self.dul.event_queue.put("Evt19")
        cast(BoundedDUL, self.dul).release_waiting()

    def accepted(self, context_id: int) -> PresentationContext:
        """Return the presentation context with this ID.

        Raises
        ------
        ProtocolFault
            It was not accepted.
        """
        try:
            return self._accepted_cx[context_id]
        except KeyError:
            raise ProtocolFault(f"presentation context {context_id} was not accepted") from None

    def begin_store(
        self, context_id: int, request: StoreRequest, message: C_STORE_RQ | None = None
    ) -> InboundStore:
        """Open a C-STORE whose command has just been read.

        Parameters
        ----------
        context_id : int
        request : StoreRequest
        message : C_STORE_RQ, optional
            Where pynetdicom has decoded it, and collects the data set.

        Raises
        ------
        ProtocolFault
            Its presentation context was not accepted, or too many requests are waiting.
        """
        key = (context_id, request.message_id)
        context = self.accepted(context_id)
        if key in self.inbound or len(self.inbound) >= self.limits.outstanding:
            raise ProtocolFault("more requests outstanding than negotiated (PS3.7 D.3.3.3)")
        limit, memory = self.limits.instance_length, None
        if self.host.tees:
            limit = min(limit, self.limits.memory_length)
            if message is not None and message._data_set_file is None:
                memory = self.host.memory
        inbound = InboundStore(
            self.host.new_store(
                self,
                request.sop_class,
                request.sop_instance,
                str(context.transfer_syntax[0]),
                request.message_id,
            ),
            limit,
            memory,
        )
        self.inbound[key] = inbound
        if cast("SecureServer", self._server).draining:
            inbound.refuse(OperationRefused("the node is stopping", status=0xA700))
        else:
            self.host.store_started(inbound, message, str(context.abstract_syntax))
        return inbound

    def serve_inbound(self, inbound: InboundStore, key: tuple[int, int]) -> int:
        """Serve a C-STORE of the fast lane in the thread that received it; return its status.

        Parameters
        ----------
        inbound : InboundStore
            Complete.
        key : (int, int)
            Presentation context ID and message ID.
        """
        me = threading.get_ident()
        self._at_work.add(me)
        try:
            del self.inbound[key]  # before the answer: the message ID is free for the peer then
            return self.host.store(inbound)
        finally:
            self._at_work.discard(me)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Let a request through the gates, then let pynetdicom serve it."""
        if isinstance(msg, C_CANCEL):
            return  # pynetdicom keeps ten; one more has nothing left to cancel
        # pynetdicom serves each N-EVENT-REPORT in a thread of its own, however many come.
        me = threading.get_ident()
        self._at_work.add(me)
        try:
            if len(self._at_work) > self.limits.outstanding:
                raise ProtocolFault("more requests outstanding than negotiated (PS3.7 D.3.3.3)")
            if not msg.is_valid_request and msg.MessageIDBeingRespondedTo is None:
                # pynetdicom would leave it unanswered, and the peer waiting.
                raise ProtocolFault(f"{msg.msg_type} without a mandatory field (PS3.7 9.1, 10.1)")
            refusal = self.host.operation(self, msg, context_id)
            if refusal is not None:
                self._answer(msg, context_id, refusal)
            elif isinstance(msg, C_STORE) and msg.is_valid_request:
                self._serve_store(msg, context_id)
            else:
                super()._serve_request(msg, context_id)
        except Exception as exc:
            self.fail(exc)
            cast(BoundedDUL, self.dul).wake()
        finally:
            self._at_work.discard(me)

    def _serve_store(self, msg: C_STORE, context_id: int) -> None:
        """Serve a C-STORE as storage, whatever its SOP class: the gates have seen a C-STORE.

        pynetdicom would pick the service by the SOP class, and has none for private ones.
        """
        service = uid_to_service_class(str(msg.AffectedSOPClassUID))
        if not issubclass(service, StorageServiceClass):
            service = StorageServiceClass
        self._is_paused = True
        try:
            service(self).SCP(msg, self._accepted_cx[context_id])
        finally:
            self._is_paused = False

    def _answer(self, msg: Any, context_id: int, refusal: OperationRefused) -> None:
        """Send the response that refuses `msg` (PS3.7 C.5)."""
        response = type(msg)()
        if type(response) not in _RSP_TO_MESSAGE or getattr(msg, "MessageID", None) is None:
            self.abort()
            return
        response.MessageID = msg.MessageID
        response.MessageIDBeingRespondedTo = msg.MessageID
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
            requested = keyword.replace("Affected", "Requested")
            value = getattr(msg, keyword, None) or getattr(msg, requested, None)
            if value is not None and hasattr(response, keyword):
                setattr(response, keyword, value)
        response.Status = refusal.status
        self.dimse.send_msg(response, context_id)

    def run_reactor(self) -> None:
        """Run the association to its end and tell the host, whatever happened."""
        with ExitStack() as ends:  # from the last to the first, whatever one of them raises
            if self._server is not None:
                ends.callback(cast("SecureServer", self._server).association_ended, self)
            ends.callback(self.host.closed, self)
            ends.callback(self._break_off_stores)
            ends.callback(self.bounded_socket.close_wake)
            ends.callback(self._end_transport)
            try:
                super().run_reactor()
            except Exception as exc:  # ours, or of pynetdicom over what the peer sent
                logger.error("association %s ended", self.connection.id[:8], exc_info=exc)
                self.failure = self.failure or f"internal error ({type(exc).__name__})"

    def _end_transport(self) -> None:
        if self.failure:
            # pynetdicom's kill() has waited for an A-ABORT to leave, but where there never was
            # a request nobody has called it.
            cast(BoundedDUL, self.dul).settled.wait(_LAST_WORD_SECONDS)
        self.dul.kill_dul()
        self.bounded_socket._shutdown_socket()
        if self.dul.is_alive():
            self.dul.join(timeout=self.limits.pdu_seconds)

    def _break_off_stores(self) -> None:
        for inbound in list(self.inbound.values()):
            self.host.store_broke_off(inbound)


def _own(context: PresentationContext) -> PresentationContext:
    """Return a copy for one association; a deep one would check every UID again."""
    own = copy(context)
    own._transfer_syntax = list(context._transfer_syntax)
    return own
