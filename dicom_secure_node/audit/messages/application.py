"""An application starts or stops (PS3.15 A.5.3.1), a node joins or leaves the network (A.5.3.9)."""

from __future__ import annotations

from typing import Unpack

from dicom_secure_node.audit.messages.assembly import Facts, Some, build
from dicom_secure_node.audit.model import AuditMessage, Participant
from dicom_secure_node.spec.audit import Code


def application_activity(
    kind: Code,
    application: Participant,
    launcher: Some[Participant] | None = None,
    **facts: Unpack[Facts],
) -> AuditMessage:
    """Return Application Activity (A.5.3.1).

    Parameters
    ----------
    kind : Code
        APPLICATION_START or APPLICATION_STOP.
    application : Participant
        With its `ae_titles`, if it speaks DICOM.
    launcher : Participant or several, optional
        Who or what started or stopped it.
    """
    who = {"application": application, "launcher": launcher}
    return build("application_activity", who, kind=kind, **facts)


def network_entry(kind: Code, node: Participant, **facts: Unpack[Facts]) -> AuditMessage:
    """Return Network Entry (A.5.3.9); `kind` ATTACH or DETACH.

    The node is never marked as requestor. `when` is the time the event was noticed: a Detach is
    often reported after the next Attach.
    """
    return build("network_entry", {"node": node}, kind=kind, **facts)
