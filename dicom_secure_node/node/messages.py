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

    def __init__(self, context: StoreContext, limit: int) -> None:
        self.context = context
        self.refusal: Refused | None = None
        self.complete = False
        self._limit = limit
        self._size = 0

    def write(self, data: memoryview, host: PluginHost) -> None:
        """Pass bytes to the body and every sink, unless the C-STORE is refused already."""
        if self.refusal is not None:
            return
        self._size += len(data)
        try:
            if self._size > self._limit:
                raise OperationRefused(f"data set exceeds {self._limit} bytes", status=0xA700)
            if self.context.body is not None:
                self.context.body.write(data)
            for sink in self.context.sinks.values():
                sink.update(data)
        except Exception as exc:
            self.refuse(host.as_refusal(exc, OperationRefused))

    def refuse(self, refusal: Refused) -> None:
        """Remember why, and let the bytes go."""
        self.refusal = refusal
        self.abandon()

    def abandon(self) -> None:
        """Let the bytes go; that this failed changes nothing for the peer."""
        try:
            if self.context.body is not None:
                self.context.body.abandon()
        except Exception:
            logger.exception("%r: bytes could not be let go", self.context.association)


class BoundedDIMSE(DIMSEServiceProvider):
    """`DIMSEServiceProvider` that bounds messages and streams C-STORE data sets."""

    assoc: SecureAssociation

    def __init__(self, assoc: SecureAssociation) -> None:
        super().__init__(assoc)
        self.msg_queue = RingingQueue(assoc.bell)
        self._inbound: InboundStore | None = None
        self._context_id = 0
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
            if not self.receive_fragment(context_id, memoryview(data)):
                return

    def receive_fragment(self, context_id: int, pdv: memoryview) -> bool:
        """Take one presentation data value: message control header and fragment.

        Returns
        -------
        bool
            False when the association is being aborted because of it (PS3.8 E.2).
        """
        try:
            self._receive(context_id, pdv)
        except Exception as exc:
            # pynetdicom's reactor would die of this; ending the association is its job.
            self.assoc.fail(exc)
            return False
        return True

    def _receive(self, context_id: int, pdv: memoryview) -> None:
        if not pdv:
            raise ProtocolFault("empty presentation data value (PS3.8 9.3.5.1)")
        is_command, is_last = pdv[0] & 1, pdv[0] & 2
        if is_command:
            if self._command_done:
                raise ProtocolFault("command fragment inside a data set (PS3.7 6.3.1)")
            self._bound(len(pdv), self.assoc.limits.command_length, "command set")
        elif not self._command_done:
            raise ProtocolFault("data set fragment before its command (PS3.7 6.3.1)")
        elif context_id != self._context_id:
            raise ProtocolFault("message continues on another presentation context (PS3.7 6.3.1)")
        elif self._inbound is not None:
            self._inbound.write(pdv[1:], self.assoc.host)
            tees = self.assoc.host.tees and self._inbound.refusal is None
            if not is_last and not tees:
                return
            pdv = pdv if tees else pdv[:1]
            self._inbound.complete = bool(is_last)
        else:
            self._bound(len(pdv), self.assoc.limits.identifier_length, "data set")
        self._feed(context_id, pdv)
        if not is_last:
            return
        self._length = 0
        if self.message is None:  # pynetdicom has the whole message
            self._inbound, self._command_done = None, False
            if self.msg_queue.qsize() > self.assoc.limits.outstanding:
                raise ProtocolFault("more requests outstanding than negotiated (PS3.7 D.3.3.3)")
        elif is_command:
            self._context_id, self._command_done = context_id, True
            if isinstance(self.message, C_STORE_RQ):
                self._inbound = self.assoc.begin_store(self.message)
        else:
            raise ProtocolFault("message that is no valid DIMSE message (PS3.7 9.3)")

    def _bound(self, count: int, limit: int, what: str) -> None:
        self._length += count
        if self._length > limit:
            raise ProtocolFault(f"{what} longer than {limit} bytes")

    def _feed(self, context_id: int, pdv: memoryview) -> None:
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, bytes(pdv)))
        try:
            super().receive_primitive(primitive)
        except OSError:  # of a temporary file of pynetdicom's
            raise
        except Exception as exc:
            raise ProtocolFault(
                f"message cannot be decoded: {type(exc).__name__} (PS3.7 6.3.1)"
            ) from exc
