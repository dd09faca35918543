"""Instances are used or deleted, asked for, or the trail itself is read.

PS3.15 A.5.3.2, A.5.3.6, A.5.3.8 and A.5.3.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from dicom_secure_node.audit.messages.assembly import Facts, Some, build
from dicom_secure_node.audit.messages.objects import Patient, Study
from dicom_secure_node.audit.model import AuditMessage, Participant, ParticipantObject
from dicom_secure_node.spec import audit as spec
from dicom_secure_node.spec.audit import Code

LOG_NAME = "Security Audit Log"  # A.5.3.2, fixed text
QUERY_LIMIT = 12 * 1024  # octets of a query; with it a message stays below 32768 octets (A.6)


def audit_log_used(accessors: Some[Participant], uri: str, **facts: Unpack[Facts]) -> AuditMessage:
    """Return Audit Log Used (A.5.3.2): a person, a process or both read the trail at `uri`."""
    log = ParticipantObject(uri, spec.URI, 2, 13, LOG_NAME)
    return build("audit_log_used", {"accessor": accessors}, {"audit_log": log}, **facts)


def instances_accessed(
    action: str,
    accessors: Some[Participant],
    studies: Some[Study],
    patient: Patient,
    **facts: Unpack[Facts],
) -> AuditMessage:
    """Return DICOM Instances Accessed (A.5.3.6); one or two `accessors`, `action` C R U or D.

    When all instances of a study are deleted, report `study_deleted` in its place.
    """
    things = {"study": studies, "patient": patient}
    return build("instances_accessed", {"accessor": accessors}, things, action=action, **facts)


def study_deleted(
    deleters: Some[Participant],
    studies: Some[Study],
    patient: Patient,
    **facts: Unpack[Facts],
) -> AuditMessage:
    """Return DICOM Study Deleted (A.5.3.8): whole studies of one patient, in one action.

    `deleters` are the person, the process, or both.
    """
    things = {"study": studies, "patient": patient}
    return build("study_deleted", {"deleter": deleters}, things, **facts)


@dataclass(frozen=True, slots=True)
class DicomQuery:
    """A query by DIMSE.

    Attributes
    ----------
    sop_class : str
        UID of the SOP Class queried.
    transfer_syntax : str
        UID; `data_set` is encoded in it.
    data_set : bytes
        The Identifier as it came, whatever is in it; not shown by ``repr``.
    """

    sop_class: str
    transfer_syntax: str
    data_set: bytes

    def __repr__(self) -> str:
        return f"<query of {self.sop_class}, {len(self.data_set)} octets>"

    def _object(self) -> ParticipantObject:
        if not (self.sop_class.strip() and self.transfer_syntax.strip()):
            raise ValueError("no SOP class or transfer syntax, wanted both (A.5.3.10 query)")
        syntax = ("TransferSyntax", self.transfer_syntax.strip("\0 ").encode("ascii", "replace"))
        return _query(self.sop_class, spec.SOP_CLASS_UID, self.data_set, syntax)


@dataclass(frozen=True, slots=True)
class OtherQuery:
    """A query by another protocol, e.g. the URL of a QIDO-RS request.

    Attributes
    ----------
    identifier : str
        What was asked, of type `kind`; e.g. the name of the resource or transaction.
    octets : bytes
        The query in the format of its protocol; not shown by ``repr``.
    kind : Code
        Type of the identifier (A.5.1.2.4 or another system).
    """

    identifier: str
    octets: bytes
    kind: Code = spec.SEARCH_CRITERIA

    def __post_init__(self) -> None:
        if self.kind == spec.SOP_CLASS_UID:
            raise ValueError("kind SOP Class UID, wanted DicomQuery for that (A.5.3.10 query)")

    def __repr__(self) -> str:
        return f"<query {self.kind.meaning!r}, {len(self.octets)} octets>"

    def _object(self) -> ParticipantObject:
        return _query(self.identifier, self.kind, self.octets)


def query(
    source: Participant,
    destination: Participant,
    asked: DicomQuery | OtherQuery,
    *,
    others: Some[Participant] = (),
    **facts: Unpack[Facts],
) -> AuditMessage:
    """Return Query (A.5.3.10): what was asked, not what was answered.

    A query beyond `QUERY_LIMIT` octets is cut there, and a detail ``Query Length`` says how long
    it was.

    Parameters
    ----------
    source, destination : Participant
        Which process asks, which one will answer.
    others : Participant or several
        Above all a user who had it asked.
    """
    who = {"source": source, "destination": destination, "other": others}
    return build("query", who, {"query": asked._object()}, **facts)


def _query(
    identifier: str, kind: Code, octets: bytes, *details: tuple[str, bytes]
) -> ParticipantObject:
    if len(octets) > QUERY_LIMIT:
        details = (*details, ("Query Length", str(len(octets)).encode()))
    # Role 3, Report, is what the table prescribes, not 24, Query.
    return ParticipantObject(identifier, kind, 2, 3, details=details, query=octets[:QUERY_LIMIT])
