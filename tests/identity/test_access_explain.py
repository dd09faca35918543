"""Why the policy says yes or no, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.access import AccessFacts, AccessPolicy, AccessRule
from dicom_secure_node.identity.access_explain import explain
from tests.certs import Ca

CT = "1.2.840.10008.5.1.4.1.1.2"
FACTS = AccessFacts(
    calling_ae="CT1",
    called_ae="PACS",
    user="ada",
    user_proven=True,
    groups=frozenset({"radiology", "night"}),
    attributes={"department": "radiology", "phone": "secret"},
    address="10.1.2.3",
    listener="tls",
    operation="C-STORE",
    sop_class=CT,
    at=datetime(2026, 3, 1, 22, 30, tzinfo=UTC),  # a Sunday
)
RULES = (
    AccessRule("allow", "modalities", calling_ae=("CT*",), address=("10.1.0.0/16",)),
    AccessRule("deny", "weekend", days=("sat", "sun"), zone="UTC"),
    AccessRule("deny", "no strangers", calling_ae=("X*",), operation=("query",)),
)


def test_the_rule_that_decides_and_what_the_others_lack() -> None:
    found = explain(AccessPolicy(RULES), FACTS)
    assert not found.decision.allowed
    assert found.decision.rule is RULES[1]
    assert [one.key for one in found.outcomes] == [f"access.rule[{i}]" for i in range(3)]
    assert [(one.matches, one.decides) for one in found.outcomes] == [
        (True, False), (True, True), (False, False),
    ]  # fmt: skip
    assert [str(one) for one in found.outcomes[2].failures] == [
        "calling_ae is 'CT1', wanted X*",
        "operation is 'C-STORE', wanted query",
    ]


def test_no_rule_decides() -> None:
    found = explain(AccessPolicy(RULES[2:]), FACTS)
    assert found.decision.reason == "no access rule allows it"
    assert not any(one.decides for one in found.outcomes)
    assert explain(AccessPolicy(), FACTS).decision.allowed


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "called AE title": ({"called_ae": ("A", "B")}, "called_ae is 'PACS', wanted A or B"),
    "listener": ({"listener": ("lab",)}, "listener is 'tls', wanted lab"),
    "user and groups": ({"user": ("eve",)}, "user is 'ada' of 'night', 'radiology', wanted eve"),
    "attribute": (
        {"attribute": ("department=it",)},
        "attribute is department='radiology', wanted department=it",
    ),
    "unknown attribute": ({"attribute": ("role=x",)}, "attribute is unknown, wanted role=x"),
    "address": ({"address": ("10.2.0.0/16",)}, "address is '10.1.2.3', wanted 10.2.0.0/16"),
    "certificate": ({"certificate": ("CN=a",)}, "certificate is unknown, wanted CN=a"),
    "time": (
        {"days": ("mon-fri",), "hours": ("08:00-18:00",), "zone": "Europe/Berlin"},
        "time is Sun 23:30, wanted mon-fri 08:00-18:00 Europe/Berlin",
    ),
    "SOP class": (
        {"sop_class": ("MRImageStorage",)}, "sop_class is 'CTImageStorage', wanted MRImageStorage",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("conditions", "words"), FAILURES.values(), ids=FAILURES)
def test_failure(conditions: dict[str, Any], words: str) -> None:
    (outcome,) = explain(AccessPolicy((AccessRule("allow", **conditions),)), FACTS).outcomes
    assert [str(one) for one in outcome.failures] == [words]


def test_B4_a_name_nobody_verified_is_called_that() -> None:
    rules = AccessRule("allow", user=("ada",)), AccessRule("deny", user=("eve",))
    found = explain(AccessPolicy(rules), replace(FACTS, user_proven=False, groups=frozenset()))
    assert [str(one.failures[0]) for one in found.outcomes] == [
        "user is 'ada', whom nobody verified, wanted ada",
        "user is 'ada', wanted eve",
    ]


def test_the_certificate_is_named(tmp_path: Path) -> None:
    leaf = Ca().write(tmp_path, "ct1")
    policy = AccessPolicy((AccessRule("allow", certificate=("CN=ct2",)),))
    (outcome,) = explain(policy, replace(FACTS, certificate=leaf.certificate)).outcomes
    assert "'CN=ct1,O=Test Hospital', wanted CN=ct2" in str(outcome.failures[0])


def test_the_operation_follows_from_the_sop_class() -> None:
    found = explain(AccessPolicy(RULES), replace(FACTS, operation=""))
    assert found.facts.operation == "C-STORE"
    echo = explain(AccessPolicy(RULES), replace(FACTS, operation="C-ECHO", sop_class=""))
    assert echo.facts.sop_class == "1.2.840.10008.1.1"


@pytest.mark.parametrize("sop_class", ["1.2.3.4", "1.2.840.10008.5.1.1.9"])
def test_the_operation_does_not_follow(sop_class: str) -> None:
    with pytest.raises(ConfigurationError, match="and no operation, wanted both"):
        explain(AccessPolicy(RULES), replace(FACTS, operation="", sop_class=sop_class))


def test_without_either_an_association_is_asked_for() -> None:
    facts = replace(FACTS, operation="", sop_class="")
    rules = (
        AccessRule("allow", operation=("store",)),
        AccessRule("deny", operation=("store",)),
    )
    found = explain(AccessPolicy(rules), facts)
    assert found.decision.rule is rules[0]
    assert str(found.outcomes[1].failures[0]) == "operation is unknown, wanted store"


def test_facts_and_decisions_do_not_print_what_is_known_of_a_user() -> None:
    found = explain(AccessPolicy((AccessRule("allow", attribute=("department=it",)),)), FACTS)
    assert "secret" not in repr(found) + str(found.outcomes[0].failures[0])
