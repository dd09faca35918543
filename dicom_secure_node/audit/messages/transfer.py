"""Instances go from node to node inside the security domain (PS3.15 A.5.3.3, A.5.3.7)."""

from __future__ import annotations

from typing import Unpack

from dicom_secure_node.audit.messages.assembly import Facts, Some, build
from dicom_secure_node.audit.messages.objects import Patient, Study
from dicom_secure_node.audit.model import AuditMessage, Participant


def begin_transferring(
    source: Participant,
    destination: Participant,
    studies: Some[Study],
    patient: Patient,
    *,
    others: Some[Participant] = (),
    **facts: Unpack[Facts],
) -> AuditMessage:
    """Return Begin Transferring DICOM Instances (A.5.3.3)."""
    who = {"source": source, "destination": destination, "other": others}
    return build("begin_transferring", who, {"study": studies, "patient": patient}, **facts)


def instances_transferred(
    action: str,
    source: Participant,
    destination: Participant,
    studies: Some[Study],
    patient: Patient,
    *,
    others: Some[Participant] = (),
    **facts: Unpack[Facts],
) -> AuditMessage:
    """Return DICOM Instances Transferred (A.5.3.7).

    Parameters
    ----------
    action : str
        C when the receiver did not hold the instances, R when it held them already or that is
        not known, U when it changed its copies.
    others : Participant or several
        Above all a third party that asked for the transfer.
    """
    who = {"source": source, "destination": destination, "other": others}
    things = {"study": studies, "patient": patient}
    return build("instances_transferred", who, things, action=action, **facts)
