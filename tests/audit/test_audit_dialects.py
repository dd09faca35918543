# ruff: noqa: E501 - a case a line: tables to read
"""Dialects: known by their marks, never excused, and told apart from what breaks even them."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from lxml import etree

from dicom_secure_node.audit.dialects import DIALECTS, RFC_3881
from dicom_secure_node.audit.reading import Patient, summarise
from dicom_secure_node.audit.validate import validate
from tests.audit.test_audit_validate import CORPUS, GOOD

SAMPLES = {path.stem: path.read_text("utf-8") for path in sorted(CORPUS.glob("dialects/*.xml"))}

# sample: (dialect, rules it breaks and how often)
HABITS = {
    "dcm4che": (
        "dcm4che",
        {
            "A.5.1.1.xsi": 1,
            "A.5.1.1:ActiveParticipant.UserTypeCode": 2,
            "A.5.1.1:ActiveParticipant": 2,
            "A.5.1.1.coded": 3,
            "A.5.1.1.name_or_query": 1,
        },
    ),
    "ipf": (
        "IHE ATNA",
        {
            "A.5.1.1:EventIdentification": 1,
            "A.5.1.1.coded": 2,
            "A.5.1.1.name_or_query": 2,
            "A.5.1.1.base64": 1,
            "A.5.3.10:query": 1,
        },
    ),
    "rfc3881": (
        "RFC 3881",
        {
            "A.5.1.1.xsi": 1,
            "A.5.1.1.coded": 12,
            "A.5.1.1:ActiveParticipant.UserIsRequestor": 1,
            "A.5.1.1.name_or_query": 1,
            "A.5.1.1.one-source": 1,
        },
    ),
    "before-2016c": (
        "PS3.15 before 2017b",
        {"A.5.1.1:AuditSourceIdentification.code": 1, "A.5.1.1.coded": 2},
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_breaks_what_its_dialect_breaks_and_is_not_valid(name: str) -> None:
    report = validate(SAMPLES[name].encode())
    key, rules = HABITS[name]
    assert not report.valid
    assert report.dialect is not None
    assert report.dialect.key == key
    assert Counter(one.rule for one in report.problems) == rules
    assert {one.dialect for one in report.problems} == {key}
    assert all(one.change for one in report.problems)
    assert report.beyond_dialect == ()


# sentence: (sample, what to replace, by what, rules that break even the dialect)
BEYOND = {
    "dcm4che without its event": ("dcm4che", r"<EventID [^>]*>", "", {"A.5.1.1:EventIdentification.EventID"}),
    "dcm4che with two patients": ("dcm4che", r"(<ParticipantObjectIdentification ParticipantObjectID=\"P-.*?</ParticipantObjectIdentification>)", r"\1\1", {"A.5.3.7:patient"}),
    "dcm4che that writes TRUE": ("dcm4che", r'"true"', '"TRUE"', {"A.5.1.1.boolean"}),
    "dcm4che in which a transfer deletes": ("dcm4che", r'ActionCode="C"', 'ActionCode="D"', {"A.5.3.7:event.EventActionCode"}),
    "IHE without source": ("ipf", r"<AuditSourceIdent.*</AuditSourceIdentification>", "", {"A.5.1.1.one-source"}),
    "IHE with a time without zone": ("ipf", r"123456Z", "123456", {"A.5.2.5.timezone"}),
    "RFC 3881 with an outcome of its own": ("rfc3881", r'Indicator="0"', 'Indicator="5"', {"A.5.1.1:EventIdentification.EventOutcomeIndicator"}),
    "RFC 3881 with an element of DICOM": ("rfc3881", r"</EventIdentification>", "<EventOutcomeDescription>x</EventOutcomeDescription></EventIdentification>", {"RFC 3881 5.1"}),
    "RFC 3881 with an address that is a URI": ("rfc3881", r'PointTypeCode="2"', 'PointTypeCode="5"', {"RFC 3881 5.3"}),
    "RFC 3881 with a role of DICOM's": ("rfc3881", r'Role="3"', 'Role="25"', {"RFC 3881 5.5"}),
    "an earlier edition without participants": ("before-2016c", r"<ActiveParticipant [^>]*/>", "", {"A.5.1.1:AuditMessage.ActiveParticipant"}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "rules"), BEYOND.values(), ids=BEYOND)
def test_what_breaks_even_the_dialect(name: str, old: str, new: str, rules: set[str]) -> None:
    xml = re.sub(old, new, SAMPLES[name], count=1, flags=re.DOTALL)
    assert xml != SAMPLES[name]
    report = validate(xml.encode())
    assert {one.rule for one in report.beyond_dialect} == rules
    assert report.of_dialect


def test_tables_that_rfc_3881_does_not_have_are_no_fault_of_its_writers() -> None:
    xml = SAMPLES["rfc3881"].replace('EventActionCode="R"', 'EventActionCode="E"')
    report = validate(xml.encode())
    assert "A.5.3.6:event.EventActionCode" in {one.rule for one in report.of_dialect}
    assert report.beyond_dialect == ()


@pytest.mark.parametrize("section", GOOD)
def test_a_message_of_the_standard_is_in_no_dialect(section: str) -> None:
    report = validate(GOOD[section].encode())
    assert (report.dialect, report.own, report.advice) == (None, (), ())


def test_a_valid_message_of_a_product_is_valid() -> None:
    xml = GOOD["A.5.3.7"].replace(
        "</EventIdentification>",
        '<EventTypeCode csd-code="ITI-43" codeSystemName="IHE Transactions" originalText="Retrieve"/></EventIdentification>',
    )
    report = validate(xml.encode())
    assert report.valid
    assert report.dialect is not None
    assert report.dialect.key == "IHE ATNA"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.key)
def test_each_mark_is_found_and_each_habit_is_a_regular_expression(dialect: object) -> None:
    for one in DIALECTS:
        for mark in (*one.marks, *(own.broken for own in one.own)):
            etree.XPath(mark, namespaces={"xsi": "urn:x"})
        for habit in one.habits:
            re.compile(habit.rule)
            re.compile(habit.where)
            assert habit.differs
            assert habit.change
    assert RFC_3881.own


# sample: what lenient reading makes of it
READ = {
    "dcm4che": ("110104", 4, ["PACS", "CT99"], Patient("P-77^^^SITE-A", "Doe^Jane"), ("1.2.826.0.1.3680043.8.498.7",), "pacs-device"),
    "ipf": ("110112", 0, ["https://ehr.example.org/reply", "https://registry.example.org/iti18"], Patient("P-77^^^&1.2.3&ISO"), (), "ehr"),
    "rfc3881": ("110103", 0, ["ada@site-a"], Patient("P-77", "Doe^Jane"), ("1.2.826.0.1.3680043.8.498.7",), "viewer"),
    "before-2016c": ("110114", 0, ["ada@site-a"], None, (), "viewer"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_every_dialect_is_read(name: str) -> None:
    event, outcome, users, patient, studies, source = READ[name]
    found = summarise(SAMPLES[name].encode())
    assert found.trouble == ""
    assert found.event is not None
    assert (found.event.value, found.outcome) == (event, outcome)
    assert [one.user_id for one in found.users] == users
    assert found.patients == ((patient,) if patient else ())
    assert (found.studies, found.source) == (studies, source)
