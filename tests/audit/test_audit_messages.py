"""What is written: every kind of message, whatever the text in it (PS3.15 A.5)."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit.messages import Participant
from dicom_secure_node.audit.text import cut
from dicom_secure_node.audit.validate import validate
from dicom_secure_node.spec import audit as spec
from tests import parts
from tests.audit.samples import NOW, SOURCE, every_kind, octets

RNC = Path(spec.__file__).with_name("audit_message.rnc")

HOSTILE = {
    "NUL and other control characters": "a\x00b\x01\x1b[31mc\x7f\x9b",
    "line feeds and tabs": "a\r\nb\tc\u2028d\x85e",
    "markup": """<a b="c" d='e'>&amp;]]><!-- --><?pi?></a>""",
    "a forged element": '"/><ActiveParticipant UserID="eve',
    "a forged syslog frame": "\n936 <85>1 - - - - - -",
    "an entity": "&xxe; &#0; &lt;",
    "lone surrogates and noncharacters": "\ud800 \udfff \ufffe \uffff",
    "other planes and marks": "\U0001f980 e\u0301 \u202e\u05d0",
    "10,000 letters": "x" * 10_000,
    "10,000 quotes": '"' * 10_000,
    "10,000 crabs": "\U0001f980" * 10_000,
    "blanks only": " \t\n ",
    "nothing": "",
    "patient name with carets": "M\u00fcller^J\u00f6rg=\u5c71\u7530^\u592a\u90ce",
}


@pytest.mark.parametrize("message", every_kind().values(), ids=every_kind())
def test_A5_every_kind_is_valid_and_one_line(message: m.AuditMessage) -> None:
    xml = octets(message)
    assert validate(xml).problems == ()
    assert b"\n" not in xml


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_A5_hostile_text_in_every_field(text: str) -> None:
    for name, message in every_kind(text, count=60).items():
        xml = octets(message)
        assert validate(xml).problems == (), name
        assert len(xml) <= 32768, name  # A.6.size


def test_A5_1_1_a_second_judge_agrees(tmp_path: Path) -> None:
    paths = []
    for n, text in enumerate(("text", *HOSTILE.values())):
        for k, message in enumerate(every_kind(text, count=3).values()):
            path = tmp_path / f"{n}-{k}.xml"
            path.write_bytes(octets(message))
            paths.append(path)
    done = parts.run(["jing", "-c", RNC, *paths])
    assert (done.returncode, done.stdout) == (0, "")


@given(st.text(st.characters(categories=None)))
def test_A5_any_unicode_in_valid_xml_out(text: str) -> None:
    who = Participant(text, address=text, name=text, alternative_id=text)
    message = m.security_alert(spec.NODE_AUTHENTICATION, text, who, subject=text)
    xml = octets(message)
    assert validate(xml).problems == ()
    participant = etree.fromstring(xml).find("ActiveParticipant")
    assert participant.get("UserID") == (cut(text) or "(unknown)")


@pytest.mark.parametrize("message", every_kind("").values(), ids=every_kind(""))
def test_A5_2_no_empty_attributes_and_elements(message: m.AuditMessage) -> None:
    for element in etree.fromstring(octets(message)).iter():
        assert "" not in element.attrib.values()
        assert element.attrib or len(element) or element.text


@pytest.mark.parametrize("message", every_kind().values(), ids=every_kind())
def test_A5_2_at_most_one_requestor(message: m.AuditMessage) -> None:
    root = etree.fromstring(octets(message))
    flags = [one.get("UserIsRequestor") for one in root.findall("ActiveParticipant")]
    assert flags.count("true") <= 1


def test_A5_3_11_the_performer_never_requests() -> None:
    eve = Participant("203.0.113.9", requestor=True)
    message = m.security_alert(spec.NODE_AUTHENTICATION, "x", Participant("1"), performer=eve)
    assert [one.requestor for one in message.participants] == [False, False]


def test_A5_3_11_the_alert_description_carries_the_reason() -> None:
    reason = "expired: the certificate of CN=ct1 ran out"
    message = m.security_alert(spec.NODE_AUTHENTICATION, reason, Participant("1"))
    root = etree.fromstring(octets(message))
    detail = root.find(".//ParticipantObjectDetail")
    assert detail.get("type") == "Alert Description"
    assert b64decode(detail.get("value")).decode() == reason
    assert root.findtext(".//EventOutcomeDescription") == reason


def test_A6_priority_by_outcome() -> None:
    def priority(outcome: int) -> int:
        return m.security_alert(spec.LOGIN, "x", Participant("1"), outcome=outcome).priority

    assert [priority(n) for n in (0, 4, 8, 12)] == [85, 84, 83, 82]


@pytest.mark.parametrize(
    ("when", "want"),
    [
        (NOW, "2026-11-22T09:30:05.123Z"),
        (NOW.astimezone(timezone(timedelta(hours=14))), "2026-11-22T09:30:05.123Z"),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2025-12-31T22:00:00.000Z"),
    ],
)
def test_A5_2_5_times_are_utc_with_zone(when: datetime, want: str) -> None:
    message = m.security_alert(spec.LOGIN, "x", Participant("1"), when=when)
    later = datetime(2030, 1, 1, tzinfo=UTC)
    assert f'EventDateTime="{want}"' in message.to_xml(SOURCE, later)


@pytest.mark.parametrize(
    ("address", "kind"),
    [("192.0.2.1", "2"), ("2001:db8::1", "2"), ("fe80::1%eth0", "2"), ("ct1.example.org", "1")],
)
def test_A5_2_4_network_access_point_type(address: str, kind: str) -> None:
    message = m.user_authentication(spec.LOGIN, Participant("u", address=address))
    participant = etree.fromstring(octets(message)).find("ActiveParticipant")
    assert participant.get("NetworkAccessPointID") == address
    assert participant.get("NetworkAccessPointTypeCode") == kind


def test_A5_2_2_ae_titles() -> None:
    message = m.application_activity(
        spec.APPLICATION_START, Participant("1", ae_titles=("ONE ", "TWO"))
    )
    assert 'AlternativeUserID="AETITLES=ONE;TWO"' in message.to_xml(SOURCE, NOW)


@pytest.mark.parametrize(
    ("thing", "want"),
    [
        (m.study("1.2.3", "CT chest"), "CT chest"),
        (m.study("1.2.3"), "1.2.3"),
        (m.patient("P1", "Doe^Jane"), "Doe^Jane"),
        (m.patient("P1"), "(unknown)"),
        (m.patient("P1", "Doe^Jane", with_name=False), "(unknown)"),
    ],
    ids=["described study", "study without words", "patient", "nameless", "name withheld"],
)
def test_A5_1_1_there_is_always_a_name(thing: m.ParticipantObject, want: str) -> None:
    message = m.AuditMessage(spec.INSTANCES_ACCESSED, "R", (Participant("1"),), (thing,))
    root = etree.fromstring(octets(message))
    assert root.findtext(".//ParticipantObjectName") == want


def test_A5_2_sopclass_counts_stay_right_in_long_lists() -> None:
    classes = {f"1.2.{n}": n for n in range(40)}
    study = m.study("1.2.3", sop_classes=classes)
    patient = m.patient("P1")
    message = m.instances_transferred("C", Participant("1"), Participant("2"), [study], patient)
    counts = etree.fromstring(octets(message)).findall(".//SOPClass")
    assert sum(int(one.get("NumberOfInstances")) for one in counts) == sum(range(40))
    assert not any(len(one) for one in counts)  # no Instance lists


def test_A5_2_sopclass_is_there_when_the_description_is() -> None:
    study = m.study("1.2.3", encrypted=True)
    message = m.begin_transferring(Participant("1"), Participant("2"), [study], m.patient("P"))
    assert validate(octets(message)).valid


def test_codes_are_those_of_the_context_groups() -> None:
    known = spec.meanings()
    named = [value for value in vars(spec).values() if isinstance(value, spec.Code)]
    assert len(named) > 25
    for code in named:
        if code.system == "DCM":
            assert known[code.value] == code.meaning
    assert spec.by_value("110126") == spec.NODE_AUTHENTICATION
