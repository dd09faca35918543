"""The fifteen builders: what each writes, and what none of them lets through (PS3.15 A.5.3)."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from datetime import datetime
from itertools import combinations as choose
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit import rules
from dicom_secure_node.audit.messages import AuditMessage, Participant
from dicom_secure_node.audit.messages.access import QUERY_LIMIT
from dicom_secure_node.audit.validate import validate
from dicom_secure_node.spec import audit as spec
from tests import parts
from tests.audit import every_builder as every
from tests.audit.every_builder import CASES, Case
from tests.audit.samples import octets

RNC = Path(spec.__file__).with_name("audit_message.rnc")
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def written(message: AuditMessage) -> Any:
    """Return the root of a message that the validator finds nothing in."""
    xml = octets(message)
    assert validate(xml).problems == (), xml
    return etree.fromstring(xml)


def check(name: str) -> None:
    """Build and judge every combination; then compare one of them with the printed table."""
    case = CASES[name]
    for arguments in every.combinations(case):
        written(case.build(**arguments))
    for action in case.actions:
        arguments = every.simplest(case) | {name: v[0] for name, v in case.takes.items()}
        arguments.pop("subject_type", None)
        if len(case.actions) > 1:
            arguments["action"] = action
        root = written(case.build(**arguments))
        event = root.find("EventIdentification")
        assert event.find("EventID").get("csd-code") == case.event
        assert event.get("EventActionCode") == action
        assert [code(one, "RoleIDCode") for one in root.iter("ActiveParticipant")] == [*case.roles]
        things = root.iter("ParticipantObjectIdentification")
        assert [code(one, "ParticipantObjectIDTypeCode") for one in things] == [*case.kinds]


def code(element: Any, tag: str) -> str:
    found = element.find(tag)
    return "" if found is None else str(found.get("csd-code"))


def test_A5_3_1_application_activity() -> None:
    check("application_activity")


def test_A5_3_2_audit_log_used() -> None:
    check("audit_log_used")


def test_A5_3_3_begin_transferring() -> None:
    check("begin_transferring")


def test_A5_3_4_data_export() -> None:
    check("data_export")


def test_A5_3_5_data_import() -> None:
    check("data_import")


def test_A5_3_6_instances_accessed() -> None:
    check("instances_accessed")


def test_A5_3_7_instances_transferred() -> None:
    check("instances_transferred")


def test_A5_3_8_study_deleted() -> None:
    check("study_deleted")


def test_A5_3_9_network_entry() -> None:
    check("network_entry")


def test_A5_3_10_query() -> None:
    check("query")


def test_A5_3_11_security_alert() -> None:
    check("security_alert")


def test_A5_3_12_user_authentication() -> None:
    check("user_authentication")


def test_A5_3_13_order_record() -> None:
    check("order_record")


def test_A5_3_14_patient_record() -> None:
    check("patient_record")


def test_A5_3_15_procedure_record() -> None:
    check("procedure_record")


def test_every_table_has_a_builder_of_its_name() -> None:
    tables = [row["key"] for row in spec.messages().values()]
    assert list(CASES) == sorted(CASES, key=tables.index)
    assert set(tables) == set(CASES)
    assert set(tables) <= set(m.__all__)
    for name, case in CASES.items():
        assert case.build is getattr(m, name)


def test_the_page_lists_every_builder_and_every_switch() -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8").splitlines()
    for name in (*CASES, *spec.OPEN_POINTS):
        assert sum(line.startswith(f"| `{name}` | A.5.3") for line in page) == 1, name


def test_A5_1_1_a_second_judge_agrees_on_every_combination(tmp_path: Path) -> None:
    made = {
        octets(case.build(**arguments))
        for case in CASES.values()
        for arguments in every.combinations(case)
    }
    assert len(made) > 3000
    paths = [tmp_path / f"{number}.xml" for number in range(len(made))]
    for path, xml in zip(paths, sorted(made), strict=True):
        path.write_bytes(xml)
    done = parts.run(["jing", "-c", RNC, *paths])
    assert (done.returncode, done.stdout) == (0, "")


# --- What cannot be left out ---


@EVERY_CASE
def test_what_is_required_cannot_be_left_out(case: Case) -> None:
    whole = every.simplest(case)
    for name in whole:
        rest = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(TypeError):
            case.build(**rest)
        if name not in ("uri", "description"):  # without text: "(unknown)"
            for nothing in (None, ()):
                with pytest.raises((TypeError, ValueError, AttributeError)):
                    case.build(**rest, **{name: nothing})


LISTS = ("accessors", "studies", "patients", "local", "importers", "deleters", "users", "reporter")


@EVERY_CASE
def test_what_is_required_is_there_at_least_once(case: Case) -> None:
    whole = every.simplest(case)
    for name in (name for name in LISTS if name in case.needs):
        with pytest.raises(ValueError, match=r"found 0, wanted 1 .*\(A\.5\.3\.\d+ "):
            case.build(**whole | {name: []})


@EVERY_CASE
def test_A5_2_requestors_are_as_many_as_the_table_has(case: Case) -> None:
    """Every way to mark participants: built where the table allows it, else a ValueError."""
    whole = every.simplest(case) | {name: values[0] for name, values in case.takes.items()}
    slots = [name for name, value in whole.items() if every.people(value)]
    least, most = case.requestors
    for flags in product((False, True), repeat=len(slots)):
        arguments = dict(whole)
        for name, flag in zip(slots, flags, strict=True):
            arguments[name] = replace(arguments[name], requestor=flag)
        marked = [name for name, flag in zip(slots, flags, strict=True) if flag]
        counted = len([name for name in marked if name not in case.never])
        if least <= counted <= most:
            root = written(case.build(**arguments))
            true = root.xpath("//ActiveParticipant[@UserIsRequestor='true']")
            assert len(true) == counted
        else:
            with pytest.raises(ValueError, match="requestors, wanted"):
                case.build(**arguments)


SLIPS = {
    "an action the table lacks": lambda: m.instances_transferred(
        "D", every.PEER, every.PROCESS, every.STUDY, every.PATIENT
    ),
    "an action nobody has": lambda: m.order_record("X", every.PERSON, every.PATIENT),
    "three people where two may be": lambda: m.study_deleted(
        [every.PERSON, every.PROCESS, every.THIRD], every.STUDY, every.PATIENT
    ),
    "two patients where one may be": lambda: m.order_record(
        "R",
        every.PERSON,
        [every.PATIENT, every.OTHER],  # type: ignore[arg-type]
    ),
    "a study for a patient": lambda: m.order_record("R", every.PERSON, every.STUDY),  # type: ignore[arg-type]
    "a patient for a study": lambda: m.study_deleted(every.PERSON, every.PATIENT, every.PATIENT),  # type: ignore[arg-type]
    "an event type of another event": lambda: m.user_authentication(spec.ATTACH, every.PERSON),
    "an event type of ours where the list is closed": lambda: m.network_entry(
        m.Code("1", "Sleep", "99LOCAL"), every.PROCESS
    ),
    "a medium that is none": lambda: m.Medium(spec.LOGIN, "x"),
    "a role that is another's": lambda: m.query(
        every.PEER,
        every.PROCESS,
        every.DICOM,
        others=replace(every.THIRD, roles=(spec.by_value("110153"),)),
    ),
    "a query without transfer syntax": lambda: m.query(
        every.PEER, every.PROCESS, m.DicomQuery("1.2", "", b"")
    ),
    "a DICOM query as another one": lambda: m.OtherQuery("1.2", b"", spec.SOP_CLASS_UID),
    "an outcome nobody has": lambda: m.patient_record("R", every.PERSON, every.PATIENT, outcome=2),
    "a time without zone": lambda: m.patient_record(
        "R", every.PERSON, every.PATIENT, when=datetime(2026, 1, 1)
    ),
}


@pytest.mark.parametrize("slip", SLIPS.values(), ids=SLIPS)
def test_what_the_table_does_not_allow_is_not_built(slip: Any) -> None:
    with pytest.raises(ValueError, match="wanted"):
        slip()


@pytest.mark.parametrize("people", ["ada", [every.STUDY], [None]], ids=["text", "object", "None"])
def test_what_is_no_participant_is_a_type_error(people: Any) -> None:
    with pytest.raises(TypeError, match=r"wanted Participant \(A\.5\.3\.13 user\)"):
        m.order_record("R", people, every.PATIENT)


# --- What is said of people and things ---


def test_A5_2_every_combination_of_what_is_known_of_a_participant(tmp_path: Path) -> None:
    known: list[dict[str, Any]] = [
        {"ae_titles": ("CT1",)},
        {"alternative_id": "ada@EXAMPLE.ORG"},
        {"name": "Ada"},
        {"address": "2001:db8::1"},
        {"address": "tel:1", "address_type": 3},
        {"roles": (spec.by_value("110150"),)},
        {"requestor": True},
    ]
    for size in range(len(known) + 1):
        for chosen in choose(known, size):
            who = Participant("ada", **{k: v for facts in chosen for k, v in facts.items()})
            written(m.patient_record("R", who, every.PATIENT))


def test_A5_2_every_combination_of_what_is_known_of_a_study() -> None:
    known: dict[str, Any] = {
        "description": "CT chest",
        "accessions": ["A1", "A2"],
        "sop_classes": {"1.2.840.10008.5.1.4.1.1.2": 3, "": 1},
        "mpps": ["1.2.3.4"],
        "encrypted": True,
        "anonymized": False,
    }
    for size in range(len(known) + 1):
        for names in choose(known, size):
            study = m.study("1.2.3", **{name: known[name] for name in names})
            root = written(m.procedure_record("U", every.PERSON, every.PATIENT, studies=study))
            described = root.find(".//ParticipantObjectDescription")
            assert (described is None) == (set(names) <= {"description"})


@EVERY_CASE
def test_patient_and_order_data_are_what_the_table_has_and_no_more(case: Case) -> None:
    whole = every.simplest(case) | {name: values[0] for name, values in case.takes.items()}
    root = written(case.build(**whole))
    for thing in root.iter("ParticipantObjectIdentification"):
        if thing.get("ParticipantObjectTypeCode") == "1":
            assert [child.tag for child in thing] == [
                "ParticipantObjectIDTypeCode",
                "ParticipantObjectName",
            ]
    assert len(root.findall("ParticipantObjectIdentification")) == len(case.kinds)


# --- Conditions, decided from the facts ---


@pytest.mark.parametrize("kind", spec.group("CID 405").values(), ids=lambda code: code.meaning)
def test_A5_3_4_every_kind_of_medium(kind: m.Code) -> None:
    for build in (m.data_export, m.data_import):
        written(build(every.PERSON, m.Medium(kind, "x"), every.PATIENT))


@pytest.mark.parametrize("build", [m.data_export, m.data_import])
@pytest.mark.parametrize(
    ("medium", "point", "kind"),
    [
        (m.Medium(spec.CD, "CD 4711"), None, None),
        (m.Medium(spec.FILM, "printer 2"), None, None),
        (m.Medium(spec.EMAIL, "mailto:a@b.example"), "a@b.example", "4"),
        (m.Medium(spec.MEDIA_URI, "https://b.example/x"), "https://b.example/x", "5"),
        (m.Medium(spec.MEDIA_URI, "https://b.example/x", address="192.0.2.1"), "192.0.2.1", "2"),
        (m.Medium(spec.MEDIA_URI, " "), "(unknown)", "5"),
    ],
    ids=["disc", "film", "e-mail", "place on a network", "known node", "nothing known"],
)
def test_A5_3_4_a_network_target_has_an_access_point(
    build: Any, medium: m.Medium, point: str | None, kind: str | None
) -> None:
    root = written(build(every.PERSON, medium, every.PATIENT))
    (one,) = root.xpath("//ActiveParticipant[MediaIdentifier]")
    assert one.get("UserIsRequestor") == "false"
    assert one.get("NetworkAccessPointID") == point
    assert one.get("NetworkAccessPointTypeCode") == kind
    assert one.find("MediaIdentifier/MediaType").get("csd-code") == medium.kind.value


def test_A5_3_10_the_query_is_carried_octet_by_octet() -> None:
    root = written(m.query(every.PEER, every.PROCESS, every.DICOM))
    assert b64decode(root.findtext(".//ParticipantObjectQuery")) == every.DATA_SET
    detail = root.find(".//ParticipantObjectDetail")
    assert detail.get("type") == "TransferSyntax"
    assert b64decode(detail.get("value")) == b"1.2.840.10008.1.2"
    assert root.find(".//ParticipantObjectName") is None


def test_A5_3_10_a_very_long_query_is_cut_and_says_so() -> None:
    asked = replace(every.DICOM, data_set=b"\xff" * 1_000_000)
    message = m.query(every.PEER, every.PROCESS, asked)
    assert len(octets(message)) <= 32768  # A.6.size
    root = written(message)
    assert len(b64decode(root.findtext(".//ParticipantObjectQuery"))) == QUERY_LIMIT
    last = root.findall(".//ParticipantObjectDetail")[-1]
    assert (last.get("type"), b64decode(last.get("value"))) == ("Query Length", b"1000000")


def test_a_query_is_not_shown_by_repr() -> None:
    secret = b"Doe^Jane"
    for asked in (m.DicomQuery("1.2", "1.2", secret), m.OtherQuery("x", secret)):
        assert "Doe" not in repr(asked)


@pytest.mark.parametrize(
    ("description", "octets_", "words"),
    [
        ("a\0b\r\nc", b"a\0b\r\nc", "a\ufffdb c"),
        (b"GET \xff\xfe\0", b"GET \xff\xfe\0", "GET \ufffd\ufffd\ufffd"),
        ("\ud800", b"?", "\ufffd"),
        ("\u00e4" * 2000, ("\u00e4" * 512).encode(), "\u00e4" * 511 + "\u2026"),
        ("", b"(unknown)", None),
    ],
    ids=["control characters", "no UTF-8", "half a character", "very long", "nothing"],
)
def test_A5_3_11_malformed_text_is_carried_as_base64(
    description: Any, octets_: bytes, words: str | None
) -> None:
    root = written(m.security_alert(spec.NODE_AUTHENTICATION, description, every.PROCESS))
    assert b64decode(root.find(".//ParticipantObjectDetail").get("value")) == octets_
    assert root.findtext(".//EventOutcomeDescription") == words


# --- Points of edition 2024e that were not seen ---


@pytest.mark.parametrize("point", spec.OPEN_POINTS)
def test_A5_3_each_open_point_is_a_switch_and_either_reading_finds_our_messages_valid(
    point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = spec.messages(frozenset({point}))
    fields = [
        (row["section"], one["key"], name, field["usage"])
        for row in older.values()
        for one in row["objects"]
        for name, field in one["fields"].items()
    ]
    newer = [
        (row["section"], one["key"], name, field["usage"])
        for row in spec.messages().values()
        for one in row["objects"]
        for name, field in one["fields"].items()
    ]
    changed = set(fields) - set(newer)
    assert changed
    assert {(key, usage) for _, key, _, usage in changed} == {(point, "U")}
    monkeypatch.setattr(rules, "messages", lambda: older)
    for case in CASES.values():
        written(case.build(**every.simplest(case)))


def test_A5_3_every_row_that_was_not_seen_has_its_switch() -> None:
    unseen = {
        one["key"]
        for row in spec.tables()["messages"]
        for one in row["objects"]
        if any("usage_2024c" in field for field in one["fields"].values())
    }
    assert unseen == set(spec.OPEN_POINTS)
    assert not spec.READ_AS_2024C
