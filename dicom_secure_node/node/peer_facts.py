"""What pynetdicom's objects say of a peer and its requests, as the gates' plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicom_secure_node.errors import HandshakeRefused, IdentityRefused
from dicom_secure_node.identity.claims import Claim, IdentityType
from dicom_secure_node.node.association import SecureAssociation
from dicom_secure_node.node.upper_layer import BROKEN

if TYPE_CHECKING:
    from dicom_secure_node.tls.facts import TLSFacts


def claim_of(assoc: SecureAssociation) -> Claim | None:
    """Return the one user identity sub-item of the request (PS3.7 D.3.3.7).

    Raises
    ------
    IdentityRefused
        There are several, or it is malformed.
    """
    request = cast(Any, assoc.requestor.primitive)
    items = [i for i in request.user_information if isinstance(i, UserIdentityNegotiation)]
    count = len(items) + assoc.reserved_identities
    if count > 1:
        raise IdentityRefused(f"{count} user identity sub-items, at most one allowed")
    if assoc.reserved_identities:
        return Claim(IdentityType.UNKNOWN, b"")
    if not items:
        return None
    item = cast(Any, items[0])
    return Claim(
        IdentityType(int(item.user_identity_type or 0)),
        item.primary_field or b"",
        item.secondary_field or b"",
        bool(item.positive_response_requested),
    )


def tls_facts_of(assoc: SecureAssociation) -> TLSFacts | None:
    """Return what TLS agreed on; None on a plain connection."""
    return getattr(assoc.bounded_socket.socket, "facts", None)


def no_request(assoc: SecureAssociation) -> HandshakeRefused:
    """Return why a connection never came to an association."""
    if assoc.failure == "closed by peer":
        return HandshakeRefused("closed by peer", "before any A-ASSOCIATE-RQ")
    if assoc.failure.startswith(BROKEN):
        return HandshakeRefused("closed by peer", assoc.failure)
    if assoc.failure and "time-out" not in assoc.failure:
        return HandshakeRefused("not DICOM", assoc.failure)
    seconds = assoc.limits.request_seconds
    return HandshakeRefused("time-out", f"no A-ASSOCIATE-RQ within {seconds:g} s")


def identifier_of(assoc: SecureAssociation, message: Any, context_id: int) -> tuple[bytes, str]:
    """Return the Identifier of a query or retrieval and its transfer syntax."""
    stream, context = getattr(message, "Identifier", None), assoc._accepted_cx.get(context_id)
    if stream is None or context is None:
        return b"", ""
    return stream.getvalue(), str(context.transfer_syntax[0])


def first_of(message: Any, *keywords: str) -> str:
    """Return the first value a message has of some elements, or an empty text."""
    values: Iterable[Any] = (getattr(message, keyword, None) for keyword in keywords)
    return str(next((value for value in values if value), ""))
