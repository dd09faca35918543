"""The DICOM upper layer (PS3.8) without polling, and for an acceptor within bounds."""

from __future__ import annotations

import logging
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from pynetdicom import pdu as pdus
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError

from dicom_secure_node.node.buffered import BufferedSocket
from dicom_secure_node.node.limits import ProtocolFault
from dicom_secure_node.node.messages import RingingQueue
from dicom_secure_node.node.request import check_request, without_reserved_identities
from dicom_secure_node.node.store_codec import P_DATA_TF, PDU_HEADER, PDV_HEADER
from dicom_secure_node.node.timer import SteadyTimer
from dicom_secure_node.node.transport import BoundedSocket

if TYPE_CHECKING:
    from dicom_secure_node.node.association import SecureAssociation

logger = logging.getLogger(__name__)

BROKEN = "connection broke"
_LINGER = 1.0  # seconds a peer gets to read our last word and close

_A_ASSOCIATE_RQ, _A_ABORT = 0x01, 0x07
_PDU, _PDV = struct.Struct(">BxL"), struct.Struct(">LBB")
_NOTHING = memoryview(b"")


class WokenDUL(DULServiceProvider):
    """`DULServiceProvider` over a `BoundedSocket`: it waits for work instead of polling."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self._idle_timer = SteadyTimer(self._idle_timer.timeout)
        self.artim_timer = SteadyTimer(self.artim_timer.timeout)
        self._ends_at: float | None = None
        self.settled = threading.Event()  # the connection is over, and our last word has left

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
        """Run until the association's end: pynetdicom's loop, without its naps.

        What waits is `BoundedSocket.ready`. An answer of ours may cross the peer's abort;
        pynetdicom's state machine has no such transition and would end this thread with a
        traceback.
        """
        try:
            self._loop()
        finally:
            self.settled.set()

    def _loop(self) -> None:
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        while not self._kill_thread:
            if self.artim_timer.expired:
                self.event_queue.put("Evt18")
            try:
                if not self._process_recv_primitive() and self._is_transport_event():
                    self._idle_timer.restart()
            except Exception:
                logger.exception("association aborted because of an error of our own")
                self._break_off()
                return
            if not self.event_queue.queue:
                continue
            try:
                self.state_machine.do_action(self.event_queue.get())
                if self.state_machine.current_state == "Sta1":
                    self.settled.set()
            except InvalidEventError:
                self.event_queue.put("Evt17")
                logger.debug("an answer came after the association's end", exc_info=True)
                return

    def _break_off(self) -> None:
        """Send an A-ABORT past the state machine, which nobody knows the state of now."""
        abort = pdus.A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = 0x02, 0x00  # service provider (PS3.8 9.3.8)
        if self.socket is not None:
            self.socket.send(abort.encode())
        self.assoc.is_aborted = True
        self.assoc.is_established = False
        self.assoc._kill = True
        self._kill_thread = True

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        """Return a PDU and its event; what is wrong in it shows here, not in the state machine."""
        pdu, event = super()._decode_pdu(bytestream)
        if not isinstance(pdu, pdus.P_DATA_TF):
            cast(Any, pdu).to_primitive()
        return pdu, event

    def _process_recv_primitive(self) -> bool:
        """Queue the event of what the user wants sent; after the end nothing is."""
        waiting = self.to_provider_queue.queue
        if self.state_machine.current_state == "Sta13":
            waiting.clear()
        return bool(waiting) and super()._process_recv_primitive()

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

    def _read_pdu_data(self) -> None:
        """Read one PDU, or all the data that is at hand, or say why the association ends."""
        try:
            self._read_next()
            while self._goes_on():
                self._idle_timer.restart()
                self._read_next()
        except ProtocolFault as exc:
            self.assoc.fail(exc)
        except TimeoutError:
            self.close("time-out in the middle of a PDU")
        except OSError as exc:
            self.close(f"{BROKEN}: {exc.strerror or type(exc).__name__}")

    def _goes_on(self) -> bool:
        """Whether the peer has sent more and there is nothing else to do."""
        return (
            self.assoc.bounded_socket.at_hand > 0
            and not self._kill_thread
            and not self.event_queue.queue
            and not self.to_provider_queue.queue
            and self.state_machine.current_state == "Sta6"
        )

    def _read_next(self) -> None:
        limits = self.assoc.limits
        if self.is_open:
            self.assoc.bounded_socket.deadline = time.monotonic() + limits.pdu_seconds
            self._read_bounded(limits.pdu_length)
        else:
            self.assoc.bounded_socket.deadline = self.assoc.request_deadline
            self._read_bounded(limits.request_length)

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
        header = sock.peek(PDU_HEADER)
        if len(header) < PDU_HEADER:
            self.close("closed in the middle of a PDU" if header else "closed by peer")
            return
        pdu_type, length = _PDU.unpack(header)
        if not 1 <= pdu_type <= 7:
            raise ProtocolFault(f"unknown PDU type 0x{pdu_type:02X} (PS3.8 9.3.1)")
        if not self.is_open and pdu_type == _A_ABORT:
            self.close("closed by peer")  # AA-2: no answer (PS3.8 Table 9-10)
            return
        if not self.is_open and pdu_type != _A_ASSOCIATE_RQ:
            raise ProtocolFault(f"PDU type 0x{pdu_type:02X}, wanted A-ASSOCIATE-RQ (PS3.8 9.2)")
        # Some products announce the PDV length and leave the PDV header out of the sum.
        if length > limit + PDV_HEADER:
            raise ProtocolFault(f"PDU of {length} bytes, at most {limit} allowed (PS3.8 9.3.1)")
        if pdu_type == P_DATA_TF and self._reads_directly:
            sock.skip(PDU_HEADER)
            self._take_data(sock, length)
            return
        pdu = bytearray(PDU_HEADER + length)
        if sock.recv_exactly(memoryview(pdu)) < len(pdu):
            self.close("closed in the middle of a PDU")
        elif pdu_type == _A_ASSOCIATE_RQ:
            body = memoryview(pdu)[PDU_HEADER:]
            check_request(body)
            request, self.assoc.reserved_identities = without_reserved_identities(body)
            # Only bit 0 of the protocol version counts (PS3.8 9.3.2); pynetdicom wants no other.
            version = request[:2] if not request[1] & 0x01 else b"\0\1"
            self._decode_and_queue(
                pdu[:2] + struct.pack(">L", len(request)) + version + request[2:]
            )
            if not version[1] & 0x01:
                # Its state machine rejects it (AE-6), and the user never hears of it.
                self.assoc.failure = f"protocol version 0x{version.hex()} (PS3.8 9.3.2)"
                self.release_waiting()
            self.is_open = True
        else:
            self._decode_and_queue(pdu)

    @property
    def _reads_directly(self) -> bool:
        return self.state_machine.current_state == "Sta6" and self.assoc.reads_directly

    def _take_data(self, sock: BufferedSocket, left: int) -> None:
        """Hand over the PDVs of a P-DATA-TF PDU in pieces, as they come (PS3.8 9.3.5)."""
        receive = self.assoc.bounded_dimse.receive_piece
        while left:
            if left < PDV_HEADER:
                raise ProtocolFault("truncated presentation data value (PS3.8 9.3.5.1)")
            header = sock.peek(PDV_HEADER)
            if len(header) < PDV_HEADER:
                self.close("closed in the middle of a PDU")
                return
            length, context_id, control = _PDV.unpack(header)
            if length < 2 or length + 4 > left:
                raise ProtocolFault(f"presentation data value of {length} bytes (PS3.8 9.3.5.1)")
            sock.skip(PDV_HEADER)
            size, left = length - 2, left - length - 4
            while True:
                piece = sock.some(size) if size else _NOTHING
                if size and not piece:
                    self.close("closed in the middle of a PDU")
                    return
                size -= len(piece)
                if not receive(context_id, control, piece, ends=not size):
                    return
                if not size:
                    break

    def _decode_and_queue(self, pdu: bytearray) -> None:
        try:
            decoded, event = self._decode_pdu(pdu)
        except Exception as exc:
            raise ProtocolFault(f"PDU cannot be decoded: {type(exc).__name__}") from exc
        if isinstance(decoded, pdus.A_ASSOCIATE_RQ) and not self.is_open:  # a second one is a fault
            items = decoded.presentation_context
            self.assoc.offer({str(item.abstract_syntax) for item in items})
        self.event_queue.put(event)
        self._recv_pdu.put(decoded)
