"""The access decision: who may associate and ask for what, and when.

The rules of `AccessPolicy.decide`, in order:

1. No rule at all: everybody the earlier gates let through may do everything.
2. A deny rule that matches wins, wherever it stands.
3. Otherwise an allow rule that matches admits.
4. Otherwise no: once there is a rule, refusing is the default.

So the order of the rules never matters, and no rule can open what another closed.

A rule matches when each of its conditions does; a condition is a list, one member is enough,
and an empty list sets no condition. A condition on something that is unknown (a certificate
that was not shown, a user who was not identified) does not match. A user name nobody proved
(PS3.15 B.4) can match a deny rule and never an allow rule; so it is with what is known of him.

The question is put three times:

* When an association is requested, operation and SOP class are not known yet: then an allow
  rule counts for its other conditions, and a deny rule that names operations or SOP classes
  waits.
* For each presentation context the SOP class is known, and so, mostly, is the operation
  (`operations.operations_of`): a context is refused when no request by it could be allowed.
* When an operation is requested, every condition counts, the time of day included.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from fnmatch import translate
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Literal

from cryptography import x509

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.certificate_binding import CertificatePattern
from dicom_secure_node.identity.operations import (
    carries_several,
    operations_named,
    operations_of,
    sop_class_patterns,
)
from dicom_secure_node.identity.schedule import Schedule

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class AccessFacts:
    """What is known of one request. An empty text or None means unknown.

    Attributes
    ----------
    calling_ae, called_ae : str
        AE titles.
    user : str
        The identified user.
    user_proven : bool
        Whether somebody verified that (`Identity.proven`).
    groups : frozenset of str
        Groups of the user; a rule names one as ``@GROUP`` in its list of users.
    attributes : mapping of str to str
        What else directory, assertion or token say of the user; several values of one are
        joined by a line feed.
    address : str
        IP address of the peer.
    certificate : x509.Certificate or None
        What TLS verified.
    listener : str
        Name of the listener.
    operation : str
        ``C-STORE`` and so on; empty while only an association is asked for.
    sop_class : str
        UID of the SOP class the operation is about.
    at : datetime or None
        When it is asked, aware; the policy looks at its clock where it is None.
    """

    calling_ae: str = ""
    called_ae: str = ""
    user: str = ""
    user_proven: bool = False
    groups: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=lambda: _NO_ATTRIBUTES, repr=False)
    address: str = ""
    certificate: x509.Certificate | None = field(default=None, repr=False)
    listener: str = ""
    operation: str = ""
    sop_class: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class AccessRule:
    """One ``[[access.rule]]``: an effect, and the conditions under which it holds.

    Attributes
    ----------
    effect : str
        ``allow`` or ``deny``.
    name : str
        What logs call the rule.
    calling_ae, called_ae, listener : tuple of str
        Patterns with ``*`` and ``?``, case matters.
    user : tuple of str
        Patterns for user names; ``@`` begins a pattern for group names.
    attribute : tuple of str
        ``NAME=PATTERN``: what directory, assertion or token must say of the user.
    address : tuple of str
        Addresses or networks: ``10.1.2.3``, ``10.1.0.0/16``, ``fd00::/8``.
    certificate : tuple of str
        See `certificate_binding`.
    operation : tuple of str
        Operations, or groups of them: see `operations`.
    sop_class : tuple of str
        UIDs or keywords of SOP classes, or patterns for either.
    days, hours : tuple of str
        See `schedule.Schedule`.
    zone : str
        Time zone of `days` and `hours`.

    Raises
    ------
    ConfigurationError
        A member is not what its list wants.
    """

    effect: Literal["allow", "deny"]
    name: str = ""
    calling_ae: tuple[str, ...] = ()
    called_ae: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    attribute: tuple[str, ...] = ()
    address: tuple[str, ...] = ()
    certificate: tuple[str, ...] = ()
    listener: tuple[str, ...] = ()
    operation: tuple[str, ...] = ()
    sop_class: tuple[str, ...] = ()
    days: tuple[str, ...] = ()
    hours: tuple[str, ...] = ()
    zone: str = ""

    def __post_init__(self) -> None:
        if self.effect not in ("allow", "deny"):
            raise ConfigurationError(
                f"found effect {self.effect!r}, wanted 'allow' or 'deny'", self.label
            )
        for condition in fields(self)[2:]:
            texts = getattr(self, condition.name)
            for text in texts if isinstance(texts, tuple) else ():
                if not isinstance(text, str) or not text or not text.isprintable():
                    raise ConfigurationError(
                        f"found {text!r} in {condition.name}, wanted a text", self.label
                    )
        # Built now, so that a wrong one shows before the node listens.
        try:
            _ = self.attributes, self.networks, self.certificates
            _ = self.operations, self.sop_classes, self.schedule
        except ValueError as exc:
            raise ConfigurationError(str(exc), self.label) from exc

    @property
    def label(self) -> str:
        """The rule in words: its name, or its effect where it has none."""
        return f"access rule {self.name!r}" if self.name else f"an unnamed {self.effect} rule"

    @cached_property
    def attributes(self) -> tuple[tuple[str, str], ...]:
        """Names and patterns for values in `attribute`."""
        pairs = tuple(text.partition("=") for text in self.attribute)
        for name, equals, pattern in pairs:
            if not (name and equals and pattern):
                raise ValueError(f"found {name + equals!r} in attribute, wanted NAME=PATTERN")
        return tuple((name, pattern) for name, _, pattern in pairs)

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The networks in `address`."""
        try:
            return tuple(ipaddress.ip_network(text) for text in self.address)
        except ValueError as exc:
            raise ValueError(f"address: {exc}") from exc

    @cached_property
    def certificates(self) -> tuple[CertificatePattern, ...]:
        """The patterns in `certificate`."""
        return tuple(CertificatePattern(text) for text in self.certificate)

    @cached_property
    def operations(self) -> frozenset[str]:
        """What `operation` stands for."""
        return frozenset(one for word in self.operation for one in operations_named(word))

    @cached_property
    def sop_classes(self) -> tuple[str, ...]:
        """UIDs and patterns for UIDs that `sop_class` stands for."""
        return tuple(uid for text in self.sop_class for uid in sop_class_patterns(text))

    @cached_property
    def schedule(self) -> Schedule | None:
        """When the rule holds, None for always."""
        if self.days or self.hours or self.zone:
            return Schedule(self.days, self.hours, self.zone)
        return None

    # -- matching --------------------------------------------------------------------------

    def matches(self, facts: AccessFacts) -> bool:
        """Return whether every condition of the rule holds for `facts`."""
        return self.concerns(facts) and self.covers_request(facts)

    def concerns(self, facts: AccessFacts) -> bool:
        """Return whether the conditions on who asks, where and when hold."""
        return all(CONDITIONS[name](self, facts) for name in self._who)

    def covers_request(self, facts: AccessFacts) -> bool:
        """Return whether the conditions on what is asked hold."""
        return all(CONDITIONS[name](self, facts) for name in self._what)

    def failures(self, facts: AccessFacts) -> Iterator[str]:
        """Yield the name of each condition that does not hold for `facts`."""
        names = (*self._who, *self._what)
        return (name for name in names if not CONDITIONS[name](self, facts))

    @cached_property
    def _who(self) -> tuple[str, ...]:
        """The conditions the rule sets on who asks, where and when."""
        return tuple(
            name
            for name in CONDITIONS
            if name not in _REQUEST and (self.schedule if name == "time" else getattr(self, name))
        )

    @cached_property
    def _what(self) -> tuple[str, ...]:
        """The conditions the rule sets on what is asked."""
        return tuple(name for name in CONDITIONS if name in _REQUEST and getattr(self, name))

    def _user_matches(self, facts: AccessFacts) -> bool:
        if self.effect == "allow" and not facts.user_proven:
            return False
        users = tuple(text for text in self.user if not text.startswith("@"))
        groups = tuple(text[1:] for text in self.user if text.startswith("@"))
        return bool(users and _named(facts.user, users)) or bool(
            groups and any(_named(group, groups) for group in facts.groups)
        )

    def _attribute_matches(self, facts: AccessFacts) -> bool:
        if self.effect == "allow" and not facts.user_proven:
            return False
        return any(
            _named(value, (pattern,))
            for name, pattern in self.attributes
            for value in facts.attributes.get(name, "").split("\n")
        )

    def _address_matches(self, facts: AccessFacts) -> bool:
        try:
            found = ipaddress.ip_address(facts.address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped  # an IPv4 peer on a listener that speaks both
        return any(found in network for network in self.networks)

    def _certificate_matches(self, facts: AccessFacts) -> bool:
        certificate = facts.certificate
        return certificate is not None and any(
            pattern.matches(certificate) for pattern in self.certificates
        )

    def _time_matches(self, facts: AccessFacts) -> bool:
        return self.schedule is None or (facts.at is not None and self.schedule.holds(facts.at))

    def _operation_matches(self, facts: AccessFacts) -> bool:
        if not facts.operation:
            return self.effect == "allow"  # an association is asked for: see the module
        return facts.operation in self.operations

    def _sop_class_matches(self, facts: AccessFacts) -> bool:
        if not facts.operation:
            return self.effect == "allow"
        return _named(facts.sop_class, self.sop_classes)


def _named(found: str, patterns: tuple[str, ...]) -> bool:
    return bool(found) and _expression(patterns).match(found) is not None


@lru_cache(maxsize=16_384)  # fnmatch itself remembers 256 patterns, fewer than a site may have
def _expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)))


# By the key of the rule; asked only where the rule sets them, the cheap ones first.
CONDITIONS: Mapping[str, Callable[[AccessRule, AccessFacts], bool]] = MappingProxyType(
    {
        "operation": AccessRule._operation_matches,
        "listener": lambda rule, facts: _named(facts.listener, rule.listener),
        "calling_ae": lambda rule, facts: _named(facts.calling_ae.strip(" "), rule.calling_ae),
        "called_ae": lambda rule, facts: _named(facts.called_ae.strip(" "), rule.called_ae),
        "sop_class": AccessRule._sop_class_matches,
        "user": AccessRule._user_matches,
        "attribute": AccessRule._attribute_matches,
        "address": AccessRule._address_matches,
        "time": AccessRule._time_matches,
        "certificate": AccessRule._certificate_matches,
    }
)
_REQUEST = frozenset({"operation", "sop_class"})


@dataclass(frozen=True)
class AccessDecision:
    """Yes or no, and why.

    Attributes
    ----------
    allowed : bool
        The answer.
    reason : str
        In words fit for log and audit.
    rule : AccessRule or None
        The one that decided; None where none did.
    """

    allowed: bool
    reason: str
    rule: AccessRule | None = None


_NO_RULES = AccessDecision(True, "no access rule is configured")
_DEFAULT = AccessDecision(False, "no access rule allows it")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class AccessPolicy:
    """All access rules of a node, and the clock their hours go by."""

    rules: tuple[AccessRule, ...] = ()
    clock: Callable[[], datetime] = field(default=_now, repr=False, compare=False)

    @cached_property
    def timeless(self) -> bool:
        """Whether what is decided once holds at any time."""
        return all(rule.schedule is None for rule in self.rules)

    def decide(self, facts: AccessFacts) -> AccessDecision:
        """Return the decision on the association or operation `facts` are about."""
        return _decided(self.rules, self.timed(facts)) if self.rules else _NO_RULES

    def decide_contexts(
        self, facts: AccessFacts, abstract_syntaxes: Iterable[str]
    ) -> dict[str, AccessDecision]:
        """Return for each abstract syntax whether some request by it could be allowed.

        Parameters
        ----------
        facts : AccessFacts
            Of the association.
        abstract_syntaxes : iterable of str
            UIDs that the peer proposes to ask us for.
        """
        if not self.rules:
            return dict.fromkeys(abstract_syntaxes, _NO_RULES)
        facts = self.timed(facts)
        rules = [rule for rule in self.rules if rule.concerns(facts)]
        return {uid: _context(rules, facts, uid) for uid in abstract_syntaxes}

    def timed(self, facts: AccessFacts) -> AccessFacts:
        """Return `facts` with a time."""
        return facts if facts.at is not None else replace(facts, at=self.clock())


def _decided(rules: Sequence[AccessRule], facts: AccessFacts) -> AccessDecision:
    for effect in ("deny", "allow"):
        for rule in rules:
            if rule.effect == effect and rule.matches(facts):
                return AccessDecision(effect == "allow", f"{rule.label} matches", rule)
    return _DEFAULT


def _context(rules: Sequence[AccessRule], facts: AccessFacts, uid: str) -> AccessDecision:
    """Return the first yes to a request by a presentation context, or else the first no."""
    if carries_several(uid):  # which SOP class it will be is not known yet
        return _decided(rules, replace(facts, operation="", sop_class=""))
    decisions = [
        _decided(rules, replace(facts, operation=operation, sop_class=uid))
        for operation in sorted(operations_of(uid))
    ]
    return next((one for one in decisions if one.allowed), decisions[0])
