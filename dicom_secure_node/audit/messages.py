"""The audit messages a node sends, each built after its table in PS3.15 A.5.3.

The functions fill in codes and fixed values of the tables; `model` holds the values they return
and writes the XML. A patient or user nobody knows is ``(unknown)``: no placeholder is defined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from dicom_secure_node.audit.model import (
    MAJOR_FAILURE,
    MINOR_FAILURE,
    SERIOUS_FAILURE,
    SUCCESS,
    AuditMessage,
    AuditSource,
    Participant,
    ParticipantObject,
)
from dicom_secure_node.audit.text import REASON_LIMIT, UNKNOWN, cut
from dicom_secure_node.spec import audit as spec
from dicom_secure_node.spec.audit import Code

__all__ = [
    "AuditMessage",
    "AuditSource",
    "Code",
    "Participant",
    "ParticipantObject",
    "SUCCESS",
    "MINOR_FAILURE",
    "SERIOUS_FAILURE",
    "MAJOR_FAILURE",
    "UNKNOWN",
    "application_activity",
    "audit_log_used",
    "begin_transferring",
    "instances_accessed",
    "instances_transferred",
    "security_alert",
    "user_authentication",
    "study",
    "patient",
]


def application_activity(
    kind: Code,
    application: Participant,
    launcher: Participant | None = None,
    *,
    outcome: int = SUCCESS,
    reason: str = "",
    when: datetime | None = None,
) -> AuditMessage:
    """Return Application Activity (A.5.3.1); `kind` APPLICATION_START or APPLICATION_STOP."""
    who = [_with_role(application, spec.ROLE_APPLICATION)]
    if launcher is not None:
        who.append(_with_role(launcher, spec.ROLE_LAUNCHER))
    return AuditMessage(
        spec.APPLICATION_ACTIVITY, "E", tuple(who), (), (kind,), outcome, reason, when
    )


def audit_log_used(
    accessors: Iterable[Participant], uri: str, *, when: datetime | None = None
) -> AuditMessage:
    """Return Audit Log Used (A.5.3.2): somebody read the trail found at `uri`."""
    log = ParticipantObject(uri, spec.URI, 2, 13, "Security Audit Log")
    return AuditMessage(spec.AUDIT_LOG_USED, "R", tuple(accessors), (log,), when=when)


def begin_transferring(
    source: Participant,
    destination: Participant,
    studies: Iterable[ParticipantObject],
    patient: ParticipantObject,
    *,
    others: Iterable[Participant] = (),
    when: datetime | None = None,
) -> AuditMessage:
    """Return Begin Transferring DICOM Instances (A.5.3.3)."""
    who = _transfer(source, destination, others)
    return AuditMessage(spec.BEGIN_TRANSFERRING, "E", who, (*studies, patient), when=when)


def instances_accessed(
    action: str,
    accessors: Iterable[Participant],
    studies: Iterable[ParticipantObject],
    patient: ParticipantObject,
    *,
    outcome: int = SUCCESS,
    reason: str = "",
    when: datetime | None = None,
) -> AuditMessage:
    """Return DICOM Instances Accessed (A.5.3.6); one or two `accessors`, `action` C R U or D."""
    objects = (*studies, patient)
    return AuditMessage(
        spec.INSTANCES_ACCESSED, action, tuple(accessors), objects, (), outcome, reason, when
    )


def instances_transferred(
    action: str,
    source: Participant,
    destination: Participant,
    studies: Iterable[ParticipantObject],
    patient: ParticipantObject,
    *,
    others: Iterable[Participant] = (),
    outcome: int = SUCCESS,
    reason: str = "",
    when: datetime | None = None,
) -> AuditMessage:
    """Return DICOM Instances Transferred (A.5.3.7).

    `action` is C when the receiver did not hold the instances, R when it held them already or
    that is not known, U when it changed its copies. Partly failed: two messages (A.5.2).
    """
    who = _transfer(source, destination, others)
    objects = (*studies, patient)
    return AuditMessage(spec.INSTANCES_TRANSFERRED, action, who, objects, (), outcome, reason, when)


def security_alert(
    kind: Code,
    description: str,
    reporter: Participant,
    *,
    subject: str = "",
    subject_type: Code = spec.NODE_ID,
    performer: Participant | None = None,
    outcome: int = SERIOUS_FAILURE,
    when: datetime | None = None,
) -> AuditMessage:
    """Return Security Alert (A.5.3.11).

    Parameters
    ----------
    kind : Code
        Of CID 403, e.g. NODE_AUTHENTICATION.
    description : str
        What happened, in words: also the outcome description.
    subject : str
        The node (name or IP address) or, with `subject_type` URI, the resource concerned. Empty:
        the reporter itself, so that the alert description always has a place.
    performer : Participant, optional
        Who did it; never marked as requestor.
    outcome : int
        0 informative, 4 or 8 the countermeasures held, 12 they may have failed.
    """
    who = [reporter]
    if performer is not None:
        who.append(_as_bystander(performer))
    text = cut(description, REASON_LIMIT) or UNKNOWN
    detail = ("Alert Description", text.encode("utf-8", "replace"))
    name = subject or reporter.user_id
    about = ParticipantObject(name, subject_type, 2, 13, name, details=(detail,))
    return AuditMessage(
        spec.SECURITY_ALERT, "E", tuple(who), (about,), (kind,), outcome, description, when
    )


def user_authentication(
    kind: Code,
    user: Participant,
    node: Participant | None = None,
    *,
    outcome: int = SUCCESS,
    reason: str = "",
    when: datetime | None = None,
) -> AuditMessage:
    """Return User Authentication (A.5.3.12); `kind` LOGIN or LOGOUT.

    `user.address` is mandatory there: where the user came from.
    """
    if not cut(user.address):
        user = replace(user, address=UNKNOWN)
    who = (user,) if node is None else (user, node)
    return AuditMessage(spec.USER_AUTHENTICATION, "E", who, (), (kind,), outcome, reason, when)


def study(
    uid: str,
    description: str = "",
    *,
    accessions: Iterable[str] = (),
    sop_classes: Mapping[str, int] | None = None,
    encrypted: bool | None = None,
    anonymized: bool | None = None,
) -> ParticipantObject:
    """Return a study for the message's objects; without description its UID is its name.

    `sop_classes` maps SOP Class UIDs to numbers of instances. When anything else of the
    description is given without it, a SOPClass with 0 instances is added (A.5.2 SOPClass, MC).
    """
    classes = tuple((sop_classes or {}).items())
    numbers = tuple(accessions)
    if not classes and (numbers or encrypted is not None or anonymized is not None):
        classes = (("", 0),)
    return ParticipantObject(
        uid,
        spec.STUDY_INSTANCE_UID,
        2,
        3,
        description if description.strip() else uid,
        accessions=numbers,
        sop_classes=classes,
        encrypted=encrypted,
        anonymized=anonymized,
    )


def patient(patient_id: str, name: str = "", *, with_name: bool = True) -> ParticipantObject:
    """Return the patient for the message's objects.

    Parameters
    ----------
    with_name : bool
        False writes ``(unknown)`` in place of the name: the table makes the name mandatory, a
        site may rule that it does not leave the node.
    """
    return ParticipantObject(patient_id, spec.PATIENT_NUMBER, 1, 1, name if with_name else "")


def _with_role(who: Participant, role: Code) -> Participant:
    return who if role in who.roles else replace(who, roles=(role, *who.roles))


def _as_bystander(who: Participant) -> Participant:
    return replace(who, requestor=False) if who.requestor else who


def _transfer(
    source: Participant, destination: Participant, others: Iterable[Participant]
) -> tuple[Participant, ...]:
    return (
        _with_role(source, spec.ROLE_SOURCE),
        _with_role(destination, spec.ROLE_DESTINATION),
        *others,
    )
