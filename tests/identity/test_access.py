"""The access decision: what matches, what wins, and what is refused when nothing does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.access import AccessFacts, AccessPolicy, AccessRule
from dicom_secure_node.identity.operations import operations_of
from tests.certs import Ca

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
VERIFICATION = "1.2.840.10008.1.1"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
PRINT_META = "1.2.840.10008.5.1.1.9"
UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
PRIVATE = "1.2.3.4"
FACTS = AccessFacts(
    calling_ae="CT1",
    called_ae="PACS",
    user="ada",
    user_proven=True,
    groups=frozenset({"radiology"}),
    attributes={"department": "radiology", "role": "reader\nradiographer", "o": ""},
    address="10.1.2.3",
    listener="main",
    at=datetime(2026, 3, 2, 9, 30, tzinfo=UTC),  # a Monday
)
STORE = replace(FACTS, operation="C-STORE", sop_class=CT)
FIND = replace(FACTS, operation="C-FIND", sop_class="1.2.840.10008.5.1.4.1.2.2.1")


def allow(**conditions: tuple[str, ...]) -> AccessRule:
    return AccessRule("allow", "a", **conditions)


def deny(**conditions: tuple[str, ...]) -> AccessRule:
    return AccessRule("deny", "d", **conditions)


CASES: dict[str, tuple[tuple[AccessRule, ...], AccessFacts, bool]] = {
    "no rule": ((), FACTS, True),
    "a rule without condition": ((allow(),), FACTS, True),
    "deny by default once a rule exists": ((allow(calling_ae=("MR1",)),), FACTS, False),
    "only deny rules: nothing is allowed": ((deny(calling_ae=("MR1",)),), FACTS, False),
    "deny wins, standing first": ((deny(user=("ada",)), allow()), FACTS, False),
    "deny wins, standing last": ((allow(), deny(user=("ada",))), FACTS, False),
    "one of a list is enough": ((allow(calling_ae=("MR1", "CT1")),), FACTS, True),
    "every condition has to hold": (
        (allow(calling_ae=("CT1",), address=("10.2.0.0/16",)),), FACTS, False,
    ),
    "two rules are alternatives": (
        (allow(calling_ae=("MR1",)), allow(address=("10.1.0.0/16",))), FACTS, True,
    ),
    "pattern": ((allow(calling_ae=("CT?",)),), FACTS, True),
    "pattern, case": ((allow(calling_ae=("ct?",)),), FACTS, False),
    "AE title padded on the wire": (
        (allow(calling_ae=("CT1",)),), replace(FACTS, calling_ae="CT1             "), True,
    ),
    "called AE title": ((allow(called_ae=("OTHER",)),), FACTS, False),
    "listener": ((allow(listener=("main",)),), FACTS, True),
    "other listener": ((allow(listener=("lab",)),), FACTS, False),
    "user": ((allow(user=("ada",)),), FACTS, True),
    "group": ((allow(user=("@radiology",)),), FACTS, True),
    "other group": ((allow(user=("@it*",)),), FACTS, False),
    "a group is no user": ((allow(user=("radiology",)),), FACTS, False),
    "a user is no group": ((allow(user=("@ada",)),), FACTS, False),
    "nobody identified, any user wanted": ((allow(user=("*",)),), replace(FACTS, user=""), False),
    "B.4 an unproven name opens nothing": (
        (allow(user=("ada",)),), replace(FACTS, user_proven=False), False,
    ),
    "B.4 an unproven name can close": (
        (allow(), deny(user=("ada",))), replace(FACTS, user_proven=False), False,
    ),
    "attribute": ((allow(attribute=("department=radiology",)),), FACTS, True),
    "attribute, pattern": ((allow(attribute=("department=radio*",)),), FACTS, True),
    "attribute, one value of several": ((allow(attribute=("role=radiographer",)),), FACTS, True),
    "attribute, no part of a value": ((allow(attribute=("role=radio",)),), FACTS, False),
    "attribute of another name": ((allow(attribute=("Department=radiology",)),), FACTS, False),
    "attribute with another value": ((allow(attribute=("department=it",)),), FACTS, False),
    "attribute without a value": ((allow(attribute=("o=*",)),), FACTS, False),
    "one attribute of a list is enough": (
        (allow(attribute=("department=it", "role=reader")),), FACTS, True,
    ),
    "user and attribute both have to hold": (
        (allow(user=("ada",), attribute=("department=it",)),), FACTS, False,
    ),
    "B.4 attributes of an unproven name open nothing": (
        (allow(attribute=("department=radiology",)),), replace(FACTS, user_proven=False), False,
    ),
    "attribute, deny": ((allow(), deny(attribute=("department=radiology",))), FACTS, False),
    "single address": ((allow(address=("10.1.2.3",)),), FACTS, True),
    "network": ((allow(address=("10.1.0.0/16",)),), FACTS, True),
    "other network": ((allow(address=("10.2.0.0/16",)),), FACTS, False),
    "IPv4 through an IPv6 listener": (
        (allow(address=("10.1.0.0/16",)),), replace(FACTS, address="::ffff:10.1.2.3"), True,
    ),
    "IPv6": ((allow(address=("fd00::/8",)),), replace(FACTS, address="fd12::1"), True),
    "IPv6 with a zone": (
        (allow(address=("fe80::/10",)),), replace(FACTS, address="fe80::1%eth0"), True,
    ),
    "no address known": ((allow(address=("0.0.0.0/0",)),), replace(FACTS, address=""), False),
    "no certificate shown": ((allow(certificate=("CN=*",)),), FACTS, False),
    "no certificate shown, deny": ((allow(), deny(certificate=("CN=*",))), FACTS, True),
    "operation": ((allow(operation=("C-STORE",)),), STORE, True),
    "other operation": ((allow(operation=("C-STORE",)),), FIND, False),
    "a group of operations": ((allow(operation=("store",)),), STORE, True),
    "a group of others": ((allow(operation=("query", "retrieve", "echo")),), STORE, False),
    "retrieve is C-MOVE and C-GET": (
        (allow(operation=("retrieve",)),), replace(STORE, operation="C-GET"), True,
    ),
    "SOP class by keyword": ((allow(sop_class=("CTImageStorage",)),), STORE, True),
    "SOP class by a pattern for keywords": ((allow(sop_class=("*ImageStorage",)),), STORE, True),
    "SOP class by another keyword": ((allow(sop_class=("MRImageStorage",)),), STORE, False),
    "on that day": ((allow(days=("mon-fri",), zone="UTC"),), FACTS, True),
    "on another day": ((allow(days=("sat", "sun"), zone="UTC"),), FACTS, False),
    "at that hour": ((allow(hours=("08:00-18:00",), zone="UTC"),), FACTS, True),
    "at another hour": ((allow(hours=("10:00-18:00",), zone="UTC"),), FACTS, False),
    "at that hour in another zone": (
        (allow(hours=("10:00-18:00",), zone="Europe/Berlin"),), FACTS, True,
    ),
    "denied at that hour": ((allow(), deny(hours=("09:00-10:00",), zone="UTC")), FACTS, False),
    "not denied at that hour": ((allow(), deny(hours=("10:00-11:00",), zone="UTC")), FACTS, True),
    "SOP class": ((allow(sop_class=(CT,)),), STORE, True),
    "SOP class pattern": ((allow(sop_class=("1.2.840.10008.5.1.4.1.1.*",)),), STORE, True),
    "other SOP class": ((allow(sop_class=(CT,)),), FIND, False),
    "denied operation": ((allow(), deny(operation=("C-STORE",))), STORE, False),
    "operation denied for another SOP class": (
        (allow(), deny(operation=("C-STORE",), sop_class=("1.2.3",))), STORE, True,
    ),
    "an association comes before its operations: allow counts": (
        (allow(operation=("C-STORE",)),), FACTS, True,
    ),
    "an association comes before its operations: deny waits": (
        (allow(), deny(operation=("C-STORE",))), FACTS, True,
    ),
    "but not for who asks": (
        (allow(operation=("C-STORE",), calling_ae=("MR1",)),), FACTS, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decision(case: Any) -> None:
    rules, facts, allowed = case
    for order in (rules, rules[::-1]):
        decision = AccessPolicy(order).decide(facts)
        assert decision.allowed == allowed, decision.reason
        assert decision.reason


def test_the_reason_names_the_rule() -> None:
    decision = AccessPolicy((AccessRule("deny", "no strangers"),)).decide(FACTS)
    assert decision.reason == "access rule 'no strangers' matches"


def test_the_clock_is_asked_where_the_facts_say_no_time() -> None:
    now = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
    policy = AccessPolicy((allow(hours=("08:00-18:00",), zone="UTC"),), clock=lambda: now)
    facts = replace(FACTS, at=None)
    assert policy.decide(facts).allowed
    assert policy.decide_contexts(facts, [CT])[CT].allowed
    now = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)
    assert not policy.decide(facts).allowed
    assert not policy.decide_contexts(facts, [CT])[CT].allowed


def test_a_time_without_zone_decides_nothing() -> None:
    policy = AccessPolicy((allow(hours=("08:00-18:00",), zone="UTC"),))
    with pytest.raises(ValueError, match="without a time zone"):
        policy.decide(replace(FACTS, at=datetime(2026, 3, 2)))


CONTEXTS: dict[str, tuple[tuple[AccessRule, ...], set[str]]] = {
    "no rule": ((), {VERIFICATION, CT, MR, STUDY_FIND, STUDY_GET, PRIVATE, UPS_PULL}),
    "everything": ((allow(),), {VERIFICATION, CT, MR, STUDY_FIND, STUDY_GET, PRIVATE, UPS_PULL}),
    "nobody": ((allow(calling_ae=("MR1",)),), set()),
    "operation: contexts it is not for go": (
        (allow(operation=("echo", "store")),), {VERIFICATION, CT, MR, PRIVATE, UPS_PULL},
    ),
    "retrieve": ((allow(operation=("retrieve",)),), {STUDY_GET, PRIVATE, UPS_PULL}),
    "SOP class": ((allow(sop_class=("CTImageStorage",)),), {CT, UPS_PULL}),
    "denied SOP class": (
        (allow(), deny(sop_class=("CTImageStorage",))),
        {VERIFICATION, MR, STUDY_FIND, STUDY_GET, PRIVATE, UPS_PULL},
    ),
    "denied operation": (
        (allow(), deny(operation=("store",))),
        {VERIFICATION, STUDY_FIND, STUDY_GET, PRIVATE, UPS_PULL},
    ),
    "operation denied for an SOP class that is not for it": (
        (allow(), deny(operation=("query",), sop_class=("CTImageStorage",))),
        {VERIFICATION, CT, MR, STUDY_FIND, STUDY_GET, PRIVATE, UPS_PULL},
    ),
    "two rules that deny all there is": (
        (allow(operation=("store", "query")), deny(operation=("store",)),
         deny(sop_class=(STUDY_FIND, PRIVATE))), {UPS_PULL},
    ),
    "a private SOP class may be asked for anything": (
        (allow(operation=("N-ACTION",), sop_class=(PRIVATE,)),), {PRIVATE, UPS_PULL},
    ),
    "at another hour": ((allow(hours=("10:00-11:00",), zone="UTC"),), set()),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "want"), CONTEXTS.values(), ids=CONTEXTS)
def test_contexts(rules: tuple[AccessRule, ...], want: set[str]) -> None:
    asked = [VERIFICATION, CT, MR, STUDY_FIND, STUDY_GET, PRIVATE, UPS_PULL]
    for order in (rules, rules[::-1]):
        found = AccessPolicy(order).decide_contexts(FACTS, asked)
        assert {uid for uid, decision in found.items() if decision.allowed} == want
        assert list(found) == asked
        assert all(decision.reason for decision in found.values())


def test_a_context_is_refused_only_where_every_request_by_it_would_be() -> None:
    """Whatever the rules, no context goes that the gate of operations would have let be used."""
    conditions: list[dict[str, tuple[str, ...]]] = [
        {}, {"operation": ("store",)}, {"operation": ("query", "C-GET")},
        {"sop_class": ("*Storage",)}, {"sop_class": (STUDY_MOVE, VERIFICATION)},
        {"operation": ("C-MOVE",), "sop_class": (STUDY_MOVE,)}, {"calling_ae": ("MR1",)},
    ]  # fmt: skip
    asked = [VERIFICATION, CT, STUDY_FIND, STUDY_GET, STUDY_MOVE, PRIVATE]
    for allowing in conditions:
        for denying in conditions:
            policy = AccessPolicy((allow(**allowing), deny(**denying)))
            for uid, decision in policy.decide_contexts(FACTS, asked).items():
                usable = any(
                    policy.decide(replace(FACTS, operation=operation, sop_class=uid)).allowed
                    for operation in operations_of(uid)
                )
                assert decision.allowed == usable, (allowing, denying, uid)


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [("CN=ct1,O=Test Hospital", True), ("CN=ct2,O=Test Hospital", False), ("dns:ct1.test", True)],
)
def test_certificate(tmp_path: Path, pattern: str, allowed: bool) -> None:
    leaf = Ca().write(tmp_path, "ct1", hosts=("ct1.test",))
    facts = replace(FACTS, certificate=leaf.certificate)
    assert AccessPolicy((allow(certificate=(pattern,)),)).decide(facts).allowed == allowed


BAD_RULES: dict[str, tuple[dict[str, Any], str]] = {
    "effect": ({"effect": "permit"}, "'permit', wanted 'allow' or 'deny'"),
    "network with host bits": ({"effect": "deny", "address": ("10.1.2.3/16",)}, "host bits"),
    "no network": ({"effect": "deny", "address": ("ct1.hospital",)}, "address: "),
    "operation": ({"effect": "allow", "operation": ("STORE",)}, "wanted one of C-ECHO"),
    "empty pattern": ({"effect": "allow", "user": ("",)}, "'' in user"),
    "control character": ({"effect": "allow", "calling_ae": ("CT\n",)}, "in calling_ae"),
    "no text": ({"effect": "allow", "sop_class": (1,)}, "1 in sop_class"),
    "certificate": ({"effect": "allow", "certificate": ("ct1",)}, "wanted a subject"),
    "keyword": ({"effect": "allow", "sop_class": ("CtImageStorage",)}, "mean CTImageStorage"),
    "keyword of a transfer syntax": (
        {"effect": "allow", "sop_class": ("ExplicitVRLittleEndian",)}, "wanted the UID or keyword",
    ),
    "attribute without value": ({"effect": "allow", "attribute": ("department",)}, "NAME=PATTERN"),
    "attribute without name": ({"effect": "allow", "attribute": ("=it",)}, "NAME=PATTERN"),
    "day": ({"effect": "allow", "days": ("monday",), "zone": "UTC"}, "'monday' in days"),
    "hours": ({"effect": "allow", "hours": ("8-18",), "zone": "UTC"}, "'8-18' in hours"),
    "no hours": ({"effect": "allow", "hours": ("08:00-08:00",), "zone": "UTC"}, "no time at all"),
    "hours without zone": ({"effect": "allow", "hours": ("08:00-18:00",)}, "without a zone"),
    "zone": ({"effect": "deny", "days": ("mon",), "zone": "Europe/Atlantis"}, "'Europe/Atlantis'"),
    "a path as zone": ({"effect": "deny", "days": ("mon",), "zone": "/etc/localtime"}, "zone"),
    "a folder as zone": ({"effect": "deny", "days": ("mon",), "zone": "Europe"}, "'Europe'"),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "reason"), BAD_RULES.values(), ids=BAD_RULES)
def test_bad_rule(rule: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        AccessRule(name="x", **rule)
