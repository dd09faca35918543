"""The DICOM upper layer (PS3.8) without polling, and for an acceptor within bounds."""

from __future__ import annotations

import logging
import struct
import time
from typing import TYPE_CHECKING, Any, cast

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu import P_DATA_TF

from dicom_secure_node.node.limits import ProtocolFault
from dicom_secure_node.node.messages import RingingQueue
from dicom_secure_node.node.request import check_request, without_reserved_identities
from dicom_secure_node.node.transport import BoundedSocket

if TYPE_CHECKING:
    from dicom_secure_node.node.association import SecureAssociation

logger = logging.getLogger(__name__)

_LINGER = 1.0  # seconds a peer gets to read our last word and close

_A_ASSOCIATE_RQ, _P_DATA_TF = 0x01, 0x04
_SHOWS_PDUS = (evt.EVT_DATA_RECV, evt.EVT_PDU_RECV, evt.EVT_FSM_TRANSITION)


class WokenDUL(DULServiceProvider):
    """`DULServiceProvider` over a `BoundedSocket`: it waits for work instead of polling."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self._run_loop_delay = 0  # `BoundedSocket.ready` waits, and can be woken
        self._ends_at: float | None = None

    def send_pdu(self, primitive: Any) -> None:
        """Queue a primitive and wake the reactor."""
        super().send_pdu(primitive)
        self.wake()

    def kill_dul(self) -> None:
        """Stop the reactor, at once."""
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        """Stop the reactor if it is idle (Sta1), and wait for it without spinning."""
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        self.join()
        return True

    def run_reactor(self) -> None:
        """Run until the association's end.

        An answer of ours may cross the peer's abort. pynetdicom's state machine has no such
        transition and would end this thread with a traceback.
        """
        try:
            super().run_reactor()
        except InvalidEventError:
            self.event_queue.put("Evt17")
            logger.debug("an answer came after the association's end", exc_info=True)

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        """Return a PDU and its event; what is wrong in it shows here, not in the state machine."""
        pdu, event = super()._decode_pdu(bytestream)
        if not isinstance(pdu, P_DATA_TF):
            cast(Any, pdu).to_primitive()
        return pdu, event

    def _process_recv_primitive(self) -> bool:
        """Queue the event of what the user wants sent; after the end nothing is."""
        if self.state_machine.current_state == "Sta13":
            self.to_provider_queue.queue.clear()
            return False
        return super()._process_recv_primitive()

    def _is_transport_event(self) -> bool:
        """Look for what the peer sent.

        Once the association is over (Sta13) the peer may close first, for a moment, and what
        it still sends is dropped. Closing at once with its bytes unread would reset the
        connection, and take the A-ASSOCIATE-RJ or A-ABORT away from it (PS3.8 9.2.3).
        """
        if self.state_machine.current_state != "Sta13" or self.socket is None:
            return super()._is_transport_event()
        sock = cast(BoundedSocket, self.socket)
        if self._ends_at is None:
            self._ends_at = time.monotonic() + _LINGER
        if sock.ready:
            if not sock.drop_some():
                self.event_queue.put("Evt17")
            return True
        if time.monotonic() >= self._ends_at:
            sock.close()
        return False

    def wake(self) -> None:
        """End the reactor's wait for the peer."""
        if self.socket is not None:
            cast(BoundedSocket, self.socket).wake()


class BoundedDUL(WokenDUL):
    """An acceptor's `DULServiceProvider` that bounds each PDU in size and time."""

    assoc: SecureAssociation

    def __init__(self, assoc: SecureAssociation) -> None:
        super().__init__(assoc)
        self.to_user_queue = RingingQueue(assoc.bell)
        self.is_open = False  # an A-ASSOCIATE-RQ has been read
        self._buffer = bytearray()

    def _read_pdu_data(self) -> None:
        """Read one PDU, or say why the association ends."""
        limits = self.assoc.limits
        self.assoc.bounded_socket.deadline = (
            time.monotonic() + limits.pdu_seconds if self.is_open else self.assoc.request_deadline
        )
        try:
            self._read_bounded(limits.pdu_length if self.is_open else limits.request_length)
        except ProtocolFault as exc:
            self.assoc.fail(exc)
        except TimeoutError:
            self.close("time-out in the middle of a PDU")
        except OSError as exc:
            self.close(f"connection broke: {exc.strerror or type(exc).__name__}")

    def close(self, reason: str) -> None:
        """Take the transport as closed (Evt17), for `reason`."""
        self.assoc.failure = self.assoc.failure or reason
        self.assoc.is_lost = True
        self.event_queue.put("Evt17")
        self.release_waiting()

    def release_waiting(self) -> None:
        """Let the association stop waiting for a request that will not come."""
        if not self.is_open:
            self.to_user_queue.put(None)

    def _read_bounded(self, limit: int) -> None:
        sock = self.assoc.bounded_socket
        header = sock.recv(6)
        if len(header) < 6:
            self.close("closed in the middle of a PDU" if header else "closed by peer")
            return
        pdu_type, _, length = struct.unpack(">BBL", header)
        if not 1 <= pdu_type <= 7:
            raise ProtocolFault(f"unknown PDU type 0x{pdu_type:02X} (PS3.8 9.3.1)")
        if not self.is_open and pdu_type != _A_ASSOCIATE_RQ:
            raise ProtocolFault(f"PDU type 0x{pdu_type:02X}, wanted A-ASSOCIATE-RQ (PS3.8 9.2)")
        # Some products announce the PDV length and leave the PDV header out of the sum.
        if length > limit + 6:
            raise ProtocolFault(f"PDU of {length} bytes, at most {limit} allowed (PS3.8 9.3.1)")
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        body = memoryview(self._buffer)[:length]
        if sock.recv_exactly(body) < length:
            self.close("closed in the middle of a PDU")
        elif pdu_type == _A_ASSOCIATE_RQ:
            check_request(body)
            request, self.assoc.reserved_identities = without_reserved_identities(body)
            self._decode_and_queue(header[:2] + struct.pack(">L", len(request)) + request)
            self.is_open = True
        elif pdu_type == _P_DATA_TF and self._reads_directly:
            self._split(body)
        else:
            self._decode_and_queue(bytes(header) + bytes(body))

    @property
    def _reads_directly(self) -> bool:
        if self.state_machine.current_state != "Sta6":
            return False
        return not any(self.assoc.get_handlers(event) for event in _SHOWS_PDUS)

    def _split(self, body: memoryview) -> None:
        """Hand over the PDVs of a P-DATA-TF PDU (PS3.8 9.3.5)."""
        position = 0
        dimse = self.assoc.bounded_dimse
        while position < len(body):
            if len(body) - position < 6:
                raise ProtocolFault("truncated presentation data value (PS3.8 9.3.5.1)")
            length, context_id = struct.unpack_from(">LB", body, position)
            end = position + 4 + length
            if length < 2 or end > len(body):
                raise ProtocolFault(f"presentation data value of {length} bytes (PS3.8 9.3.5.1)")
            if not dimse.receive_fragment(context_id, body[position + 5 : end]):
                return
            position = end

    def _decode_and_queue(self, pdu: bytes) -> None:
        try:
            decoded, event = self._decode_pdu(bytearray(pdu))
        except Exception as exc:
            raise ProtocolFault(f"PDU cannot be decoded: {type(exc).__name__}") from exc
        self.event_queue.put(event)
        self._recv_pdu.put(decoded)
