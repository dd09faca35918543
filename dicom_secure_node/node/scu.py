"""The other direction: associate with a peer, with TLS and user identity, and know why not.

`associate` does in order, in the caller's thread:

1. refuse to send a reusable secret over a connection without TLS, unless told to;
2. connect, and shake hands: a failure is raised with its reason, nothing is only logged;
3. request the association (PS3.8 7.1); a rejection is raised in the words of Table 9-21;
4. if a positive response to the user identity was asked for and none came, abort before any
   DIMSE message (PS3.7 D.3.3.7: an acceptor without support accepts silently).

What comes back is a pynetdicom `Association`, established, with its ``send_c_*`` methods.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_secure_node.errors import (
    ConfigurationError,
    HandshakeRefused,
    PeerRefused,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import Claim
from dicom_secure_node.node.requestor import Patience, RequestorAssociation

MAX_CONTEXTS = 128  # presentation contexts an A-ASSOCIATE-RQ can number (PS3.8 9.3.2.2)
_SMALLEST_PDU = 32  # bytes; nobody can work with less


class TLSContext(Protocol):
    """What is asked of a TLS context: `tls.context.ClientContext` or `ssl.SSLContext`."""

    def wrap_socket(
        self, sock: socket.socket, server_side: bool = ..., *, server_hostname: str | None = ...
    ) -> Any:
        """Return `sock` under TLS."""


def associate(
    host: str,
    port: int,
    *,
    calling: str,
    called: str,
    contexts: Sequence[PresentationContext],
    tls_context: TLSContext | None = None,
    server_name: str | None = None,
    identity: Claim | None = None,
    confirm: Callable[[bytes | None], None] | None = None,
    allow_plain: bool = False,
    max_pdu: int = 262_144,
    patience: Patience | None = None,
    ext_neg: Sequence[Any] = (),
    evt_handlers: Sequence[tuple[Any, ...]] = (),
) -> RequestorAssociation:
    """Return an established association with the peer at `host`, `port`.

    Parameters
    ----------
    calling, called : str
        AE titles.
    contexts : sequence of PresentationContext
        What to propose, 1 to 128.
    tls_context : TLSContext, optional
        Left out, the connection is plain TCP.
    server_name : str, optional
        Name the peer's certificate has to hold; `host` where left out.
    identity : Claim, optional
        User identity to send (PS3.15 B.4 to B.7).
    confirm : callable, optional
        Judges the server's response (sub-item 59H; None where none came) before any DIMSE
        message: a Kerberos ticket proves the server, too (B.6). Raises PeerRefused.
    allow_plain : bool
        Send a passcode, ticket or token although there is no TLS.
    max_pdu : int
        Largest P-DATA-TF PDU we take, in bytes; announced to the peer.
    patience : Patience, optional
        How long to wait for what.
    ext_neg, evt_handlers : sequence, optional
        Further negotiation items and event handlers, as for pynetdicom's ``AE.associate``.

    Raises
    ------
    ConfigurationError
        The arguments cannot be right; nothing was sent.
    ServiceUnavailable
        Nobody there, or no answer.
    HandshakeRefused
        No TLS connection; the error says which side refused and why.
    PeerRefused
        Rejected or aborted by the peer, no presentation context accepted, or the user
        identity not confirmed.

    References
    ----------
    PS3.8 7.1, Table 9-21; PS3.7 D.3.3.7
    """
    patience = patience or Patience()
    _check_arguments(calling, called, contexts)
    # (1)
    if identity is not None and identity.kind.is_secret and not (tls_context or allow_plain):
        raise ConfigurationError(
            f"a {identity.kind.word} would travel readable: found a connection without TLS"
        )
    # (2)
    where = f"peer {host}:{port}"
    sock, remote = _connected(host, port, where, patience)
    if tls_context is not None:
        sock = _protected(sock, tls_context, server_name or host, where, patience)
    # (3)
    association = RequestorAssociation(calling, sock, remote, where, patience)
    association.requestor.maximum_length = max_pdu
    association.acceptor.ae_title = called
    association.requestor.requested_contexts = [
        _numbered(context, 2 * number + 1) for number, context in enumerate(contexts)
    ]
    for item in ext_neg:
        association.requestor.add_negotiation_item(item)
    for handler in evt_handlers:
        association.bind(*handler)
    if identity is not None:
        association.requestor.add_negotiation_item(_identity_item(identity))
    try:
        association.request()
        if not association.is_established:
            raise association.why_not(identity)
        # (4)
        _check_answer(association, identity)
        if confirm is not None:
            answer = association.acceptor.user_identity
            confirm(None if answer is None else answer.server_response)
    except BaseException:
        association.give_up()
        raise
    association.start()
    return association


def _check_arguments(calling: str, called: str, contexts: Sequence[PresentationContext]) -> None:
    for role, title in (("calling", calling), ("called", called)):
        # PS3.5 6.2, AE: 16 characters of the default repertoire, no backslash, not only spaces.
        legal = title.isascii() and title.isprintable() and "\\" not in title
        if not legal or not 1 <= len(title.strip(" ")) <= 16:
            raise ConfigurationError(
                f"found {role} AE title {title!r}, wanted 1 to 16 characters of ASCII"
            )
    if not 1 <= len(contexts) <= MAX_CONTEXTS:
        raise ConfigurationError(
            f"found {len(contexts)} presentation contexts, wanted 1 to {MAX_CONTEXTS}"
        )


def _connected(
    host: str, port: int, where: str, patience: Patience
) -> tuple[socket.socket, AddressInformation]:
    try:
        sock = socket.create_connection((host, port), timeout=patience.connect)
    except TimeoutError as exc:
        raise ServiceUnavailable(where, f"no connection within {patience.connect:g} s") from exc
    except (OSError, OverflowError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or "cannot be reached"
        raise ServiceUnavailable(where, str(reason).lower()) from exc
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Asked now: the peer may be gone again by the time the association is made.
        return sock, AddressInformation.from_tuple(sock.getpeername())
    except OSError as exc:
        sock.close()
        raise ServiceUnavailable(where, "closed the connection at once") from exc


def _protected(
    sock: socket.socket, context: TLSContext, name: str, where: str, patience: Patience
) -> socket.socket:
    """Return `sock` under TLS, its handshake done; `sock` is closed when it fails."""
    try:
        wrapped = context.wrap_socket(sock, server_side=False, server_hostname=name)
    except BaseException as exc:
        sock.close()
        raise _as_ours(exc, where) from exc
    try:
        if hasattr(wrapped, "handshake"):
            wrapped.handshake(patience.connect)
    except BaseException as exc:
        wrapped.close()
        raise _as_ours(exc, where) from exc
    return cast(socket.socket, wrapped)


def _as_ours(exc: BaseException, where: str) -> BaseException:
    """Return what to raise for `exc`: TLS engines other than ours speak `ssl.SSLError`."""
    if isinstance(exc, HandshakeRefused):
        words = exc.reason.removeprefix(exc.kind).removeprefix(": ")
        return HandshakeRefused(exc.kind, f"{where}: {words}" if words else where)
    if not isinstance(exc, OSError):
        return exc
    if isinstance(exc, ssl.SSLCertVerificationError):
        return HandshakeRefused("bad certificate", f"{where}: {exc.verify_message}")
    if isinstance(exc, TimeoutError):
        return HandshakeRefused("time-out", where)
    if isinstance(exc, ConnectionError):
        return HandshakeRefused("closed by peer", where)
    return HandshakeRefused("tls failure", f"{where}: {exc.strerror or exc}")


def _numbered(context: PresentationContext, number: int) -> PresentationContext:
    fresh = PresentationContext()
    fresh.context_id = number
    fresh.abstract_syntax = context.abstract_syntax
    fresh.transfer_syntax = list(context.transfer_syntax)
    return fresh


def _identity_item(identity: Claim) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = int(identity.kind)
    item.positive_response_requested = identity.response_requested
    item.primary_field = identity.primary
    item.secondary_field = identity.secondary
    return item


def _check_answer(association: RequestorAssociation, identity: Claim | None) -> None:
    """Raise PeerRefused where we cannot go on with what the peer accepted."""
    if association.dimse.maximum_pdu_size < _SMALLEST_PDU:
        raise PeerRefused(
            f"{association.where}: announced a maximum length of "
            f"{association.dimse.maximum_pdu_size} bytes (PS3.8 D.1)"
        )
    # A 59H nobody asked for is tolerated.
    if identity is None or not identity.response_requested:
        return
    if association.acceptor.user_identity is None:
        raise PeerRefused(
            f"{association.where}: accepted the association without confirming the user "
            "identity (PS3.7 D.3.3.7); aborted"
        )
