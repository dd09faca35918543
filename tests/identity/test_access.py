"""The access decision: what matches, what wins, and what is refused when nothing does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.access import AccessFacts, AccessPolicy, AccessRule
from tests.certs import Ca

CT = "1.2.840.10008.5.1.4.1.1.2"
FACTS = AccessFacts(
    calling_ae="CT1",
    called_ae="PACS",
    user="ada",
    user_proven=True,
    groups=frozenset({"radiology"}),
    address="10.1.2.3",
    listener="main",
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
}


@pytest.mark.parametrize(("rule", "reason"), BAD_RULES.values(), ids=BAD_RULES)
def test_bad_rule(rule: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        AccessRule(name="x", **rule)
