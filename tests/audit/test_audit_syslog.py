"""Header, BOM and octet count, against the digest's worked example (RFC 5424, RFC 5425)."""

from __future__ import annotations

import pytest

from dicom_secure_node.audit.syslog import (
    NILVALUE,
    Header,
    frame,
    identifier,
    is_identifier,
    opening,
    syslog_message,
)
from dicom_secure_node.audit.validate import validate

# A failed log-in at a viewer; the u umlaut takes two octets.
XML = (
    '<?xml version="1.0" encoding="UTF-8"?><AuditMessage><EventIdentification EventActionCode="E" '
    'EventDateTime="2024-11-22T10:15:30.123Z" EventOutcomeIndicator="4"><EventID '
    'csd-code="110114" codeSystemName="DCM" originalText="User Authentication"/><EventTypeCode '
    'csd-code="110122" codeSystemName="DCM" originalText="Login"/><EventOutcomeDescription>wrong '
    "password</EventOutcomeDescription></EventIdentification><ActiveParticipant "
    'UserID="m.mueller@ws7.example.org" UserName="M\u00fcller, Maja" UserIsRequestor="true" '
    'NetworkAccessPointID="192.0.2.17" NetworkAccessPointTypeCode="2"/><ActiveParticipant '
    'UserID="4711" AlternativeUserID="AETITLES=VIEWER1" UserName="viewerd" '
    'UserIsRequestor="false"/><AuditSourceIdentification AuditEnterpriseSiteID="Site-A" '
    'AuditSourceID="ws7.example.org"><AuditSourceTypeCode csd-code="1"/>'
    "</AuditSourceIdentification></AuditMessage>"
)
HEADER = Header("ws7.example.org", "viewerd", "4711")
BEGIN = opening(85, "2024-11-22T10:15:30.150Z", HEADER.fields())


def test_A6_worked_example_octet_for_octet() -> None:
    message = syslog_message(BEGIN, NILVALUE, XML.encode())
    head = b"<85>1 2024-11-22T10:15:30.150Z ws7.example.org viewerd 4711 DICOM+RFC3881 - "
    assert message == head + b"\xef\xbb\xbf" + XML.encode()
    assert (len(head), len(message), len(frame(message))) == (76, 936, 940)
    assert frame(message)[:24] == bytes.fromhex("393336203c38353e3120323032342d31312d32325431303a")
    tail = bytes.fromhex("202d20efbbbf3c3f786d6c20766572")
    assert frame(message)[77:92] == tail
    assert validate(XML.encode()).valid


@pytest.mark.parametrize(
    ("header", "want"),
    [
        (Header("h", "a b", "1", "IHE+RFC-3881"), "h a_b 1 IHE+RFC-3881"),
        (Header("", "", "", ""), "- - - DICOM+RFC3881"),
        (Header("h\u00f6st", "a\nb", "1\x00", "M"), "h_st a_b 1_ M"),
        (
            Header("h" * 300, "a" * 60, "1" * 200, "m" * 40),
            f"{'h' * 255} {'a' * 48} {'1' * 128} {'m' * 32}",
        ),
    ],
    ids=["blank in APP-NAME", "nothing given", "not printable ASCII", "too long"],
)
def test_RFC5424_header_fields(header: Header, want: str) -> None:
    assert header.fields() == want


@pytest.mark.parametrize("priority", [-1, 192])
def test_RFC5424_priority_out_of_range(priority: int) -> None:
    with pytest.raises(ValueError, match="PRI"):
        opening(priority, "-", "- - - M")


IDENTIFIERS = {
    "none": ("none", 7, "-"),
    "the first of a store": ("sequence", 1, '[meta sequenceId="1"]'),
    "the last before it begins anew": ("sequence", 2**31 - 1, '[meta sequenceId="2147483647"]'),
    "the first of the second turn": ("sequence", 2**31, '[meta sequenceId="1"]'),
    "an element of the site's own": (
        "record@32473",
        2**31,
        '[record@32473 store="5f0c" sequence="2147483648"]',
    ),
}


@pytest.mark.parametrize(("kind", "number", "want"), IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_RFC5424_7_3_1_identifier(kind: str, number: int, want: str) -> None:
    assert is_identifier(kind)
    data = identifier(kind, number, "5f0c")
    assert data == want.encode()
    message = syslog_message(BEGIN, data, XML.encode())
    assert f" DICOM+RFC3881 {want} ".encode() + b"\xef\xbb\xbf<?xml" in message
    assert validate(message).valid


@pytest.mark.parametrize(
    "kind",
    ["", "uuid", "meta", "a@b", "a@0", "a b@1", 'a"@1', "a]@1", "a=@1", "a@1@2", "a" * 31 + "@1"],
)
def test_RFC5424_6_3_2_no_name_of_an_element(kind: str) -> None:
    assert not is_identifier(kind)
