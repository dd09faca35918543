"""What a requestor's association stands on: its socket, upper layer and message layer.

Subclasses of pynetdicom's own classes, set on the association before it starts.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pynetdicom import evt
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ABORT_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import T_CONNECT, AddressInformation

from dicom_secure_node.node.outgoing import OutgoingStore, PDURun
from dicom_secure_node.node.store_codec import (
    COMMAND,
    LAST,
    PDU_HEADER,
    PDV_HEADER,
    StoreResponse,
    decode_store_response,
)
from dicom_secure_node.node.transport import BoundedSocket
from dicom_secure_node.node.upper_layer import WokenDUL

if TYPE_CHECKING:
    from dicom_secure_node.node.requestor import RequestorAssociation

_LARGEST_PDU = 262_144  # bytes we put into one PDU, also where the peer sets no limit
_OVERHEAD = 65_536  # bytes; association PDUs may be longer than the announced P-DATA limit
_PDUS_WAITING = 8  # P-DATA between the sender and the wire: bounds the memory of a send
_IDLE = 0.1  # seconds after a request in which another one may find the reactor still paused
_P_DATA_TF = 0x04  # PDU type (PS3.8 9.3.5)
_SENDS_DATA = ("Sta6", "Sta8")  # PS3.8 Table 9-10, Evt9

# Who has bound one of these sees pynetdicom's own primitives and PDUs.
SHOWS_MESSAGES = (
    evt.EVT_DATA_SENT,
    evt.EVT_DATA_RECV,
    evt.EVT_PDU_SENT,
    evt.EVT_PDU_RECV,
    evt.EVT_DIMSE_SENT,
    evt.EVT_DIMSE_RECV,
    evt.EVT_FSM_TRANSITION,
)


class RequestorSocket(BoundedSocket):
    """A socket that is connected already, and remembers why it broke.

    pynetdicom logs what happens to a connection and tells the caller only that it is gone.

    Attributes
    ----------
    failure : Exception or None
        The first error on the connection.
    """

    def __init__(self, assoc: RequestorAssociation, sock: socket.socket, seconds: float) -> None:
        self._given = sock
        super().__init__(assoc, address=AddressInformation.from_tuple(sock.getsockname()))
        self.failure: Exception | None = None
        self.send_seconds = seconds

    def _create_socket(self, address: AddressInformation) -> socket.socket:  # noqa: ARG002
        return self._given

    def connect(self, primitive: T_CONNECT) -> None:
        """Report the connection to the state machine (Evt2): it was made before."""
        self._is_connected = True
        evt.trigger(self.assoc, evt.EVT_CONN_OPEN, {"address": primitive.address_info.as_tuple})
        primitive.result = "Evt2"
        self.provider_queue.put(primitive)
        self._ready.set()

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes` within the time for one PDU, or fewer when the peer closed."""
        self.deadline = time.monotonic() + self.send_seconds
        try:
            # pynetdicom reads as much as the peer announces, up to 4 GiB.
            if nr_bytes > (self.assoc.requestor.maximum_length or 0) + _OVERHEAD:
                raise ConnectionAbortedError(f"announced a PDU of {nr_bytes} bytes")
            data = super().recv(nr_bytes)
            if nr_bytes == PDU_HEADER and data and not 1 <= data[0] <= 7:
                tls = " but TLS" if data[0] in (0x15, 0x16) else ""
                raise ConnectionAbortedError(f"the answer is no DICOM PDU{tls}")
            return data
        except OSError as exc:
            self.failure = self.failure or exc
            raise

    def has_news(self) -> bool:
        """Return whether there is something to read, or an end to notice; never waits."""
        sock = self.socket
        if sock is None or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            return True
        try:
            poll = select.poll()
            poll.register(sock.fileno(), select.POLLIN)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True

    def send(self, bytestream: bytes) -> None:
        """Send one PDU whole, or remember why not and report the connection closed (Evt17)."""
        if self.send_pdus(bytestream):
            evt.trigger(self.assoc, evt.EVT_DATA_SENT, {"data": bytestream})

    def send_pdus(self, pdus: bytes | memoryview) -> bool:
        """Send PDUs whole and tell nobody; return False where the connection is closed now."""
        try:
            if self.socket is None:
                raise ConnectionResetError("the connection is closed")
            self.socket.settimeout(self.send_seconds)
            self.socket.sendall(pdus)
            return True
        except OSError as exc:
            self.failure = self.failure or exc
            self.event_queue.put("Evt17")
            return False

    def cut(self) -> None:
        """End whatever is blocked in this connection."""
        sock = self.socket
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # gone already


class Checkpoint(threading.Event):
    """Lets pynetdicom's reactor pass, after a request only when no other one follows at once.

    The reactor looks a thousand times a second whether it is to pause, so pausing it costs a
    millisecond: more than a small instance takes. Whoever has it paused calls `clear`, as
    pynetdicom does, and `set` or `set_soon` in the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._deciding = threading.Lock()
        self._due: float | None = None
        self.set()

    def clear(self) -> None:
        """Pause the reactor, or keep it paused."""
        with self._deciding:
            self._due = None
            super().clear()

    def set_soon(self) -> None:
        """Let it pass in a moment; `pass_if_due` has to be called then."""
        with self._deciding:
            self._due = time.monotonic() + _IDLE

    def pass_if_due(self, at_once: bool = False) -> None:
        """Let it pass if the moment has come, or `at_once`; not where a request is under way."""
        with self._deciding:
            if self._due is not None and (at_once or time.monotonic() >= self._due):
                self._due = None
                self.set()


class _PlainAnswer(NamedTuple):
    """A C-STORE-RSP in one PDU, in the place of pynetdicom's PDU and primitive."""

    context_id: int
    value: bytes  # of the presentation data value, message control header included
    response: StoreResponse

    def to_primitive(self) -> _PlainAnswer:
        """Return itself: pynetdicom's state machine hands on what this returns."""
        return self


class AssociationOver(Exception):
    """Nothing more can be sent; `RequestorAssociation.loss` knows why."""


class RequestorDUL(WokenDUL):
    """A requestor's `DULServiceProvider` that lets only so much data wait for the wire.

    pynetdicom's queue takes a whole file at once, however large, and however slow the peer.

    Attributes
    ----------
    abort_received : A_ABORT_RQ or None
        The peer's A-ABORT PDU.
    aborting : bool
        Data that waits is dropped, so that an A-ABORT can leave.
    has_ended : bool
        Nothing is sent or received any more.
    """

    assoc: RequestorAssociation

    def __init__(self, assoc: RequestorAssociation) -> None:
        super().__init__(assoc)
        self.abort_received: A_ABORT_RQ | None = None
        self.aborting = False
        self._room = threading.Semaphore(_PDUS_WAITING)
        self._run: PDURun | None = None
        self._has_looked = False
        self.has_ended = False

    def send_store(self, store: OutgoingStore) -> None:
        """Queue a C-STORE-RQ; the queue keeps the order among all that is sent.

        Raises
        ------
        AssociationOver
            It ended before.
        """
        self.to_provider_queue.put(cast(Any, store))
        self.wake()
        if self.has_ended:
            store.over.set()
            raise AssociationOver

    def run_for(self, command: bytes) -> PDURun | None:
        """Return the buffer for PDUs, None where `command` does not fit into one of them."""
        if self._run is None:
            self._run = PDURun(self.assoc.dimse.maximum_pdu_size)
        return self._run if self._run.takes(command) else None

    def send_pdu(self, primitive: Any) -> None:
        """Queue a primitive; P-DATA waits for room.

        Raises
        ------
        AssociationOver
            It ended meanwhile.
        """
        if isinstance(primitive, P_DATA):
            while not self._room.acquire(timeout=0.2):
                if self._kill_thread or not self.is_alive():
                    raise AssociationOver
        super().send_pdu(primitive)

    def run_reactor(self) -> None:
        """Run until the association's end, and tell who waits for a response."""
        try:
            super().run_reactor()
        finally:
            self.has_ended = True
            for waiting in list(self.to_provider_queue.queue):
                if isinstance(waiting, OutgoingStore):
                    waiting.over.set()
            self.assoc.dimse.msg_queue.put((None, None))

    def kill_dul(self) -> None:
        """Stop the reactor, and let the association's notice."""
        super().kill_dul()
        self.assoc.checkpoint.pass_if_due(at_once=True)

    def _process_recv_primitive(self) -> bool:
        self.assoc.checkpoint.pass_if_due()
        waiting: Any = self.to_provider_queue.queue
        while waiting:
            first = waiting[0]  # only this thread takes it away
            if isinstance(first, OutgoingStore):
                if not self.aborting and self.state_machine.current_state in _SENDS_DATA:
                    return self._go_on(first)
            elif not (self.aborting and isinstance(first, P_DATA)):
                return super()._process_recv_primitive()
            self._drop_first()
        return False

    def _is_transport_event(self) -> bool:
        if self._ends_at is None and self.state_machine.current_state == "Sta13":
            # A peer that is at work on our last request reads the A-ABORT only after it.
            self._ends_at = time.monotonic() + self.assoc.patience.abort
        if super()._is_transport_event():
            return True
        # Woken for a C-STORE, most of the time. pynetdicom sleeps between two looks at the
        # queue, which even for no time at all takes as long as sending a small instance.
        return self._has_store() and self._process_recv_primitive()

    def _has_store(self) -> bool:
        waiting: Any = self.to_provider_queue.queue
        return bool(waiting) and isinstance(waiting[0], OutgoingStore)

    def _drop_first(self) -> None:
        dropped: Any = self.to_provider_queue.get_nowait()
        if isinstance(dropped, OutgoingStore):
            dropped.over.set()
        else:
            self._room.release()

    def _go_on(self, store: OutgoingStore) -> bool:
        """Send the next PDUs of a C-STORE-RQ; return False where the peer comes first.

        An abort is noticed in the middle. A response before we are done is kept for later:
        like DCMTK's ``storescu`` we send the whole request first (PS3.7 6.3.1).
        """
        assert self._run is not None
        connection = self.assoc.connection
        while not store.at_end:
            if self.aborting:
                return True
            if store.begun and not self._has_looked and connection.has_news():
                self._has_looked = True
                return False
            self._has_looked = False
            try:
                pdus = store.next(self._run)
            except OSError as exc:
                store.error = exc
                break
            if not connection.send_pdus(pdus):
                return True
        else:
            store.sent_at = time.monotonic()
        self._drop_first()
        if store.error is not None:
            self.assoc.dimse.msg_queue.put((None, None))
        elif connection.ready:  # the response, without going round the reactor's loop for it
            self._read_pdu_data()
            self._idle_timer.restart()
        return True

    def _send(self, pdu: Any) -> None:
        super()._send(pdu)
        if isinstance(pdu, P_DATA_TF):
            self._room.release()

    def _decode_pdu(self, bytestream: bytearray) -> Any:
        answer = None if self.assoc.shows_messages else _plain_answer(bytestream)
        if answer is not None:
            return answer, "Evt10"
        pdu, event = super()._decode_pdu(bytestream)
        if isinstance(pdu, A_ABORT_RQ):
            self.abort_received = pdu
        if not isinstance(pdu, P_DATA_TF):
            self.assoc.checkpoint.pass_if_due(at_once=True)
        return pdu, event


def _plain_answer(pdu: bytearray) -> _PlainAnswer | None:
    """Return the C-STORE-RSP that `pdu` is, None where pynetdicom has to look."""
    if len(pdu) < PDU_HEADER + PDV_HEADER:
        return None
    kind, length, context_id, control = struct.unpack_from(">BxxxxxLBB", pdu)
    if (kind, control, length) != (_P_DATA_TF, COMMAND | LAST, len(pdu) - PDU_HEADER - 4):
        return None
    response = decode_store_response(memoryview(pdu)[PDU_HEADER + PDV_HEADER :])
    if response is None:
        return None
    return _PlainAnswer(context_id, bytes(pdu[PDU_HEADER + PDV_HEADER - 1 :]), response)


class RequestorDIMSE(DIMSEServiceProvider):
    """`DIMSEServiceProvider` that keeps responses for who waits, and bounds what it sends."""

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message; without `block` only a request.

        The reactor asks without, and takes a response for a fault of the peer. pynetdicom
        pauses it while a response is due, but looks at a flag that may be one step behind.
        """
        if not block:
            with self.msg_queue.mutex:
                head = self.msg_queue.queue[0][1] if self.msg_queue.queue else None
            if head is None or getattr(head, "MessageIDBeingRespondedTo", None) is not None:
                return None, None
        return super().get_msg(block)

    def receive_primitive(self, primitive: Any) -> None:
        """Take P-DATA as pynetdicom's state machine hands it over."""
        if not isinstance(primitive, _PlainAnswer):
            super().receive_primitive(primitive)
        elif self.message is not None:  # in the middle of another message: pynetdicom judges
            original = P_DATA()
            original.presentation_data_value_list.append((primitive.context_id, primitive.value))
            super().receive_primitive(original)
        else:
            response = C_STORE()
            response.MessageIDBeingRespondedTo = primitive.response.message_id
            response.Status = primitive.response.status
            self.msg_queue.put((primitive.context_id, response))

    @property
    def maximum_pdu_size(self) -> int:
        """Bytes of one P-DATA-TF PDU: what the peer takes, within reason."""
        return min(super().maximum_pdu_size or _LARGEST_PDU, _LARGEST_PDU)
