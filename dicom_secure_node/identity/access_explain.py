"""Why the access policy says yes or no: the rule that decides, and what the others lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.access import (
    AccessDecision,
    AccessFacts,
    AccessPolicy,
    AccessRule,
)
from dicom_secure_node.identity.operations import carries_several, keyword_of, operations_of

UNKNOWN = "unknown"
_VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True)
class Failure:
    """A condition that does not hold.

    Attributes
    ----------
    condition : str
        The key of the rule; ``time`` for days and hours.
    found, wanted : str
        In words.
    """

    condition: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.condition} is {self.found}, wanted {self.wanted}"


@dataclass(frozen=True)
class RuleOutcome:
    """What one rule makes of the question.

    Attributes
    ----------
    key : str
        Where it stands in the configuration: ``access.rule[0]``.
    rule : AccessRule
    failures : tuple of Failure
        Every condition that does not hold; none where the rule matches.
    decides : bool
        Whether the decision is this rule's.
    """

    key: str
    rule: AccessRule
    failures: tuple[Failure, ...]
    decides: bool

    @property
    def matches(self) -> bool:
        """Whether every condition holds."""
        return not self.failures


@dataclass(frozen=True)
class Explanation:
    """A decision of the policy, and every rule's part in it.

    Attributes
    ----------
    facts : AccessFacts
        What the question was, completed.
    decision : AccessDecision
    outcomes : tuple of RuleOutcome
        In the order of the configuration.
    """

    facts: AccessFacts
    decision: AccessDecision
    outcomes: tuple[RuleOutcome, ...]


def explain(policy: AccessPolicy, facts: AccessFacts) -> Explanation:
    """Return the decision on `facts`, and why.

    Without an operation it is the one the SOP class is for; without either, the question is
    whether the association would be accepted.

    Raises
    ------
    ConfigurationError
        The SOP class could be asked for by several operations, and none is named.
    """
    facts = policy.timed(_completed(facts))
    decision = policy.decide(facts)
    outcomes = tuple(
        RuleOutcome(
            f"access.rule[{i}]",
            rule,
            tuple(Failure(name, *_WORDS[name](rule, facts)) for name in rule.failures(facts)),
            rule is decision.rule,
        )
        for i, rule in enumerate(policy.rules)
    )
    return Explanation(facts, decision, outcomes)


def _completed(facts: AccessFacts) -> AccessFacts:
    if facts.operation == "C-ECHO" and not facts.sop_class:
        return replace(facts, sop_class=_VERIFICATION)
    if facts.operation or not facts.sop_class:
        return facts
    operations = operations_of(facts.sop_class)
    if carries_several(facts.sop_class) or len(operations) > 1:
        raise ConfigurationError(
            f"found SOP class {facts.sop_class!r} and no operation, wanted both: it has several"
        )
    (operation,) = operations
    return replace(facts, operation=operation)


def _listed(members: tuple[str, ...]) -> str:
    return " or ".join(members)


def _text(found: str, members: tuple[str, ...]) -> tuple[str, str]:
    return (repr(found) if found else UNKNOWN), _listed(members)


def _user(rule: AccessRule, facts: AccessFacts) -> tuple[str, str]:
    groups = f" of {', '.join(map(repr, sorted(facts.groups)))}" if facts.groups else ""
    found = f"{facts.user!r}{groups}" if facts.user else UNKNOWN
    return found + _doubt(rule, facts), _listed(rule.user)


def _attribute(rule: AccessRule, facts: AccessFacts) -> tuple[str, str]:
    names = [name for name, _ in rule.attributes if name in facts.attributes]
    found = ", ".join(f"{name}={facts.attributes[name]!r}" for name in names) or UNKNOWN
    return found + _doubt(rule, facts), _listed(rule.attribute)


def _doubt(rule: AccessRule, facts: AccessFacts) -> str:
    unproven = facts.user and not facts.user_proven and rule.effect == "allow"
    return ", whom nobody verified" if unproven else ""


def _certificate(rule: AccessRule, facts: AccessFacts) -> tuple[str, str]:
    shown = facts.certificate
    return _text(shown.subject.rfc4514_string() if shown else "", rule.certificate)


def _time(rule: AccessRule, facts: AccessFacts) -> tuple[str, str]:
    if rule.schedule is None or facts.at is None:
        return UNKNOWN, ""
    return f"{rule.schedule.local(facts.at):%a %H:%M}", str(rule.schedule)


def _sop_class(rule: AccessRule, facts: AccessFacts) -> tuple[str, str]:
    keyword = keyword_of(facts.sop_class)
    return _text(keyword or facts.sop_class, rule.sop_class)


_WORDS: Mapping[str, Callable[[AccessRule, AccessFacts], tuple[str, str]]] = MappingProxyType(
    {
        "operation": lambda rule, facts: _text(facts.operation, rule.operation),
        "listener": lambda rule, facts: _text(facts.listener, rule.listener),
        "calling_ae": lambda rule, facts: _text(facts.calling_ae, rule.calling_ae),
        "called_ae": lambda rule, facts: _text(facts.called_ae, rule.called_ae),
        "sop_class": _sop_class,
        "user": _user,
        "attribute": _attribute,
        "address": lambda rule, facts: _text(facts.address, rule.address),
        "time": _time,
        "certificate": _certificate,
    }
)
