"""A TLS socket that pynetdicom takes for ``ssl.SSLSocket``.

What pynetdicom needs of it, each rule learnt from what happened without it:

1. It is an ``ssl.SSLSocket``, or a second PDU in one record is not noticed (`pending`).
2. It raises nothing but ``OSError``.
3. A server does not shake hands in its accept loop, but in the connection's own thread.
4. The whole handshake has one deadline.
5. The descriptor never blocks; time-outs are our own.
6. A client wraps first and connects later; the name of the server is checked.

Rules 7 and 8, no session resumption and memory BIOs, are kept in `context` and `channel`.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from dicom_secure_node.tls import engine, refusal
from dicom_secure_node.tls.channel import Channel
from dicom_secure_node.tls.facts import TLSFacts, canonical_group, suite_name
from dicom_secure_node.tls.refusal import TLSRefused
from dicom_secure_node.tls.verify import Verdict

if TYPE_CHECKING:
    from dicom_secure_node.tls.context import TLSContext

_LINGER = 0.5  # seconds a refused peer gets to read its alert


class TLSSocket(ssl.SSLSocket):
    """One TLS connection; made by ``wrap_socket`` of a context.

    Attributes
    ----------
    facts : TLSFacts or None
        What was agreed upon; None before the handshake.
    refusal : TLSRefused or None
        Why there is no connection, also when the peer's refusal shows only at the first read.
    server_hostname : str or None
        Name of the server, on the client's side.
    """

    # ssl.SSLSocket has no constructor of its own to call: it refuses to be made.
    def __init__(
        self,
        context: TLSContext,
        sock: socket.socket,
        server_side: bool,
        server_hostname: str | None,
    ) -> None:
        timeout = sock.gettimeout()
        socket.socket.__init__(self, sock.family, sock.type, sock.proto, fileno=sock.detach())
        socket.socket.setblocking(self, False)
        with contextlib.suppress(OSError):  # 40 ms an association otherwise
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.facts: TLSFacts | None = None
        self.refusal: TLSRefused | None = None
        self.server_side = server_side
        self.server_hostname = server_hostname
        self._sslobj = None  # of ssl.SSLSocket; never used, but looked at
        self._context = context
        self._limit = timeout
        self._heard = False
        self._channel: Channel | None = None
        self._shaking = threading.RLock()

    # -- connecting and shaking hands

    def connect(self, address: Any) -> None:
        """Connect and shake hands, within the time-out that is set.

        Raises
        ------
        TLSRefused
            The TLS handshake failed.
        OSError
            The transport failed.
        """
        socket.socket.settimeout(self, self._limit)
        try:
            socket.socket.connect(self, address)
        finally:
            socket.socket.setblocking(self, False)
        if self.server_hostname is None:
            self.server_hostname = str(address[0])
        self.do_handshake()

    def do_handshake(self, block: bool = False) -> None:  # noqa: ARG002 (of ssl.SSLSocket)
        """Shake hands within the context's time, or the socket's time-out if that is shorter."""
        seconds = self._context.handshake_seconds
        self.handshake(seconds if self._limit is None else min(seconds, self._limit))

    def handshake(self, seconds: float) -> TLSFacts:
        """Shake hands, unless that was done already.

        Parameters
        ----------
        seconds : float
            For the whole of it, however slowly the peer sends.

        Raises
        ------
        TLSRefused
            There is no connection; every later call says so again.
        """
        with self._shaking:
            if self.refusal:
                raise self.refusal
            if self.facts is None:
                deadline = time.monotonic() + seconds
                try:
                    self.facts = self._shake(deadline)
                except TLSRefused as exc:
                    self.refusal = exc
                    if self._channel:
                        self._channel.linger(min(_LINGER, max(0.0, deadline - time.monotonic())))
                    raise
            return self.facts

    def _shake(self, deadline: float) -> TLSFacts:
        name = self.server_hostname
        connection = self._context.connection(self.server_side, name)
        channel = self._channel = Channel(connection, self)
        verdict: Verdict = connection.get_app_data()
        try:
            while not channel.step():
                channel.flush(deadline)
                if not channel.receive(deadline):
                    heard = "during the handshake" if channel.first else "without a word"
                    raise TLSRefused("closed by peer", f"the peer closed {heard}")
                problem = refusal.not_tls(channel.first)
                if problem:
                    raise problem
            if verdict.refusal:
                raise verdict.refusal
            facts = _facts(connection)
            observed = verdict.observed or self._context.observed(facts)
            if observed:
                facts = replace(facts, observed=observed)
            if not self.server_side:
                self._context.check_name(facts, name)
            channel.flush(deadline)
        except SSL.Error as exc:
            raise verdict.refusal or refusal.from_error(exc) from exc
        except TimeoutError as exc:
            raise TLSRefused("time-out", "the handshake took too long") from exc
        except TLSRefused:
            raise
        except OSError as exc:
            raise TLSRefused("closed by peer", exc.strerror or type(exc).__name__) from exc
        return facts

    # -- reading

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:  # noqa: ARG002
        """Return up to `buflen` bytes, none when the peer ended."""
        buffer = bytearray(buflen)
        with memoryview(buffer) as view:
            count = self.recv_into(view)
        return bytes(buffer[:count])

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:  # noqa: ARG002
        """Read into `buffer` all that is at hand, waiting only if that is nothing.

        Returns
        -------
        int
            Number of bytes, 0 when the peer ended.

        Raises
        ------
        TLSRefused
            Before the first byte: the handshake failed, or the peer refused us after it,
            which in TLS 1.3 a client hears no earlier.
        TLSBroken
            A record was damaged, or the peer sent an alert.
        TimeoutError, ConnectionResetError
            As of any socket.
        """
        channel = self._ready_channel()
        with memoryview(buffer) as whole, whole.cast("B") as view:
            wanted = view[:nbytes] if nbytes else view
            try:
                count = channel.read_into(wanted, self._deadline())
            except SSL.Error as exc:
                channel.flush_if_free()
                raise self._failure(exc) from exc
            self._heard = self._heard or count > 0
            return count

    def pending(self) -> int:
        """Return how many bytes can be read at once; never raises."""
        return self._channel.pending() if self._channel and self.facts else 0

    def ready(self) -> bool:
        """Return whether `recv` would return at once, having looked at what has arrived.

        A readable descriptor is no proof of it: there may be half a record, a session ticket
        or a KeyUpdate, and `recv` would then wait. Never raises.
        """
        channel = self._channel
        if not (channel and self.facts):
            return False
        if not channel.pending() and not channel.ended:
            try:
                channel.receive(0.0)
            except TimeoutError:
                return False
            except OSError:  # for recv to tell
                return True
        return channel.ended or channel.pending() > 0

    # -- writing

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ARG002
        """Send the beginning of `data` and return how many bytes that was."""
        with memoryview(data) as whole, whole.cast("B") as view:
            return self._write(view, self._deadline())

    def sendall(self, data: Any, flags: int = 0) -> None:  # noqa: ARG002
        """Send all of `data`; the time-out is for all of it."""
        deadline = self._deadline()
        with memoryview(data) as whole, whole.cast("B") as view:
            sent = 0
            while sent < len(view):
                sent += self._write(view[sent:], deadline)

    def _write(self, view: memoryview, deadline: float | None) -> int:
        channel = self._ready_channel()
        try:
            return channel.write(view, deadline)
        except SSL.Error as exc:
            raise self._failure(exc) from exc
        except (BrokenPipeError, ConnectionResetError):
            self._look_for_alert(channel)
            raise

    def _look_for_alert(self, channel: Channel) -> None:
        """Raise the peer's alert, if that is why it no longer reads."""
        try:
            channel.receive(0.0)
            if channel.pending():
                channel.read_into(memoryview(bytearray(1)), 0.0)
        except SSL.Error as exc:
            raise self._failure(exc) from exc
        except OSError:
            return

    # -- the end

    @property
    def truncated(self) -> bool:
        """Whether the peer's end of TCP came without its close_notify (RFC 8446 section 6.1)."""
        channel = self._channel
        if channel is None or not channel.ended:
            return False
        return not channel.connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN

    def shutdown(self, how: int) -> None:
        """Close TLS as far as that takes no waiting, then the transport."""
        if self._channel and self.facts and how != socket.SHUT_RD:
            self._channel.say_goodbye()
        try:
            socket.socket.shutdown(self, how)
        except OSError as exc:
            # The peer was faster. pynetdicom would not go on to close() if this were raised.
            if exc.errno != errno.ENOTCONN:
                raise

    def close(self) -> None:
        """Close TLS as far as that takes no waiting, and the descriptor."""
        channel, self._channel = self._channel, None
        if channel and self.facts and self.fileno() >= 0:
            channel.say_goodbye()
        socket.socket.close(self)

    def _no_way_past_tls(self, *_args: Any, **_options: Any) -> Any:
        """Refuse what ssl.SSLSocket would do in clear, or with its own engine, which is not ours.

        Nor is there a way back to plain TCP: DICOM over TLS is strict TLS (PS3.15 B.12).
        """
        raise OSError("not to be had on a DICOM TLS connection")

    unwrap = accept = connect_ex = _no_way_past_tls
    read = write = sendfile = sendto = sendmsg = sendmsg_afalg = _no_way_past_tls
    recvfrom = recvfrom_into = recvmsg = recvmsg_into = _no_way_past_tls

    # -- what ssl.SSLSocket also tells

    def settimeout(self, value: float | None) -> None:
        """Set how long an operation may wait, in seconds; None for ever."""
        self._limit = None if value is None else float(value)

    def gettimeout(self) -> float | None:
        """Return how long an operation may wait, in seconds."""
        return self._limit

    def setblocking(self, flag: bool) -> None:
        """Set the time-out to none or to nothing."""
        self._limit = None if flag else 0.0

    def version(self) -> str | None:
        """Return e.g. ``TLSv1.3``, None before the handshake."""
        return self.facts.version if self.facts else None

    def cipher(self) -> tuple[str, str, int] | None:
        """Return suite, version and key bits, None before the handshake."""
        if not (self.facts and self._channel):
            return None
        bits = self._channel.connection.get_cipher_bits() or 0
        return self.facts.suite, self.facts.version, bits

    def selected_alpn_protocol(self) -> str | None:
        """Return ``dicom``, or None if the peer does not use ALPN."""
        return self.facts.alpn if self.facts else None

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the peer's certificate as DER, or a small dictionary as `ssl` does."""
        certificate = self.facts.peer_certificate if self.facts else None
        if certificate is None:
            return None
        if binary_form:
            return certificate.public_bytes(Encoding.DER)
        return {"subject": certificate.subject.rfc4514_string()}

    def __repr__(self) -> str:
        state = self.facts.version if self.facts else "no handshake yet"
        return f"<TLSSocket fd={self.fileno()} {state}>"

    # -- inside

    def _ready_channel(self) -> Channel:
        if self.facts is None:
            self.do_handshake()
        if self._channel is None:
            raise OSError("the TLS connection is closed")
        return self._channel

    def _deadline(self) -> float | None:
        return None if self._limit is None else time.monotonic() + self._limit

    def _failure(self, exc: SSL.Error) -> OSError:
        """Return our error for OpenSSL's on an established connection."""
        if isinstance(exc, SSL.SysCallError):
            return ConnectionResetError(*exc.args)
        broken = refusal.broken(exc)
        if not (self.server_side or self._heard or broken.integrity) and refusal.alert_of(exc):
            self.refusal = refusal.from_error(exc)
            return self.refusal
        return broken


def _facts(connection: SSL.Connection) -> TLSFacts:
    chain = connection.get_verified_chain(as_cryptography=True)
    if chain is None:
        leaf = connection.get_peer_certificate(as_cryptography=True)
        chain = [leaf] if leaf else []
    return TLSFacts(
        version=connection.get_protocol_version_name(),
        suite=suite_name(connection.get_cipher_name() or "none"),
        group=canonical_group(engine.group_name(connection)),
        peer_chain=tuple(chain),
        alpn=connection.get_alpn_proto_negotiated().decode("ascii", "replace") or None,
    )
