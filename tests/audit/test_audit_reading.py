# ruff: noqa: E501 - a case a line: a table to read
"""Lenient reading: who, what, when, from every form, wrapping and encoding of a message."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.audit.reading import READ_LIMIT, Patient, Summary, User, summarise
from dicom_secure_node.audit.syslog import NILVALUE, Header, frame, opening, syslog_message
from dicom_secure_node.spec.audit import Code
from tests.audit.samples import every_kind, octets

DCM = "DCM"
XML = """<AuditMessage><EventIdentification EventActionCode="C" EventDateTime="2026-11-22T10:20:05+01:00"
 EventOutcomeIndicator="8"><EventID csd-code="110104" codeSystemName="DCM" originalText="DICOM Instances Transferred"/>
<EventOutcomeDescription>disk full</EventOutcomeDescription></EventIdentification>
<ActiveParticipant UserID="2201" AlternativeUserID="AETITLES=CT99;CT98" UserName="M\u00fcller" UserIsRequestor="true"
 NetworkAccessPointID="192.0.2.10" NetworkAccessPointTypeCode="2"><RoleIDCode csd-code="110153" codeSystemName="DCM"
 originalText="Source Role ID"/></ActiveParticipant>
<AuditSourceIdentification AuditEnterpriseSiteID="Site-A" AuditSourceID="archive"/>
<ParticipantObjectIdentification ParticipantObjectID="1.2.3" ParticipantObjectTypeCode="2" ParticipantObjectTypeCodeRole="3">
<ParticipantObjectIDTypeCode csd-code="110180" codeSystemName="DCM" originalText="Study Instance UID"/>
<ParticipantObjectName>CT</ParticipantObjectName><ParticipantObjectDescription><Accession Number="A1"/>
</ParticipantObjectDescription></ParticipantObjectIdentification>
<ParticipantObjectIdentification ParticipantObjectID="P1" ParticipantObjectTypeCode="1" ParticipantObjectTypeCodeRole="1">
<ParticipantObjectIDTypeCode csd-code="2" codeSystemName="RFC-3881" originalText="Patient Number"/>
<ParticipantObjectName>Doe^Jane</ParticipantObjectName></ParticipantObjectIdentification></AuditMessage>"""

WANT = Summary(
    event=Code("110104", "DICOM Instances Transferred"),
    action="C",
    outcome=8,
    time=datetime(2026, 11, 22, 9, 20, 5, tzinfo=UTC),
    time_text="2026-11-22T10:20:05+01:00",
    users=(
        User(
            user_id="2201",
            ae_titles=("CT99", "CT98"),
            name="M\u00fcller",
            requestor=True,
            address="192.0.2.10",
            roles=(Code("110153", "Source Role ID"),),
        ),
    ),
    patients=(Patient("P1", "Doe^Jane"),),
    studies=("1.2.3",),
    accessions=("A1",),
    source="archive",
    site="Site-A",
    text="disk full",
)

UTF8 = XML.encode()
FIELDS = Header("ws7", "viewer", "4711").fields()
SYSLOG = syslog_message(opening(85, "2026-11-22T10:15:30.150Z", FIELDS), NILVALUE, XML.encode())
ESCAPED = SYSLOG.replace(b"\n", b"#012")

# sentence: octets that all say the same
FORMS = {
    "bare XML": UTF8,
    "with a BOM": b"\xef\xbb\xbf" + UTF8,
    "with two BOMs": b"\xef\xbb\xbf" * 2 + UTF8,
    "with blanks in front": b"\r\n  " + UTF8,
    "with a declaration": b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n' + UTF8,
    "Latin-1, declared": b'<?xml version="1.0" encoding="ISO-8859-1"?>' + XML.encode("latin-1"),
    "UTF-16 with a BOM": XML.encode("utf-16"),
    "UTF-16, big-endian, no BOM": XML.encode("utf-16-be"),
    "UTF-16, declared": ('<?xml version="1.0" encoding="utf-16"?>' + XML).encode("utf-16"),
    "UTF-32 with a BOM": XML.encode("utf-32"),
    "a syslog message": SYSLOG,
    "a frame": frame(SYSLOG),
    "a syslog message without BOM": SYSLOG.replace(b"\xef\xbb\xbf", b""),
    "structured data": SYSLOG.replace(b" - \xef", b' [a@1 b="\\]<x>"][c d="e"] \xef'),
    "structured data that looks like a message": SYSLOG.replace(b" - \xef", b' [a@1 b="<AuditMessage/>"] \xef'),
    "an RFC 3164 header": b"<85>Nov 22 10:15:30 ws7 viewer[4711]: " + UTF8,
    "a header without PRI, as in a collector's file": b"Nov 22 10:15:30 ws7 viewer[4711]: " + UTF8,
    "line feeds as rsyslog escapes them": ESCAPED,
    "eight bit characters escaped, too": ESCAPED.replace(b"\xef\xbb\xbf", b"#357#273#277").replace("\u00fc".encode(), b"#303#274"),
    "a line of a node's store": json.dumps({"seq": 1, "xml": XML}).encode(),
    "a prefix and a namespace": UTF8.replace(b"<AuditMessage>", b'<a:AuditMessage xmlns:a="urn:x">').replace(b"</AuditMessage>", b"</a:AuditMessage>"),
    "names of RFC 3881": UTF8.replace(b"csd-code", b"code").replace(b"originalText", b"displayName"),
    "codes without their meaning": UTF8.replace(b'originalText="DICOM Instances Transferred"', b""),
    "another case": UTF8.replace(b"UserIsRequestor=\"true\"", b"userIsRequestor=\"TRUE\""),
    "source before participants": UTF8.replace(b"<ActiveParticipant", b"<AuditSourceIdentification AuditSourceID='archive' AuditEnterpriseSiteID='Site-A'/><ActiveParticipant"),
    "the study in an element of its own": UTF8.replace(b"110180", b"99").replace(b"Study Instance UID", b"x").replace(b"<Accession", b'<ParticipantObjectContainsStudy><StudyIDs UID="1.2.3"/></ParticipantObjectContainsStudy><Accession'),
}  # fmt: skip


@pytest.mark.parametrize("raw", FORMS.values(), ids=FORMS)
def test_every_form_says_the_same(raw: bytes) -> None:
    assert summarise(raw) == WANT


# sentence: octets, what is different then
DAMAGED = {
    "Latin-1, undeclared": (XML.encode("latin-1"), {"trouble": "octet 383 is not utf-8"}),
    "UTF-8 that declares UTF-16": (b'<?xml version="1.0" encoding="utf-16"?>' + UTF8, {"trouble": "declares utf-16, the octets are not"}),
    "a declaration that is none": (b"<?xml encoding=\"utf-8\"?>" + UTF8, {"trouble": "an XML declaration that is none"}),
    "cut off in the patient": (UTF8[: UTF8.index(b"<ParticipantObjectName>Doe")], {"patients": (Patient("P1"),), "trouble": "line 14: no element found"}),
    "cut off inside a character": (UTF8[: UTF8.index(b"\xbc")], {"users": (), "patients": (), "studies": (), "accessions": (), "source": "", "site": "", "trouble": "line 4: unclosed token"}),
    "an ampersand nobody escaped": (UTF8.replace(b"disk full", b"disk & full &x;"), {"text": "disk & full &x;"}),
    "a control character": (UTF8.replace(b"disk full", b"disk\x07full"), {"text": "disk\ufffdfull"}),
    "a time without zone": (UTF8.replace(b"10:20:05+01:00", b"09:20:05"), {"time_text": "2026-11-22T09:20:05", "zoned": False}),
    "a leap second": (UTF8.replace(b"10:20:05", b"10:20:60"), {"time": datetime(2026, 11, 22, 9, 20, 59, tzinfo=UTC), "time_text": "2026-11-22T10:20:60+01:00"}),
    "a time nobody knows": (UTF8.replace(b"2026-11-22T10:20:05+01:00", b"yesterday"), {"time": None, "time_text": "yesterday"}),
    "a time before the calendar": (UTF8.replace(b"2026-11-22T10:20:05+01:00", b"0001-01-01T00:00:00+01:00"), {"time": None, "time_text": "0001-01-01T00:00:00+01:00"}),
    "an outcome of its own": (UTF8.replace(b'Indicator="8"', b'Indicator="3"'), {"outcome": None}),
    "a requestor of its own": (UTF8.replace(b'"true"', b'"maybe"'), {"users": (replace(WANT.users[0], requestor=None),)}),
    "an action of its own": (UTF8.replace(b'ActionCode="C"', b'ActionCode="X"'), {"action": ""}),
    "a second source": (UTF8.replace(b"<ParticipantObjectId", b'<AuditSourceIdentification AuditSourceID="b"/><ParticipantObjectId', 1), {}),
    "text after the end": (UTF8 + b"\n<more/>", {"trouble": "line 15: junk after document element"}),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "change"), DAMAGED.values(), ids=DAMAGED)
def test_what_can_be_read_is_read(raw: bytes, change: dict[str, object]) -> None:
    assert summarise(raw) == replace(WANT, **change)  # type: ignore[arg-type]


BOMB = "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(20))
HOSTILE = {
    "nothing": (b"", "line 1: no element found"),
    "no XML": (b"<85>1 - - - - - - hello", "line 1: not well-formed (invalid token)"),
    "another root": (b"<html/>", "no AuditMessage"),
    "many laughs": (f'<!DOCTYPE AuditMessage [<!ENTITY a "lol">{BOMB}]>{XML}'.encode(), "a document type declaration"),
    "an external entity": (f'<!DOCTYPE a SYSTEM "file:///etc/passwd">{XML}'.encode(), "a document type declaration"),
    "very deep": (b"<a>" * 300_000, "more than 32 elements within one another"),
    "JSON, very deep": (b'{"xml":' * 100_000, "line 1: not well-formed (invalid token)"),
    "a line of a store that holds a number": (b'{"xml": 5}', "line 1: not well-formed (invalid token)"),
    "too large": (b"<AuditMessage>" + b" " * READ_LIMIT, f"{READ_LIMIT + 14} octets, {READ_LIMIT} of them read"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "trouble"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_input_is_a_summary_with_trouble(raw: bytes, trouble: str) -> None:
    assert summarise(raw) == Summary(trouble=trouble)


def test_lists_and_texts_are_bounded() -> None:
    user = (
        '<ActiveParticipant UserID="'
        + "u" * 500
        + '" AlternativeUserID="AETITLES='
        + "a;" * 99
        + '"/>'
    )
    alert = b64encode(b"x" * 9000).decode()
    thing = f'<ParticipantObjectIdentification ParticipantObjectID="p" ParticipantObjectTypeCodeRole="1"><ParticipantObjectDetail type="Alert Description" value="{alert}"/></ParticipantObjectIdentification>'
    found = summarise(f"<AuditMessage>{user * 1000}{thing * 10}</AuditMessage>".encode())
    assert (len(found.users), len(found.users[0].user_id), len(found.users[0].ae_titles)) == (
        256,
        256,
        16,
    )
    assert len(found.text) == 1024
    assert found.patients == (Patient("p"),)
    assert found.nodes == ("a",)


@pytest.mark.parametrize("kind", every_kind())
def test_our_own_messages_are_read_in_full(kind: str) -> None:
    message = every_kind("t\u00e9xt & <more>")[kind]
    found = summarise(octets(message))
    assert found.trouble == ""
    assert (found.event, found.types) == (message.event, message.types)
    assert (found.action, found.outcome) == (message.action, message.outcome)
    assert [one.user_id for one in found.users] == [one.user_id for one in message.participants]
    assert [one.requestor for one in found.users] == [one.requestor for one in message.participants]
    assert found.source == "archive.example.org"
    studies = {one.object_id for one in message.objects if one.id_type.value == "110180"}
    assert set(found.studies) == studies
    patients = {(one.object_id, one.name) for one in message.objects if one.id_type.value == "2"}
    assert len(found.patients) == len(patients)  # an export may name the same one twice


@given(st.data())
def test_reading_never_raises(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(list(FORMS.values()))))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=8))
    assert isinstance(summarise(bytes(raw)), Summary)


@given(st.binary(max_size=300))
def test_reading_never_raises_on_noise(raw: bytes) -> None:
    assert isinstance(summarise(raw), Summary)
