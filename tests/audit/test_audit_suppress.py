"""Which messages are not kept, and which rules are refused (``[[audit.suppress]]``)."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit.messages import Participant
from dicom_secure_node.audit.suppress import PROTECTED, AuditSuppressions, SuppressRule
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.spec import audit as spec
from tests.audit.samples import every_kind

NODE = Participant("815", ae_titles=("ARCHIVE",), address="192.0.2.20")
MONITOR = Participant("CN=monitor.x", True, ae_titles=("MONITOR ",), address="10.1.0.7")
STUDY, PATIENT = m.study("1.2.3"), m.patient("P1")
BEGIN = m.begin_transferring(MONITOR, NODE, STUDY, PATIENT)
FAILED = m.instances_transferred("R", MONITOR, NODE, STUDY, PATIENT, outcome=8)
LOGIN = m.user_authentication(spec.LOGIN, Participant("ada", True, address="ws1.Example.org"))

MATCHES = {
    "event by name": ({"event": ("Begin Transferring DICOM Instances",)}, BEGIN, True),
    "event by code": ({"event": ("110102",)}, BEGIN, True),
    "event in other letters and blanks": (
        {"event": (" begin  transferring DICOM instances",)}, BEGIN, True,
    ),
    "one of several events": ({"event": ("Query", "110102")}, BEGIN, True),
    "another event": ({"event": ("Query",)}, BEGIN, False),
    "event as the table is called": (
        {"event": ("Data Export",)},
        m.data_export(MONITOR, m.Medium(spec.CD, "x"), PATIENT),
        True,
    ),
    "type": ({"event": ("User Authentication",), "type": ("Login",)}, LOGIN, True),
    "another type": ({"event": ("User Authentication",), "type": ("Logout",)}, LOGIN, False),
    "a type where the event has none": ({"event": ("110102",), "type": ("110122",)}, BEGIN, False),
    "what failed is kept": ({"event": ("DICOM Instances Transferred",)}, FAILED, False),
    "what failed, if meant": (
        {"event": ("110104",), "outcome": (0, 8), "allow_security": True}, FAILED, True,
    ),
    "any outcome, if meant": (
        {"event": ("110104",), "outcome": (), "allow_security": True}, FAILED, True,
    ),
    "user by pattern": ({"event": ("110102",), "user": ("CN=monitor.*",)}, BEGIN, True),
    "a dot is a dot": ({"event": ("110102",), "user": ("CN=monitor?x", "?")}, BEGIN, True),
    "letters of a user matter": ({"event": ("110102",), "user": ("cn=MONITOR.x",)}, BEGIN, False),
    "a user pattern is for the whole": ({"event": ("110102",), "user": ("monitor",)}, BEGIN, False),
    "AE title": ({"event": ("110102",), "ae": ("MONITOR",)}, BEGIN, True),
    "another AE title": ({"event": ("110102",), "ae": ("MONITOR2",)}, BEGIN, False),
    "address": ({"event": ("110102",), "address": ("10.1.0.7",)}, BEGIN, True),
    "network": ({"event": ("110102",), "address": ("fd00::/8", "10.1.0.0/16")}, BEGIN, True),
    "another network": ({"event": ("110102",), "address": ("10.2.0.0/16",)}, BEGIN, False),
    "host name": ({"event": ("110114",), "address": ("WS1.example.org",)}, LOGIN, True),
    "an address is no name": ({"event": ("110114",), "address": ("10.1.0.7",)}, LOGIN, False),
    "both of one participant": (
        {"event": ("110102",), "ae": ("MONITOR",), "address": ("10.1.0.7",)}, BEGIN, True,
    ),
    "one of each of two participants": (
        {"event": ("110102",), "ae": ("ARCHIVE",), "address": ("10.1.0.7",)}, BEGIN, False,
    ),
    "a participant, whatever happens, if meant": (
        {"ae": ("MONITOR",), "allow_security": True}, BEGIN, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("conditions", "message", "want"), MATCHES.values(), ids=MATCHES)
def test_every_condition_given_has_to_match(
    conditions: Mapping[str, Any], message: m.AuditMessage, want: bool
) -> None:
    rules = AuditSuppressions([SuppressRule(**conditions)])
    assert rules.suppresses(message) is want
    assert rules.counts == (int(want),)


def test_an_ipv4_peer_on_a_socket_for_both_is_found() -> None:
    mapped = Participant("x", address="::ffff:10.1.0.7")
    message = m.begin_transferring(mapped, NODE, STUDY, PATIENT)
    assert SuppressRule(event=("110102",), address=("10.1.0.7",)).matches(message)


REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "no condition": ({}, "silence the trail"),
    "no condition, though meant": ({"allow_security": True}, "silence the trail"),
    "an outcome alone": ({"outcome": (0,), "allow_security": True}, "silence the trail"),
    "Security Alert": ({"event": ("Security Alert",)}, "Security Alert, wanted allow_security"),
    "Audit Log Used": ({"event": ("Query", "110101")}, "Audit Log Used, wanted allow_security"),
    "start and stop": ({"event": ("110100",)}, "Application Activity, wanted allow_security"),
    "a participant, whatever happens": ({"ae": ("X",)}, "Security Alert, Audit Log Used"),
    "a type of any event": ({"type": ("Login",)}, "Security Alert, Audit Log Used"),
    "failures": ({"event": ("Query",), "outcome": (0, 4)}, "events that failed"),
    "any outcome": ({"event": ("Query",), "outcome": ()}, "events that failed"),
    "an outcome nobody has": ({"event": ("Query",), "outcome": (1,)}, "outcome: found 1, wanted 0"),
    "an event nobody has": ({"event": ("Querry",)}, "event: found 'Querry'.*Data Export"),
    "a type nobody has": ({"event": ("Query",), "type": ("Log",)}, "type: found 'Log'"),
    "a network with host bits": ({"event": ("Query",), "address": ("10.1.0.7/8",)}, "host bits"),
    "half an address": ({"event": ("Query",), "address": ("10.1",)}, "address: '10.1'"),
    "an empty address": ({"event": ("Query",), "address": (" ",)}, "address: "),
}


@pytest.mark.parametrize(("conditions", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_at_load(conditions: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        SuppressRule(**conditions)


def test_without_leave_no_rule_hides_an_alert_a_look_at_the_trail_or_a_failure() -> None:
    """Every event, from every participant, against every rule that may be loaded without it."""
    rules = []
    for code in spec.group("CID 400").values():
        try:
            rules.append(SuppressRule(event=(code.value,)))
        except ConfigurationError:
            assert code in PROTECTED
    assert len(rules) == 12
    suppressions = AuditSuppressions(rules)
    for name, message in every_kind().items():
        hidden = suppressions.suppresses(message)
        assert hidden == (message.outcome == 0 and message.event not in PROTECTED), name


def test_each_rule_is_described_in_a_line() -> None:
    rules = AuditSuppressions(
        [
            SuppressRule(event=("Query", "110102"), ae=("A", "B"), reason="monitoring"),
            SuppressRule(user=("x*",), outcome=(), type=("Login",), allow_security=True),
        ]
    )
    assert rules.describe() == [
        "audit.suppress[0]: Begin Transferring DICOM Instances (110102), Query (110112); "
        "outcome 0; AE title A or B; because: monitoring",
        "audit.suppress[1]: every event; type Login (110122); user x*; any outcome; "
        "security events included",
    ]
    assert AuditSuppressions().describe() == []


def test_the_first_rule_that_matches_counts_also_with_many_threads() -> None:
    one, two = SuppressRule(event=("110102",)), SuppressRule(event=("110102", "110112"))
    rules = AuditSuppressions([one, two])
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(rules.suppresses, [BEGIN] * 2000))
    assert rules.counts == (2000, 0)
