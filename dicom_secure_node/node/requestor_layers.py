"""What a requestor's association stands on: its socket, upper layer and message layer.

Subclasses of pynetdicom's own classes, set on the association before it starts.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from pynetdicom import evt
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import T_CONNECT, AddressInformation

from dicom_secure_node.node.transport import BoundedSocket
from dicom_secure_node.node.upper_layer import WokenDUL

if TYPE_CHECKING:
    from dicom_secure_node.node.requestor import RequestorAssociation

_LARGEST_PDU = 262_144  # bytes we put into one PDU, also where the peer sets no limit
_PDU_HEADER = 6  # bytes (PS3.8 9.3.1)
_OVERHEAD = 65_536  # bytes; association PDUs may be longer than the announced P-DATA limit
_PDUS_WAITING = 8  # P-DATA between the sender and the wire: bounds the memory of a send


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
            if nr_bytes == _PDU_HEADER and data and not 1 <= data[0] <= 7:
                tls = " but TLS" if data[0] in (0x15, 0x16) else ""
                raise ConnectionAbortedError(f"the answer is no DICOM PDU{tls}")
            return data
        except OSError as exc:
            self.failure = self.failure or exc
            raise

    def send(self, bytestream: bytes) -> None:
        """Send one PDU whole, or remember why not and report the connection closed (Evt17)."""
        try:
            if self.socket is None:
                raise ConnectionResetError("the connection is closed")
            self.socket.settimeout(self.send_seconds)
            self.socket.sendall(bytestream)
            evt.trigger(self.assoc, evt.EVT_DATA_SENT, {"data": bytestream})
        except OSError as exc:
            self.failure = self.failure or exc
            self.event_queue.put("Evt17")

    def cut(self) -> None:
        """End whatever is blocked in this connection."""
        sock = self.socket
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # gone already


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
    """

    assoc: RequestorAssociation

    def __init__(self, assoc: RequestorAssociation) -> None:
        super().__init__(assoc)
        self.abort_received: A_ABORT_RQ | None = None
        self.aborting = False
        self._room = threading.Semaphore(_PDUS_WAITING)

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

    def _process_recv_primitive(self) -> bool:
        waiting = self.to_provider_queue.queue
        while self.aborting and waiting and isinstance(waiting[0], P_DATA):
            self.to_provider_queue.get_nowait()
            self._room.release()
        return super()._process_recv_primitive()

    def _send(self, pdu: Any) -> None:
        super()._send(pdu)
        if isinstance(pdu, P_DATA_TF):
            self._room.release()

    def _decode_pdu(self, bytestream: bytearray) -> Any:
        pdu, event = super()._decode_pdu(bytestream)
        if isinstance(pdu, A_ABORT_RQ):
            self.abort_received = pdu
        return pdu, event


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

    @property
    def maximum_pdu_size(self) -> int:
        """Bytes of one P-DATA-TF PDU: what the peer takes, within reason."""
        return min(super().maximum_pdu_size or _LARGEST_PDU, _LARGEST_PDU)
