"""What an audit message says (PS3.15 A.5), and its XML.

A message is a frozen value: event, participants, objects. The functions below build the messages
of A.5.3 that a node reports, with the codes and fixed values of their tables; `AuditMessage.to_xml`
writes one line of XML that the schema of A.5.1.1 accepts whatever the text in the fields is:

* characters XML 1.0 forbids, and other control characters, become U+FFFD;
* white space is collapsed, text is cut at `TEXT_LIMIT` characters with an ellipsis;
* an optional field without text is not written, a mandatory one becomes ``(unknown)``
  (A.5.2.no_empty); an unknown patient's ID and name are ``(unknown)`` too;
* of a long list of SOP Classes the last ones are one entry without UID, of accession numbers the
  last ones are left out (`LIST_LIMIT`);
* lists of SOP Instance UIDs are never written (A.5.2: they make messages large);
  ``SOPClass`` with its number of instances stands for them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address

from dicom_secure_node.audit.text import (
    ID_LIMIT,
    REASON_LIMIT,
    cut,
    escaped,
    mandatory,
    optional,
    timestamp,
)
from dicom_secure_node.audit.text import (
    UNKNOWN as UNKNOWN,  # part of what this module offers
)
from dicom_secure_node.spec import audit as spec
from dicom_secure_node.spec.audit import Code

# Accession numbers or SOP Classes of one study. With this and the limits of `text` a message of
# one study stays below the 32768 octets every repository takes (A.6).
LIST_LIMIT = 16

SUCCESS = 0
MINOR_FAILURE = 4
SERIOUS_FAILURE = 8
MAJOR_FAILURE = 12

# Facility 10; severity by outcome: notice, warning, error, critical (A.6, A.7: usually 85).
_PRIORITIES = {SUCCESS: 85, MINOR_FAILURE: 84, SERIOUS_FAILURE: 83, MAJOR_FAILURE: 82}


@dataclass(frozen=True, slots=True)
class AuditSource:
    """The system that reports (AuditSourceIdentification).

    Attributes
    ----------
    source_id : str
        AuditSourceID, e.g. the host's name.
    site_id : str
        AuditEnterpriseSiteID, or empty.
    type_code : str
        A.5.1.2.1, e.g. ``4`` application server process.
    """

    source_id: str
    site_id: str = ""
    type_code: str = "4"


@dataclass(frozen=True, slots=True)
class Participant:
    """A person, process or node that took part (ActiveParticipant).

    Attributes
    ----------
    user_id : str
        A.5.2.1: ``login@domain`` of a person, the process ID or node name of a process.
    ae_titles : tuple of str
        Written as AlternativeUserID ``AETITLES=A;B`` (A.5.2.2).
    alternative_id : str
        A person's enterprise-wide identity, e.g. ``user@REALM``; only without `ae_titles`.
    name : str
        The person's name, or the process name.
    address : str
        NetworkAccessPointID; its type code is 2 for an IP address and 1 for a name.
    """

    user_id: str
    requestor: bool = False
    ae_titles: tuple[str, ...] = ()
    alternative_id: str = ""
    name: str = ""
    address: str = ""
    roles: tuple[Code, ...] = ()

    def _xml(self) -> str:
        alternative = self.alternative_id
        if self.ae_titles:
            alternative = "AETITLES=" + ";".join(title.strip() for title in self.ae_titles)
        requestor = "true" if self.requestor else "false"
        point = optional("NetworkAccessPointID", self.address)
        if point:
            point += f' NetworkAccessPointTypeCode="{_access_point_type(self.address)}"'
        head = (
            f'<ActiveParticipant UserID="{mandatory(self.user_id)}"'
            f"{optional('AlternativeUserID', alternative)}{optional('UserName', self.name)}"
            f' UserIsRequestor="{requestor}"{point}'
        )
        if not self.roles:
            return head + "/>"
        roles = "".join([_coded("RoleIDCode", role) for role in self.roles])
        return f"{head}>{roles}</ActiveParticipant>"


@dataclass(frozen=True, slots=True)
class ParticipantObject:
    """A thing the event was about (ParticipantObjectIdentification).

    Attributes
    ----------
    id_type : Code
        What kind of identifier `object_id` is (A.5.1.2.4, CID 404).
    type_code : int
        1 person, 2 system object, 3 organisation, 4 other.
    role : int or None
        ParticipantObjectTypeCodeRole (A.5.1.2.2).
    details : tuple of (str, bytes)
        ParticipantObjectDetail pairs; values are written in base64.
    sop_classes : tuple of (str, int)
        SOP Class UID (may be empty) and number of instances.
    encrypted, anonymized : bool or None
        None: not said.
    """

    object_id: str
    id_type: Code
    type_code: int
    role: int | None = None
    name: str = ""
    life_cycle: int | None = None
    sensitivity: str = ""
    details: tuple[tuple[str, bytes], ...] = ()
    accessions: tuple[str, ...] = ()
    sop_classes: tuple[tuple[str, int], ...] = ()
    encrypted: bool | None = None
    anonymized: bool | None = None

    def _xml(self) -> str:
        role = "" if self.role is None else f' ParticipantObjectTypeCodeRole="{self.role:d}"'
        cycle = ""
        if self.life_cycle is not None:
            cycle = f' ParticipantObjectDataLifeCycle="{self.life_cycle:d}"'
        details = "".join(
            [
                f'<ParticipantObjectDetail type="{mandatory(kind)}"'
                f' value="{b64encode(value).decode("ascii")}"/>'
                for kind, value in self.details
            ]
        )
        return (
            f'<ParticipantObjectIdentification ParticipantObjectID="{mandatory(self.object_id)}"'
            f' ParticipantObjectTypeCode="{self.type_code:d}"{role}{cycle}'
            f"{optional('ParticipantObjectSensitivity', self.sensitivity)}>"
            f"{_coded('ParticipantObjectIDTypeCode', self.id_type)}"
            f"<ParticipantObjectName>{mandatory(self.name)}</ParticipantObjectName>"
            f"{details}{self._description()}</ParticipantObjectIdentification>"
        )

    def _description(self) -> str:
        accessions = [escaped(number, ID_LIMIT) for number in self.accessions[:LIST_LIMIT]]
        parts = [f'<Accession Number="{number}"/>' for number in accessions if number]
        parts += [
            f'<SOPClass{optional("UID", uid, ID_LIMIT)} NumberOfInstances="{count:d}"/>'
            for uid, count in self.sop_classes[:LIST_LIMIT]
        ]
        if rest := self.sop_classes[LIST_LIMIT:]:  # the count stays right, UID is optional
            parts.append(f'<SOPClass NumberOfInstances="{sum(n for _, n in rest):d}"/>')
        for element, value in (("Encrypted", self.encrypted), ("Anonymized", self.anonymized)):
            if value is not None:
                parts.append(f"<{element}>{'true' if value else 'false'}</{element}>")
        if not parts:
            return ""
        body = "".join(parts)
        return f"<ParticipantObjectDescription>{body}</ParticipantObjectDescription>"


@dataclass(frozen=True, slots=True)
class AuditMessage:
    """One event to report.

    Attributes
    ----------
    action : str
        ``C`` create, ``R`` read, ``U`` update, ``D`` delete, ``E`` execute.
    outcome : int
        0 success, 4 minor, 8 serious, 12 major failure.
    reason : str
        EventOutcomeDescription: why, in words; no secret.
    when : datetime or None
        EventDateTime, aware; None: the trail puts the time it is told to report.
    """

    event: Code
    action: str
    participants: tuple[Participant, ...]
    objects: tuple[ParticipantObject, ...] = ()
    types: tuple[Code, ...] = ()
    outcome: int = SUCCESS
    reason: str = ""
    when: datetime | None = None

    @property
    def priority(self) -> int:
        """Return the syslog PRI: facility 10, severity by outcome (A.6, A.7)."""
        return _PRIORITIES[self.outcome]

    def to_xml(self, source: AuditSource, now: datetime) -> str:
        """Return the message as one line of XML without declaration.

        Parameters
        ----------
        source : AuditSource
            Who reports.
        now : datetime
            Aware; used where `when` is None.
        """
        reason = escaped(self.reason, REASON_LIMIT)
        if reason:
            reason = f"<EventOutcomeDescription>{reason}</EventOutcomeDescription>"
        types = "".join([_coded("EventTypeCode", code) for code in self.types])
        participants = "".join([one._xml() for one in self.participants])
        objects = "".join([one._xml() for one in self.objects])
        return (
            f'<AuditMessage><EventIdentification EventActionCode="{self.action}"'
            f' EventDateTime="{timestamp(self.when or now)}"'
            f' EventOutcomeIndicator="{self.outcome:d}">'
            f"{_coded('EventID', self.event)}{types}{reason}</EventIdentification>"
            f"{participants}{_source_xml(source)}{objects}</AuditMessage>"
        )


# --- The messages of A.5.3 a node reports --------------------------------------------------------


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
        user = _copy(user, address=UNKNOWN)
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


@lru_cache(512)
def _coded(element: str, code: Code) -> str:
    # Cached: elements are ours and codes come from the tables, so the set is small.
    return (
        f'<{element} csd-code="{escaped(code.value)}" codeSystemName="{escaped(code.system)}"'
        f' originalText="{escaped(code.meaning)}"/>'
    )


@lru_cache(512)
def _source_xml(source: AuditSource) -> str:
    return (
        f"<AuditSourceIdentification{optional('AuditEnterpriseSiteID', source.site_id)}"
        f' AuditSourceID="{mandatory(source.source_id)}">'
        f'<AuditSourceTypeCode csd-code="{mandatory(source.type_code)}"/>'
        f"</AuditSourceIdentification>"
    )


@lru_cache(4096)
def _access_point_type(address: str) -> int:
    """Return 2 for an IP address, 1 for a machine name (A.5.2.4)."""
    try:
        ip_address(address.partition("%")[0])
    except ValueError:
        return 1
    return 2


def _copy(
    who: Participant,
    *,
    requestor: bool | None = None,
    address: str | None = None,
    roles: tuple[Code, ...] | None = None,
) -> Participant:
    return Participant(
        who.user_id,
        who.requestor if requestor is None else requestor,
        who.ae_titles,
        who.alternative_id,
        who.name,
        who.address if address is None else address,
        who.roles if roles is None else roles,
    )


def _with_role(who: Participant, role: Code) -> Participant:
    return who if role in who.roles else _copy(who, roles=(role, *who.roles))


def _as_bystander(who: Participant) -> Participant:
    return _copy(who, requestor=False) if who.requestor else who


def _transfer(
    source: Participant, destination: Participant, others: Iterable[Participant]
) -> tuple[Participant, ...]:
    return (
        _with_role(source, spec.ROLE_SOURCE),
        _with_role(destination, spec.ROLE_DESTINATION),
        *others,
    )
