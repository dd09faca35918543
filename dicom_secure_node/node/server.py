"""The accept loop, which nobody can block.

``accept`` hands every connection to a thread of its own at once. That thread counts it
against the limits, looks whether the peer speaks TLS or not, shakes hands under one deadline,
and only then makes an association of it. pynetdicom's server does the handshake in the accept
loop: one silent peer keeps everybody else out.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from pynetdicom import _handlers, evt
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_secure_node.errors import HandshakeRefused
from dicom_secure_node.node.association import SecureAssociation
from dicom_secure_node.node.buffered import BufferedSocket
from dicom_secure_node.node.context import Connection
from dicom_secure_node.node.host import PluginHost
from dicom_secure_node.node.limits import Limits
from dicom_secure_node.node.slots import Counting

logger = logging.getLogger(__name__)

_TLS_HANDSHAKE_RECORD = 0x16


class TransportContext(Protocol):
    """Wraps an accepted socket in TLS without shaking hands yet (`tls.context`)."""

    def wrap_socket(self, sock: socket.socket, server_side: bool = ...) -> Any: ...


@dataclass(frozen=True)
class Listener:
    """One address the node listens on, and what it demands there.

    Attributes
    ----------
    name : str
        For log and audit.
    context : callable or None
        Returns the TLS context for the next connection; None for a plain listener. It is
        asked each time, so that renewed certificates count from the next connection on.
    observe : bool
        Record refusals of policy, carry none out.
    limits : Limits
    """

    name: str
    context: Callable[[], TransportContext] | None = None
    observe: bool = False
    limits: Limits = field(default_factory=Limits)


class _ConnectionHandler(RequestHandler):
    """Makes an association of a connection whose handshake is done."""

    server: SecureServer

    def _create_association(self) -> SecureAssociation:
        server = self.server
        connection = server.connection_of(self.request)
        assoc = SecureAssociation(
            self.ae, "acceptor", server.host, connection, server.listener.limits
        )
        assoc._server = server
        assoc.name = f"AcceptorThread@{connection.id[:8]}"
        sock = BufferedSocket(assoc, client_socket=self.request)
        sock.send_seconds = server.listener.limits.pdu_seconds
        assoc.set_socket(sock)
        assoc.acceptor.maximum_length = server.listener.limits.pdu_length
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.supported = server.contexts
        assoc.requestor.address_info = self.remote
        server.bind_handlers(assoc)
        return assoc


class SecureServer(ThreadedAssociationServer):
    """An association server under a `Listener`'s rules.

    Made through ``ae.make_server(address, server_class=..., listener=..., host=...)``.
    """

    request_queue_size = 1024  # a burst waits in the kernel, not in a client's retries
    daemon_threads = True

    def __init__(
        self,
        *args: Any,
        listener: Listener,
        host: PluginHost,
        slots: Counting | None = None,
        quiet: bool = False,
        **kwargs: Any,
    ) -> None:
        self.listener = listener
        self.host = host
        limits = listener.limits
        if slots is None:  # one without a connection yet is falsy
            slots = limits.slots()
        self._slots: Counting = slots
        self._quiet = quiet
        self._connections: dict[socket.socket, Connection] = {}
        self.draining = False
        kwargs["request_handler"] = _ConnectionHandler
        super().__init__(*args, **kwargs)

    # -- what pynetdicom's server would do otherwise ---------------------------------------

    def _bind_defaults(self) -> None:
        """Leave out the handlers that format every PDU for the log, on the node's own servers."""
        if self._quiet:
            for event in evt._INTERVENTION_EVENTS:
                self.bind(event, evt.get_default_handler(event))
        else:
            super()._bind_defaults()
            self.unbind(evt.EVT_PDU_RECV, _handlers.standard_pdu_recv_handler)
            self.bind(evt.EVT_PDU_RECV, _show_pdu)

    def service_actions(self) -> None:
        """Leave garbage to the collector; pynetdicom collects all of it now and then, here."""

    def bind_handlers(self, assoc: SecureAssociation) -> None:
        """Bind this server's handlers to a new association.

        Those that only write to pynetdicom's log are left out while nobody reads it: what is
        bound to an event that shows PDUs or messages keeps the fast lane closed.
        """
        logged = logging.getLogger(_handlers.__name__).isEnabledFor(logging.INFO)
        for event, handlers in self._handlers.items():
            if event.is_intervention and handlers:
                assoc.bind(event, *cast(Any, handlers))
            else:
                for function, args in cast(Any, handlers):
                    if logged or function not in _FOR_THE_LOG:
                        assoc.bind(event, function, args)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, and nothing more."""
        try:
            sock, address = cast(socket.socket, self.socket).accept()
        except OSError as exc:
            # Out of file descriptors: waiting beats spinning on a socket that stays readable.
            logger.error("%s: cannot accept: %s", self.listener.name, exc.strerror)
            time.sleep(0.05)
            raise
        return sock, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection that was just accepted, in a thread of its own."""
        connection = describe(self.listener, request, client_address)
        self.serve_connection(request, connection, client_address)

    def serve_connection(
        self, request: socket.socket, connection: Connection, client_address: Any
    ) -> None:
        """Take a connection from its first byte to its association, in this thread."""
        why = "the node is stopping" if self.draining else self._slots.take(connection, request)
        if why:
            request.close()
            self.host.handshake_failed(connection, HandshakeRefused("limit reached", why))
            return
        sock = request
        try:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = self._secure(request, connection)
            if self.draining:  # meanwhile
                raise HandshakeRefused("limit reached", "the node is stopping")
            self._connections[sock] = connection
            self.finish_request(sock, client_address)
        except Exception as exc:
            self._connections.pop(sock, None)
            sock.close()
            held = self._slots.give_back(connection)
            self.host.handshake_failed(connection, self._why(exc, held))

    def _why(self, exc: Exception, held: bool) -> HandshakeRefused:
        """Return why a connection came to nothing; `held`: its slot was still its own."""
        if not held:
            return HandshakeRefused("limit reached", "too many connections without an association")
        if isinstance(exc, HandshakeRefused):
            return exc
        logger.error("%s: connection dropped", self.listener.name, exc_info=exc)
        return HandshakeRefused("tls failure", type(exc).__name__)

    # -- our own ---------------------------------------------------------------------------

    def _secure(self, sock: socket.socket, connection: Connection) -> socket.socket:
        """Shake hands, or make sure that a plain peer is one (PS3.15 Annex B)."""
        limits = self.listener.limits
        if self.listener.context is not None:
            wrapped = self.listener.context().wrap_socket(sock, server_side=True)
            self._slots.secured(connection, wrapped)
            try:
                wrapped.handshake(limits.handshake_seconds)
            except BaseException:
                wrapped.close()
                raise
            return cast(socket.socket, wrapped)
        first = _first_byte(sock, limits.request_seconds)
        if first == _TLS_HANDSHAKE_RECORD:
            raise HandshakeRefused("unexpected TLS", "a TLS ClientHello on a plain listener")
        return sock

    def connection_of(self, sock: socket.socket) -> Connection:
        """Return what is known of the connection below `sock`."""
        return self._connections.pop(sock)

    def associations(self) -> list[SecureAssociation]:
        """Return the associations that are running."""
        return [
            thread
            for thread in threading.enumerate()
            if isinstance(thread, SecureAssociation) and thread._server is self
        ]

    @property
    def active_associations(self) -> list[Any]:
        """Return the associations that are running, for pynetdicom."""
        return list(self.associations())

    def admits(self, assoc: SecureAssociation) -> bool:
        """Let the association's connection count as one that means it; False: too many do."""
        return self._slots.associated(assoc.connection)

    def association_ended(self, assoc: SecureAssociation) -> None:
        """Give the association's slot back."""
        self._slots.give_back(assoc.connection)

    def stop(self, seconds: float) -> int:
        """Stop listening, let running requests finish, end the rest.

        Parameters
        ----------
        seconds : float
            How long requests in progress may take.

        Returns
        -------
        int
            How many associations had to be ended with a request unfinished.
        """
        if self.draining:
            return 0
        self.draining = True
        self.shutdown()
        deadline = time.monotonic() + seconds
        waiting = self.associations()
        while waiting and time.monotonic() < deadline:
            for assoc in waiting:
                if not assoc.in_progress:
                    assoc.abort(block=False)
            for assoc in waiting:
                assoc.join(timeout=0.05)
            waiting = self.associations()
        for assoc in waiting:
            assoc.bounded_socket._shutdown_socket()
            assoc.abort(block=False)
        for assoc in waiting:
            assoc.join(timeout=1.0)
        return len(waiting)


def describe(listener: Listener, sock: socket.socket, address: Any) -> Connection:
    """Return what is known of a connection `listener` has just accepted from `address`."""
    try:
        local = sock.getsockname()
    except OSError:
        local = ("", 0)
    return Connection(
        listener.name,
        str(address[0]).removeprefix("::ffff:"),
        int(address[1]),
        str(local[0]).removeprefix("::ffff:"),
        int(local[1]),
        observe=listener.observe,
    )


def _show_pdu(event: evt.Event) -> None:
    """Format a PDU for the debug log, as pynetdicom does, but no passcode or ticket."""
    pdu = cast(Any, event).pdu
    if isinstance(pdu, A_ASSOCIATE_RQ) and cast(Any, pdu.user_information).user_identity:
        logger.debug("an A-ASSOCIATE-RQ with a user identity, which is not shown")
    else:
        _handlers.standard_pdu_recv_handler(event)


_FOR_THE_LOG = frozenset(
    {
        _show_pdu,
        _handlers.standard_dimse_recv_handler,
        _handlers.standard_dimse_sent_handler,
        _handlers.standard_pdu_sent_handler,
    }
)


def _first_byte(sock: socket.socket, seconds: float) -> int:
    """Return the first byte a peer sends, and leave it to be read."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    if not poll.poll(seconds * 1000):
        raise HandshakeRefused("time-out", f"not one byte within {seconds:g} s")
    try:
        first = sock.recv(1, socket.MSG_PEEK)
    except OSError as exc:
        raise HandshakeRefused("closed by peer", exc.strerror or "connection broke") from exc
    if not first:
        raise HandshakeRefused("closed by peer", "before the first byte")
    return first[0]


def start(
    ae: Any,
    address: tuple[str, int],
    listener: Listener,
    host: PluginHost,
    *,
    slots: Counting | None = None,
    quiet: bool = False,
    evt_handlers: Sequence[tuple[Any, ...]] = (),
    ae_title: str | None = None,
    contexts: Any = None,
) -> SecureServer:
    """Bind `address`, start serving it in a thread, and return the server.

    Parameters
    ----------
    ae : ApplicationEntity
        Whose associations these are.
    address : (str, int)
        IPv4 or IPv6 address, and the port; 0 takes any free one.
    listener : Listener
    host : PluginHost
    slots : Counting, optional
        Shared with other listeners of the node.
    quiet : bool
        Do not format every PDU for pynetdicom's debug log.
    evt_handlers : sequence of tuple
        Notification handlers of the application.
    ae_title, contexts : optional
        As pynetdicom's ``start_server`` takes them.

    Raises
    ------
    OSError
        The address is in use, or not ours.
    """
    server = cast(
        SecureServer,
        ae.make_server(
            address,
            ae_title=ae_title,
            contexts=contexts,
            evt_handlers=[*host.handlers(), *evt_handlers],
            server_class=SecureServer,
            listener=listener,
            host=host,
            slots=slots,
            quiet=quiet,
        ),
    )
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1},
        name=f"listener {listener.name}", daemon=True,
    )  # fmt: skip
    thread.start()
    ae._servers.append(server)
    return server
