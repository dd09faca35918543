# ruff: noqa: E501 - a case a line: a table to read
"""Advice: said, and no breach."""

from __future__ import annotations

import pytest

from dicom_secure_node.audit import rulebook
from dicom_secure_node.audit.validate import validate
from tests.audit.test_audit_validate import changed

# sentence: (message, what to replace, by what, rule)
CASES = {
    "an empty name": ("A.5.3.7", "<ParticipantObjectName>N</ParticipantObjectName>", "<ParticipantObjectName/>", "A.5.2.no_empty"),
    "an empty user name": ("A.5.3.9", 'UserID="cart7"', 'UserID="cart7" UserName=""', "A.5.2.no_empty"),
    "an empty description": ("A.5.3.12", ">wrong password<", "> <", "A.5.2.no_empty"),
    "a SOP Class that is no UID": ("A.5.3.7", "1.2.840.10008.5.1.4.1.1.2", "CT", "A.5.1.1.uid"),
    "a UID with a leading zero": ("A.5.3.7", '"1.2.3.4"', '"1.2.03.4"', "A.5.1.1.uid"),
    "a study by its name": ("A.5.3.7", 'ObjectID="1.2.3"', 'ObjectID="chest"', "A.5.1.1.uid"),
    "a study that contains itself": ("A.5.3.7", "<Encrypted>", '<ParticipantObjectContainsStudy><StudyIDs UID="1.2.3"/></ParticipantObjectContainsStudy><Encrypted>', "A.5.2.contains-study"),
    "one AE title in the singular": ("A.5.3.9", 'UserID="cart7"', 'UserID="cart7" AlternativeUserID="AETITLE=CART7"', "A.5.2.2.ae"),
    "AE titles after a blank": ("A.5.3.9", 'UserID="cart7"', 'UserID="cart7" AlternativeUserID="AETITLES= CART7"', "A.5.2.2.ae"),
    "a patient number of another system": ("A.5.3.13", "RFC-3881", "99X", "A.5.1.2.4"),
    "a patient number of another name": ("A.5.3.13", "Patient Number", "PID", "A.5.1.2.4"),
    "a further role that DICOM does not list": ("A.5.3.1", "</ActiveParticipant>", '<RoleIDCode csd-code="110156" codeSystemName="DCM" originalText="Initiator Role ID"/></ActiveParticipant>', "A.5.2.context-group"),
    "a subject in a deprecated role": ("A.5.3.11", 'Role="13"', 'Role="7"', "A.5.1.2.2"),
    "a subject that is a doctor and a system": ("A.5.3.11", 'Role="13"', 'Role="8"', "A.5.2.6"),
    "a login about an object": ("A.5.3.12", "</AuditMessage>", '<ParticipantObjectIdentification ParticipantObjectID="n"><ParticipantObjectIDTypeCode csd-code="110182" codeSystemName="DCM" originalText="Node ID"/><ParticipantObjectName>N</ParticipantObjectName></ParticipantObjectIdentification></AuditMessage>', "A.5.3.objects"),
}  # fmt: skip


@pytest.mark.parametrize(("base", "old", "new", "rule"), CASES.values(), ids=CASES)
def test_advice_is_no_breach(base: str, old: str, new: str, rule: str) -> None:
    report = validate(changed(base, old, new))
    assert {one.rule for one in report.advice} == {rule}
    assert report.valid


def test_every_advice_is_given_by_some_message() -> None:
    assert {rule for *_, rule in CASES.values()} == set(rulebook.ADVICE)
