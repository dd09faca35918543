"""A requestor's association over a connection that is open already.

Subclasses of pynetdicom's own classes, set on the association before it starts. What they add:
why a connection ended is remembered instead of only logged, PDUs are bounded in size and time
both ways, and a file that is sent does not pile up in memory in front of a slow peer.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom._globals import MODE_REQUESTOR
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AddressInformation

from dicom_secure_node.errors import HandshakeRefused, PeerRefused, ServiceUnavailable
from dicom_secure_node.identity.claims import Claim
from dicom_secure_node.node.outgoing import OutgoingStore
from dicom_secure_node.node.requestor_layers import (
    SHOWS_MESSAGES,
    AssociationOver,
    Checkpoint,
    RequestorDIMSE,
    RequestorDUL,
    RequestorSocket,
)
from dicom_secure_node.node.store_codec import StoreRequest, encode_store_request


@dataclass(frozen=True)
class Patience:
    """How long to wait for a peer, in seconds.

    Attributes
    ----------
    connect : float
        For the TCP connection, and again for the TLS handshake.
    association : float
        For the answer to an A-ASSOCIATE-RQ or A-RELEASE-RQ.
    response : float
        For the response to a DIMSE request.
    pdu : float
        For one PDU to arrive whole, or to be taken.
    abort : float
        For an A-ABORT to leave, and to be read, before the connection is cut.
    """

    connect: float = 15.0
    association: float = 30.0
    response: float = 120.0
    pdu: float = 60.0
    abort: float = 2.0


class RequestorAssociation(Association):
    """A requestor's `Association` over a connection that is open already.

    Attributes
    ----------
    where : str
        The peer, for messages: ``peer HOST:PORT``.
    checkpoint : Checkpoint
        Where pynetdicom's reactor is paused.
    """

    dul: RequestorDUL
    dimse: RequestorDIMSE

    def __init__(
        self,
        calling: str,
        sock: socket.socket,
        remote: AddressInformation,
        where: str,
        patience: Patience,
    ) -> None:
        super().__init__(AE(ae_title=calling), MODE_REQUESTOR)
        self.where = where
        self.patience = patience
        self.checkpoint = self._reactor_checkpoint = Checkpoint()
        self.dul = RequestorDUL(self)
        self.dimse = RequestorDIMSE(self)
        # The timers live in the DUL provider that has just been replaced.
        self.acse_timeout = patience.association
        self.network_timeout = patience.response + patience.association
        self.dimse_timeout = patience.response
        self.requestor.address_info = AddressInformation.from_tuple(sock.getsockname())
        self.requestor.ae_title = calling
        self.requestor.implementation_class_uid = self.ae.implementation_class_uid
        self.requestor.implementation_version_name = self.ae.implementation_version_name
        self.acceptor.address_info = remote
        self.set_socket(RequestorSocket(self, sock, patience.pdu))
        for event in (evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT, evt.EVT_PDU_RECV, evt.EVT_PDU_SENT):
            for handler, _ in list(cast(list[Any], self.get_handlers(event))):
                self.unbind(event, handler)  # the default ones format every PDU for a debug log

    @property
    def connection(self) -> RequestorSocket:
        """The socket below."""
        return cast(RequestorSocket, self.dul.socket)

    @property
    def tls_facts(self) -> Any:
        """What TLS agreed on (`tls.facts.TLSFacts`), None without our TLS engine."""
        return getattr(self.connection.socket, "facts", None)

    def send_request(self, request: Any, context_id: int) -> int:
        """Send a DIMSE request and return the status of the response.

        Parameters
        ----------
        request : DIMSE primitive
            With everything set, the message ID included.
        context_id : int
            Of an accepted presentation context.

        Raises
        ------
        PeerRefused
            The peer ended the association, or its answer is no response to this request.
        ServiceUnavailable
            No response in time. The association is aborted.
        """
        response: Any = None
        deadline = float("inf")
        with self._reactor_paused(), suppress(AssociationOver):
            self.dimse.send_msg(request, context_id)
            deadline = time.monotonic() + self.patience.response
            _, response = self.dimse.get_msg(block=True)
        late = time.monotonic() >= deadline
        return self._status(response, type(request), request.MessageID, late)

    def send_file(self, request: StoreRequest, context_id: int, path: Path, offset: int) -> int:
        """Send a C-STORE request whose data set lies in a file; return the response's status.

        Parameters
        ----------
        request : StoreRequest
            Of medium priority.
        context_id : int
            Of an accepted presentation context, in whose transfer syntax the file is.
        path : Path
            The file.
        offset : int
            Where the data set begins in it, in bytes.

        Raises
        ------
        PeerRefused, ServiceUnavailable
            As `send_request`.
        OSError, ValueError
            The file cannot be read. If that showed in the middle of the message, the
            association is aborted: nothing else can be said on it.
        """
        command = encode_store_request(request.message_id, request.sop_class, request.sop_instance)
        if self.shows_messages or self.dul.run_for(command) is None:
            primitive = _primitive(request, path, offset)
            try:
                return self.send_request(primitive, context_id)
            except (OSError, ValueError):
                self.abort()
                raise
        response: Any = None
        with (
            OutgoingStore(command, context_id, path, offset) as store,
            self._reactor_paused(),
            suppress(AssociationOver),
        ):
            self.dul.send_store(store)
            response = self._response_to(store)
        if store.error is not None:
            self.abort()
            raise store.error
        deadline = float("inf") if store.sent_at is None else store.sent_at + self.patience.response
        late = time.monotonic() >= deadline
        return self._status(response, C_STORE, request.message_id, late)

    def _response_to(self, store: OutgoingStore) -> Any:
        """Wait until `store` is sent and answered; None where it is not."""
        left = self.patience.response
        while left > 0:
            try:
                _, response = self.dimse.msg_queue.get(timeout=left)
            except queue.Empty:
                response = None
            if response is not None:
                store.over.wait()  # a response may come before the request has left
                return response if store.sent_at else None
            if store.error is not None or self.dul.has_ended:
                return None
            if store.sent_at is not None:
                left = store.sent_at + self.patience.response - time.monotonic()
        return None

    @property
    def shows_messages(self) -> bool:
        """Whether somebody has bound an event that shows messages, PDUs or bytes."""
        return any(self.get_handlers(event) for event in SHOWS_MESSAGES)

    def _status(
        self, response: Any, kind: type[Any], message_id: int | None, timed_out: bool
    ) -> int:
        """Return the status of a response, or abort."""
        if response is None:
            loss = self.loss(timed_out)
            self.abort()
            raise loss
        if (
            not isinstance(response, kind)
            or not response.is_valid_response
            or response.MessageIDBeingRespondedTo != message_id
        ):
            self.abort()
            raise PeerRefused(f"{self.where}: the answer is no response to the request; aborted")
        return cast(int, response.Status)

    @contextmanager
    def _reactor_paused(self) -> Iterator[None]:
        """Keep the reactor from taking the response away."""
        self._reactor_checkpoint.clear()
        while not self._is_paused and self.is_alive():
            time.sleep(0.0005)  # the reactor polls; it offers nothing to wait for
        try:
            yield
        finally:
            self.checkpoint.set_soon()
            if self.dul.has_ended:
                self.checkpoint.pass_if_due(at_once=True)

    def end(self) -> None:
        """Release the association (PS3.8 7.2) and wait until its connection is closed."""
        self.release()
        if self.is_established:  # no A-RELEASE-RP in time
            self.abort()
        if self.is_alive():
            self.join(self.patience.association)

    def abort(self, block: bool = True) -> None:
        """Send an A-ABORT; cut the connection where the peer takes too long even for that."""
        self.dul.aborting = True
        hurry = threading.Timer(self.patience.abort, self.connection.cut)
        hurry.start()
        try:
            super()._abort_blocking(block)
        finally:
            hurry.cancel()
            hurry.join()

    def give_up(self) -> None:
        """End an association that never got its thread, and let go of everything."""
        if self.is_established:
            self.abort()
        self._let_go()

    def run_reactor(self) -> None:
        """Run the association to its end, and let go of everything."""
        try:
            super().run_reactor()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self.dul.aborting and self.dul.ident is not None:
            # It ends by itself once the A-ABORT has left, or `abort` has cut the connection.
            self.dul.join(2 * self.patience.abort)
        self.dul.kill_dul()
        connection = self.connection
        if self.dul.ident is not None:
            self.dul.join(self.patience.pdu)
        connection._shutdown_socket()
        connection.close_wake()

    def why_not(self, identity: Claim | None = None) -> Exception:
        """Return the error for an association that was not established."""
        answer = self.acceptor.primitive
        if answer is None:
            # pynetdicom takes a rejection that came at once for a failure to connect.
            waiting = list(self.dul.to_user_queue.queue)
            answer = next((item for item in waiting if isinstance(item, A_ASSOCIATE)), None)
        if answer is not None and answer.result:
            return PeerRefused(f"{self.where}: {_rejection(answer, identity)}")
        if answer is not None:
            return PeerRefused(f"{self.where}: accepted none of the presentation contexts")
        return self.loss(timed_out=self._sent_abort)

    def loss(self, timed_out: bool) -> Exception:
        """Return the error for an association that ended before its time."""
        failure, abort = self.connection.failure, self.dul.abort_received
        if isinstance(failure, HandshakeRefused):
            return failure  # with TLS 1.3 a server's no arrives after our handshake is done
        if abort is not None:
            source = f"{abort.source_str}: {abort.reason_str}" if abort.source else "service user"
            return PeerRefused(f"{self.where}: aborted the association ({source})")
        if failure is not None:
            words = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
            return PeerRefused(f"{self.where}: connection lost: {words}")
        if timed_out:
            return ServiceUnavailable(self.where, "no answer in time")
        return PeerRefused(f"{self.where}: closed the connection")


def _primitive(request: StoreRequest, path: Path, offset: int) -> C_STORE:
    """Return a request for pynetdicom to send."""
    primitive = C_STORE()
    primitive.MessageID = request.message_id
    primitive.AffectedSOPClassUID = UID(request.sop_class)
    primitive.AffectedSOPInstanceUID = UID(request.sop_instance)
    primitive.Priority = request.priority
    # Read while it is sent, a PDU at a time; pynetdicom's own way to send from a file.
    primitive._dataset_path = (path, offset)
    return primitive


def _rejection(answer: A_ASSOCIATE, identity: Claim | None) -> str:
    """Return an A-ASSOCIATE-RJ in words (PS3.8 Table 9-21)."""
    codes = (answer.result, answer.result_source, answer.diagnostic)
    words = f"{answer.result_str}, {answer.source_str}: {answer.reason_str}".lower()
    hint = ""
    if identity is not None and codes[1:] == (2, 1):
        hint = "; the user identity may be why (PS3.7 D.3.3.7)"
    return f"association {words} ({'/'.join(map(str, codes))}){hint}"
