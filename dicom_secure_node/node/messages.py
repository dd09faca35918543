"""DIMSE messages within bounds; the data set of a C-STORE streams to where it will stay."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA

from dicom_secure_node.errors import OperationRefused, Refused
from dicom_secure_node.node.context import StoreContext
from dicom_secure_node.node.limits import ProtocolFault
from dicom_secure_node.node.memory import MemoryBudget
from dicom_secure_node.node.store_codec import (
    COMMAND,
    LAST,
    StoreRequest,
    command_pdu,
    decode_store_request,
    encode_store_response,
)

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from dicom_secure_node.node.association import SecureAssociation
    from dicom_secure_node.node.host import PluginHost


_NAP = 0.1  # seconds: how late the reactor may notice that it is to stop


class RingingQueue(queue.Queue[Any]):
    """A queue that rings a bell for whoever waits for more than one."""

    def __init__(self, bell: threading.Event) -> None:
        super().__init__()
        self._bell = bell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put `item` and ring."""
        super().put(item, block, timeout)
        self._bell.set()


class InboundStore:
    """A C-STORE being received: its context, where the bytes go, and whether it is refused.

    Once refused, the rest of the data set is read and dropped, so that the peer gets a status
    instead of a broken connection.
    """

    def __init__(
        self, context: StoreContext, limit: int, memory: MemoryBudget | None = None
    ) -> None:
        self.context = context
        self.refusal: Refused | None = None
        self._limit = limit
        self._size = 0
        self._memory = memory  # where it is held in memory
        self._held = 0

    def write(self, data: memoryview, host: PluginHost) -> None:
        """Pass bytes to the body and every sink, unless the C-STORE is refused already."""
        if self.refusal is not None:
            return
        self._size += len(data)
        try:
            if self._size > self._limit:
                raise OperationRefused(f"data set exceeds {self._limit} bytes", status=0xA700)
            if self._memory is not None:
                self._hold(self._memory, len(data))
            if self.context.body is not None:
                self.context.body.write(data)
            for sink in self.context.sinks.values():
                sink.update(data)
        except Exception as exc:
            self.refuse(host.as_refusal(exc, OperationRefused))

    def _hold(self, memory: MemoryBudget, count: int) -> None:
        if not memory.take(count):
            raise OperationRefused("too many instances are held in memory", status=0xA700)
        self._held += count

    def refuse(self, refusal: Refused) -> None:
        """Remember why, and let the bytes go."""
        self.refusal = refusal
        self.abandon()

    def abandon(self) -> None:
        """Let the bytes go; that this failed changes nothing for the peer."""
        if self._memory is not None:
            self._memory.give_back(self._held)
            self._held = 0
        try:
            if self.context.body is not None:
                self.context.body.abandon()
        except Exception:
            logger.exception("%r: bytes could not be let go", self.context.association)


class BoundedDIMSE(DIMSEServiceProvider):
    """`DIMSEServiceProvider` that bounds messages and streams C-STORE data sets.

    A C-STORE takes the fast lane where nobody but our plug-ins wants to see it: its command is
    decoded by `store_codec`, it is served in the thread that received it, and its answer leaves
    at once. Everything else is pynetdicom's.
    """

    assoc: SecureAssociation

    def __init__(self, assoc: SecureAssociation) -> None:
        super().__init__(assoc)
        self.msg_queue = RingingQueue(assoc.bell)
        self._inbound: InboundStore | None = None
        self._request: StoreRequest | None = None  # of an inbound one in the fast lane
        self._context_id = 0
        self._command = b""  # as far as it has come
        self._command_done = False
        self._length = 0

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message.

        The association's reactor asks without `block`, a thousand times a second. It has
        nothing to do until a message or a primitive is there, so it may as well wait.
        """
        if not block and self.msg_queue.empty() and self.dul.to_user_queue.empty():
            self.assoc.bell.wait(_NAP)
            self.assoc.bell.clear()
        return super().get_msg(block)

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take a P-DATA primitive as pynetdicom's state machine hands it over."""
        for context_id, data in primitive.presentation_data_value_list:
            if not data:
                self.assoc.fail(ProtocolFault("empty presentation data value (PS3.8 9.3.5.1)"))
                return
            if not self.receive_piece(context_id, data[0], memoryview(data)[1:], ends=True):
                return

    def receive_piece(self, context_id: int, control: int, data: memoryview, *, ends: bool) -> bool:
        """Take the next piece of a presentation data value.

        Parameters
        ----------
        context_id, control : int
            Presentation context ID and message control header (PS3.8 E.2).
        data : memoryview
            Good for the time of the call.
        ends : bool
            The presentation data value ends with it.

        Returns
        -------
        bool
            False when the association is being aborted because of it (PS3.8 E.2).
        """
        try:
            self._receive(context_id, control, data, ends)
        except Exception as exc:
            # pynetdicom's reactor would die of this; ending the association is its job.
            self.assoc.fail(exc)
            return False
        return True

    def _receive(self, context_id: int, control: int, data: memoryview, ends: bool) -> None:
        is_last = ends and control & LAST
        if control & COMMAND:
            if self._command_done:
                raise ProtocolFault("command fragment inside a data set (PS3.7 6.3.1)")
            self._bound(len(data), self.assoc.limits.command_length, "command set")
            self._command += data
            if is_last:
                self._take_command(context_id)
            return
        if not self._command_done:
            raise ProtocolFault("data set fragment before its command (PS3.7 6.3.1)")
        if context_id != self._context_id:
            raise ProtocolFault("message continues on another presentation context (PS3.7 6.3.1)")
        inbound = self._inbound
        if inbound is None:
            self._bound(len(data), self.assoc.limits.identifier_length, "data set")
        else:
            inbound.write(data, self.assoc.host)
            if self._request is not None:
                if is_last:
                    self._end_of_message()
                    self._serve(inbound, self._request)
                return
            if not self.assoc.host.tees or inbound.refusal is not None:
                data = data[:0]  # it is not pynetdicom that keeps it
        if data or is_last:
            self._feed(context_id, LAST if is_last else 0, data)
        if is_last:
            self._end_of_message()
            self._demand_message()

    def _take_command(self, context_id: int) -> None:
        command, self._command = self._command, b""
        self._length = 0
        self._context_id, self._command_done = context_id, True
        self._request = decode_store_request(command) if self.assoc.takes_fast_lane else None
        if self._request is not None:
            self._inbound = self.assoc.begin_store(context_id, self._request)
            return
        self._feed(context_id, COMMAND | LAST, memoryview(command))
        if self.message is None:  # pynetdicom has the whole message
            self._end_of_message()
        elif isinstance(self.message, C_STORE_RQ):
            self._inbound = self.assoc.begin_store(
                context_id, _request_of(self.message), self.message
            )

    def _end_of_message(self) -> None:
        self._length = 0
        self._inbound, self._command_done = None, False
        if self.msg_queue.qsize() > self.assoc.limits.outstanding:
            raise ProtocolFault("more requests outstanding than negotiated (PS3.7 D.3.3.3)")

    def _demand_message(self) -> None:
        if self.message is not None:
            raise ProtocolFault("message that is no valid DIMSE message (PS3.7 9.3)")

    def _serve(self, inbound: InboundStore, request: StoreRequest) -> None:
        """Let the gates decide on a C-STORE that is complete, and answer it."""
        status = self.assoc.serve_inbound(inbound, (self._context_id, request.message_id))
        answer = encode_store_response(request, status)
        self.assoc.bounded_socket.send(command_pdu(self._context_id, answer))

    def _bound(self, count: int, limit: int, what: str) -> None:
        self._length += count
        if self._length > limit:
            raise ProtocolFault(f"{what} longer than {limit} bytes")

    def _feed(self, context_id: int, control: int, data: memoryview) -> None:
        """Hand a fragment to pynetdicom."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, bytes((control,)) + data))
        super().receive_primitive(primitive)


def _request_of(message: C_STORE_RQ) -> StoreRequest:
    """Return what the gates want to know of a command pynetdicom has decoded."""
    command = message.command_set
    return StoreRequest(
        int(command.get("MessageID", 0) or 0),
        str(command.get("AffectedSOPClassUID", "") or ""),
        str(command.get("AffectedSOPInstanceUID", "") or ""),
        0,
    )
