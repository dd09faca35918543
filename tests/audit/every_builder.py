"""Every builder of A.5.3 with every combination of what may be said, as a table.

A row is a builder, what it cannot do without, and what else it takes; `combinations` multiplies
them out. What the message has to be is typed by hand from the printed tables, so that builders and
table data are checked against something neither of them made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any

from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit.messages import AuditMessage, Code, Medium, Participant
from dicom_secure_node.spec import audit as spec

PERSON = Participant("ada@example.org", True, alternative_id="ada@EXAMPLE.ORG", name="Ada")
PROCESS = Participant("815", ae_titles=("ARCHIVE",), name="archived", address="192.0.2.20")
PEER = Participant("2201", ae_titles=("CT1", "CT2"), address="ct1.example.org")
THIRD = Participant("third")
STUDY = m.study("1.2.826.0.1.3680043.8.498.1", "CT chest", sop_classes={"1.2.840.10008.1": 3})
PLAIN = m.study("1.2.826.0.1.3680043.8.498.2")
PATIENT = m.patient("PID-0042", "Doe^Jane")
OTHER = m.patient("PID-0043", "Doe^John")
LATER = datetime(2026, 11, 22, 10, 20, 5, tzinfo=timezone(timedelta(hours=1)))
DATA_SET = bytes.fromhex("08005200060000005354554459200000ff00fe")  # with a NUL and no end
DICOM = m.DicomQuery("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.2", DATA_SET)
MEDIA = [
    Medium(spec.CD, "file:///media/cd", "VOLUME1", "192.0.2.9"),
    Medium(spec.FILM, "film of printer 2"),
    Medium(spec.EMAIL, "mailto:a@b.example"),
    Medium(spec.MEDIA_URI, "https://b.example/share"),
    Medium(Code("T1", "Tape", "99LOCAL"), "tape 4"),
]
ALERTS = [spec.NODE_AUTHENTICATION, Code("A1", "Door open", "99LOCAL")]
ONE_OR_TWO = [PERSON, [PERSON, PROCESS]]
STUDIES = [STUDY, [STUDY, PLAIN]]


@dataclass(frozen=True)
class Case:
    """One builder.

    Attributes
    ----------
    needs : mapping
        Values of each parameter that has to be given.
    takes : mapping
        Values of each that may be left out.
    event, actions, roles, kinds : as the printed table has them
        Roles of one participant of each kind, and kinds of objects with one of each, in order.
    requestors : (int, int)
        How many there must and may be.
    """

    build: Callable[..., AuditMessage]
    event: str
    actions: str
    needs: Mapping[str, list[Any]]
    takes: Mapping[str, list[Any]] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    requestors: tuple[int, int] = (0, 1)
    never: tuple[str, ...] = ()  # parameters of which nobody may be marked as requestor
    facts: bool = True


FACTS: Mapping[str, list[Any]] = {"outcome": [4], "reason": ["why"], "when": [LATER]}
_TRANSFER: dict[str, Any] = {
    "takes": {"others": [THIRD, [THIRD, PERSON]]},
    "roles": ("110153", "110152", ""),
}
_OBJECTS = ("110180", "2")

CASES: Mapping[str, Case] = {
    "application_activity": Case(
        m.application_activity,
        "110100",
        "E",
        {"kind": [spec.APPLICATION_START, spec.APPLICATION_STOP], "application": [PROCESS]},
        {"launcher": [PERSON, [PERSON, THIRD]]},
        ("110150", "110151"),
    ),
    "audit_log_used": Case(
        m.audit_log_used,
        "110101",
        "R",
        {"accessors": ONE_OR_TWO, "uri": ["file:///var/audit"]},
        roles=("",),
        kinds=("12",),
    ),
    "begin_transferring": Case(
        m.begin_transferring,
        "110102",
        "E",
        {"source": [PEER], "destination": [PROCESS], "studies": STUDIES, "patient": [PATIENT]},
        kinds=_OBJECTS,
        **_TRANSFER,
    ),
    "data_export": Case(
        m.data_export,
        "110106",
        "R",
        {"local": ONE_OR_TWO, "medium": MEDIA, "patients": [PATIENT, [PATIENT, OTHER]]},
        {"studies": STUDIES, "remote": [THIRD, [THIRD, PEER]]},
        ("110152", "110153", "110154"),
        _OBJECTS,
        (1, 1),
    ),
    "data_import": Case(
        m.data_import,
        "110107",
        "C",
        {"importers": ONE_OR_TWO, "medium": MEDIA, "patients": [PATIENT, [PATIENT, OTHER]]},
        {"studies": STUDIES, "sources": [THIRD, [THIRD, PEER]]},
        ("110152", "110155", "110153"),
        _OBJECTS,
        (1, 1),
    ),
    "instances_accessed": Case(
        m.instances_accessed,
        "110103",
        "CRUD",
        {"accessors": ONE_OR_TWO, "studies": STUDIES, "patient": [PATIENT]},
        roles=("",),
        kinds=_OBJECTS,
    ),
    "instances_transferred": Case(
        m.instances_transferred,
        "110104",
        "CRU",
        {"source": [PEER], "destination": [PROCESS], "studies": STUDIES, "patient": [PATIENT]},
        kinds=_OBJECTS,
        **_TRANSFER,
    ),
    "study_deleted": Case(
        m.study_deleted,
        "110105",
        "D",
        {"deleters": ONE_OR_TWO, "studies": STUDIES, "patient": [PATIENT]},
        roles=("",),
        kinds=_OBJECTS,
    ),
    "network_entry": Case(
        m.network_entry,
        "110108",
        "E",
        {"kind": [spec.ATTACH, spec.DETACH], "node": [PROCESS]},
        roles=("",),
        never=("node",),
    ),
    "query": Case(
        m.query,
        "110112",
        "E",
        {
            "source": [PEER],
            "destination": [PROCESS],
            "asked": [DICOM, m.OtherQuery("studies", b"PatientID=P%00\xff")],
        },
        kinds=("110181",),
        **_TRANSFER,
    ),
    "security_alert": Case(
        m.security_alert,
        "110113",
        "E",
        {
            "kind": ALERTS,
            "description": ["words", b"GET \0\xff"],
            "reporter": ONE_OR_TWO,
        },
        {
            "subject": ["192.0.2.9", ["ct1@example.org", "ct2@example.org"]],
            "performer": [PEER, [PEER, THIRD]],
            "subject_type": [spec.URI],
            "outcome": [0, 4, 12],
            "when": [LATER],
        },
        ("", ""),
        ("110182",),
        never=("performer",),
        facts=False,
    ),
    "user_authentication": Case(
        m.user_authentication,
        "110114",
        "E",
        {"kind": [spec.LOGIN, spec.LOGOUT], "user": [PERSON, PEER]},
        {"node": [PROCESS]},
        ("", ""),
    ),
    "order_record": Case(
        m.order_record,
        "110109",
        "CRUD",
        {"users": ONE_OR_TWO, "patient": [PATIENT]},
        roles=("",),
        kinds=("2",),
    ),
    "patient_record": Case(
        m.patient_record,
        "110110",
        "CRUD",
        {"users": ONE_OR_TWO, "patient": [PATIENT]},
        roles=("",),
        kinds=("2",),
    ),
    "procedure_record": Case(
        m.procedure_record,
        "110111",
        "CRUD",
        {"users": ONE_OR_TWO, "patient": [PATIENT]},
        {"studies": STUDIES},
        ("",),
        _OBJECTS,
    ),
}


def needed(case: Case) -> dict[str, list[Any]]:
    """Return the values of what cannot be left out, the action with them where there is one."""
    action = {"action": list(case.actions)} if len(case.actions) > 1 else {}
    return {**action, **case.needs}


def simplest(case: Case) -> dict[str, Any]:
    """Return the first value of everything that has to be given."""
    return {name: values[0] for name, values in needed(case).items()}


def combinations(case: Case) -> Iterator[dict[str, Any]]:
    """Yield the arguments of every combination, with and without each optional one."""
    nothing = object()
    choices = needed(case)
    for name, values in {**case.takes, **(FACTS if case.facts else {})}.items():
        choices[name] = [nothing, *values]
    for values in product(*choices.values()):
        given = dict(zip(choices, values, strict=True))
        arguments = {name: value for name, value in given.items() if value is not nothing}
        # A third party that asked takes the place of the requestor.
        if sum(one.requestor for name in arguments for one in people(arguments[name])) <= 1:
            yield arguments


def people(value: Any) -> list[Participant]:
    """Return the participants in one argument."""
    several = value if isinstance(value, list) else [value]
    return [one for one in several if isinstance(one, Participant)]
