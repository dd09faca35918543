"""Records of orders, patients and procedures (PS3.15 A.5.3.13 to A.5.3.15).

In all three, `users` are the person, the process, or both, that handle the record, and `action` is
C, R, U or D. Of an order the table has the patient only: no order number, no text of it.
"""

from __future__ import annotations

from typing import Unpack

from dicom_secure_node.audit.messages.assembly import Facts, Some, build
from dicom_secure_node.audit.messages.objects import Patient, Study
from dicom_secure_node.audit.model import AuditMessage, Participant


def order_record(
    action: str, users: Some[Participant], patient: Patient, **facts: Unpack[Facts]
) -> AuditMessage:
    """Return Order Record (A.5.3.13): an order is created, read, changed or deleted."""
    return build("order_record", {"user": users}, {"patient": patient}, action=action, **facts)


def patient_record(
    action: str, users: Some[Participant], patient: Patient, **facts: Unpack[Facts]
) -> AuditMessage:
    """Return Patient Record (A.5.3.14); no instances are involved."""
    return build("patient_record", {"user": users}, {"patient": patient}, action=action, **facts)


def procedure_record(
    action: str,
    users: Some[Participant],
    patient: Patient,
    *,
    studies: Some[Study] = (),
    **facts: Unpack[Facts],
) -> AuditMessage:
    """Return Procedure Record (A.5.3.15), e.g. of an MPPS; see `study` for its UID."""
    things = {"study": studies, "patient": patient}
    return build("procedure_record", {"user": users}, things, action=action, **facts)
