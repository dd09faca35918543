"""Who took part in an event, as participants of an audit message (PS3.15 A.5.2.1 to A.5.2.4)."""

from __future__ import annotations

import os

from dicom_secure_node.audit.messages import Participant
from dicom_secure_node.node.context import AssociationContext


def process(ae_title: str, *, requestor: bool = False) -> Participant:
    """Return this process; its UserID is the process ID found in the log (A.5.2.1)."""
    return Participant(str(os.getpid()), requestor, ae_titles=(ae_title,), name="dicom-secure-node")


def peer(association: AssociationContext) -> Participant:
    """Return the system that called; it is the requestor where no user is known."""
    tls = association.tls
    subject = tls.subject if tls and not tls.observed else ""
    return Participant(
        subject or association.connection.address,
        requestor=association.identity is None,
        ae_titles=(association.calling_ae,),
        address=association.connection.address,
    )


def user(association: AssociationContext) -> tuple[Participant, ...]:
    """Return the user, the requestor then, in a tuple; an empty one where none is known."""
    if association.identity is None:
        return ()
    return (Participant(association.identity.user, requestor=True),)
