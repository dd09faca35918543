"""An audit message as a value, and its XML (PS3.15 A.5.1.1, A.5.2).

Event, participants and objects are frozen; `AuditMessage.to_xml` writes one line of XML that the
schema accepts whatever the text in the fields is:

* characters XML 1.0 forbids, and other control characters, become U+FFFD;
* white space is collapsed, text is cut at `text.TEXT_LIMIT` characters with an ellipsis;
* an optional field without text is not written, a mandatory one becomes ``(unknown)``
  (A.5.2.no_empty);
* of a long list of SOP Classes the last ones are one entry without UID, of accession numbers and
  MPPS the last ones are left out (`LIST_LIMIT`, `STEP_LIMIT`);
* lists of SOP Instance UIDs are never written (A.5.2: they make messages large);
  ``SOPClass`` with its number of instances stands for them.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address

from dicom_secure_node.audit.text import (
    ID_LIMIT,
    REASON_LIMIT,
    UNKNOWN,
    escaped,
    mandatory,
    optional,
    timestamp,
)
from dicom_secure_node.spec.audit import Code

# Accession numbers or SOP Classes of a study, and its MPPS. With these and the limits of `text` a
# message of one study stays below the 32768 octets every repository takes (A.6).
LIST_LIMIT = 12
STEP_LIMIT = 4

_ACTIONS = frozenset("CRUDE")

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
        NetworkAccessPointID.
    address_type : int or None
        NetworkAccessPointTypeCode (A.5.2.4); None: 2 for an IP address, 1 for a name.
    media : Code or None
        MediaType (CID 405) where the participant is a medium (A.5.3.4, A.5.3.5).
    """

    user_id: str
    requestor: bool = False
    ae_titles: tuple[str, ...] = ()
    alternative_id: str = ""
    name: str = ""
    address: str = ""
    roles: tuple[Code, ...] = ()
    address_type: int | None = None
    media: Code | None = None

    def _xml(self) -> str:
        alternative = self.alternative_id
        if self.ae_titles:
            alternative = "AETITLES=" + ";".join(title.strip() for title in self.ae_titles)
        requestor = "true" if self.requestor else "false"
        point = optional("NetworkAccessPointID", self.address)
        if point:
            kind = self.address_type or _access_point_type(self.address)
            point += f' NetworkAccessPointTypeCode="{kind:d}"'
        head = (
            f'<ActiveParticipant UserID="{mandatory(self.user_id)}"'
            f"{optional('AlternativeUserID', alternative)}{optional('UserName', self.name)}"
            f' UserIsRequestor="{requestor}"{point}'
        )
        inside = "".join([_coded("RoleIDCode", role) for role in self.roles])
        if self.media is not None:
            inside += f"<MediaIdentifier>{_coded('MediaType', self.media)}</MediaIdentifier>"
        return f"{head}>{inside}</ActiveParticipant>" if inside else head + "/>"


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
    query : bytes or None
        ParticipantObjectQuery, in base64; it stands in place of the name.
    details : tuple of (str, bytes)
        ParticipantObjectDetail pairs; values are written in base64.
    sop_classes : tuple of (str, int)
        SOP Class UID (may be empty) and number of instances.
    encrypted, anonymized : bool or None
        None: not said.
    mpps : tuple of str
        SOP Instance UIDs of Modality Performed Procedure Steps.
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
    mpps: tuple[str, ...] = ()
    query: bytes | None = None

    def _xml(self) -> str:
        role = "" if self.role is None else f' ParticipantObjectTypeCodeRole="{self.role:d}"'
        cycle = ""
        if self.life_cycle is not None:
            cycle = f' ParticipantObjectDataLifeCycle="{self.life_cycle:d}"'
        details = "".join(
            [
                f'<ParticipantObjectDetail type="{mandatory(kind)}" value="{_base64(value)}"/>'
                for kind, value in self.details
            ]
        )
        if self.query is None:
            what = f"<ParticipantObjectName>{mandatory(self.name)}</ParticipantObjectName>"
        else:
            what = f"<ParticipantObjectQuery>{_base64(self.query)}</ParticipantObjectQuery>"
        return (
            f'<ParticipantObjectIdentification ParticipantObjectID="{mandatory(self.object_id)}"'
            f' ParticipantObjectTypeCode="{self.type_code:d}"{role}{cycle}'
            f"{optional('ParticipantObjectSensitivity', self.sensitivity)}>"
            f"{_coded('ParticipantObjectIDTypeCode', self.id_type)}"
            f"{what}{details}{self._description()}</ParticipantObjectIdentification>"
        )

    def _description(self) -> str:
        parts = [
            f"<{element}{text}/>"
            for element, field, values in (
                ("MPPS", "UID", self.mpps[:STEP_LIMIT]),
                ("Accession", "Number", self.accessions[:LIST_LIMIT]),
            )
            for value in values
            if (text := optional(field, value, ID_LIMIT))
        ]
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

    Raises
    ------
    ValueError
        `outcome` or `action` is not one of A.5.2, or `when` has no time zone (A.5.2.5).
    """

    event: Code
    action: str
    participants: tuple[Participant, ...]
    objects: tuple[ParticipantObject, ...] = ()
    types: tuple[Code, ...] = ()
    outcome: int = SUCCESS
    reason: str = ""
    when: datetime | None = None

    def __post_init__(self) -> None:
        if self.outcome not in _PRIORITIES:
            raise ValueError(f"outcome {self.outcome!r}, wanted 0, 4, 8 or 12 (A.5.2)")
        if self.action not in _ACTIONS:
            raise ValueError(f"action {self.action!r}, wanted C, R, U, D or E (A.5.2)")
        if self.when is not None and self.when.utcoffset() is None:
            raise ValueError("a time without time zone, wanted an aware one (A.5.2.5)")

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


def _base64(octets: bytes) -> str:
    return b64encode(octets or UNKNOWN.encode()).decode("ascii")


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
