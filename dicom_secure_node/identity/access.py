"""The access decision: who may associate and ask for what.

The rules of `AccessPolicy.decide`, in order:

1. No rule at all: everybody the earlier gates let through may do everything.
2. A deny rule that matches wins, wherever it stands.
3. Otherwise an allow rule that matches admits.
4. Otherwise no: once there is a rule, refusing is the default.

So the order of the rules never matters, and no rule can open what another closed.

A rule matches when each of its conditions does; a condition is a list, one member is enough,
and an empty list sets no condition. A condition on something that is unknown (a certificate
that was not shown, a user who was not identified) does not match. A user name nobody proved
(PS3.15 B.4) can match a deny rule and never an allow rule.

The question is put twice. When an association is requested, operation and SOP class are not
known yet: then an allow rule counts for its other conditions, and a deny rule that names
operations or SOP classes waits. When an operation is requested, every condition counts.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal

from cryptography import x509

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.certificate_binding import CertificatePattern

OPERATIONS = (
    "C-ECHO",
    "C-STORE",
    "C-FIND",
    "C-GET",
    "C-MOVE",
    "N-EVENT-REPORT",
    "N-GET",
    "N-SET",
    "N-ACTION",
    "N-CREATE",
    "N-DELETE",
)
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
    """

    calling_ae: str = ""
    called_ae: str = ""
    user: str = ""
    user_proven: bool = False
    groups: frozenset[str] = frozenset()
    address: str = ""
    certificate: x509.Certificate | None = field(default=None, repr=False)
    listener: str = ""
    operation: str = ""
    sop_class: str = ""


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
    address : tuple of str
        Addresses or networks: ``10.1.2.3``, ``10.1.0.0/16``, ``fd00::/8``.
    certificate : tuple of str
        See `certificate_binding`.
    operation : tuple of str
        Members of `OPERATIONS`.
    sop_class : tuple of str
        UIDs, or patterns for them.

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
    address: tuple[str, ...] = ()
    certificate: tuple[str, ...] = ()
    listener: tuple[str, ...] = ()
    operation: tuple[str, ...] = ()
    sop_class: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.effect not in ("allow", "deny"):
            raise ConfigurationError(
                f"found effect {self.effect!r}, wanted 'allow' or 'deny'", self.label
            )
        for condition in fields(self)[2:]:
            for text in getattr(self, condition.name):
                if not isinstance(text, str) or not text or not text.isprintable():
                    raise ConfigurationError(
                        f"found {text!r} in {condition.name}, wanted a text", self.label
                    )
        for operation in self.operation:
            if operation not in OPERATIONS:
                raise ConfigurationError(
                    f"found operation {operation!r}, wanted one of {', '.join(OPERATIONS)}",
                    self.label,
                )
        # Built now, so that a wrong one shows before the node listens.
        _ = self._networks, self._certificates

    @property
    def label(self) -> str:
        """The rule in words: its name, or its effect where it has none."""
        return f"access rule {self.name!r}" if self.name else f"an unnamed {self.effect} rule"

    @cached_property
    def _networks(self) -> tuple[_Network, ...]:
        try:
            return tuple(ipaddress.ip_network(text) for text in self.address)
        except ValueError as exc:
            raise ConfigurationError(f"address: {exc}", self.label) from exc

    @cached_property
    def _certificates(self) -> tuple[CertificatePattern, ...]:
        return tuple(CertificatePattern(text) for text in self.certificate)

    def matches(self, facts: AccessFacts) -> bool:
        """Return whether every condition of the rule holds for `facts`."""
        return (
            _named(facts.calling_ae.strip(" "), self.calling_ae)
            and _named(facts.called_ae.strip(" "), self.called_ae)
            and _named(facts.listener, self.listener)
            and self._user_matches(facts)
            and self._address_matches(facts.address)
            and self._certificate_matches(facts.certificate)
            and self._request_matches(facts)
        )

    def _user_matches(self, facts: AccessFacts) -> bool:
        if not self.user:
            return True
        if self.effect == "allow" and not facts.user_proven:
            return False
        users = tuple(text for text in self.user if not text.startswith("@"))
        groups = tuple(text[1:] for text in self.user if text.startswith("@"))
        return bool(users and _named(facts.user, users)) or bool(
            groups and any(_named(group, groups) for group in facts.groups)
        )

    def _address_matches(self, address: str) -> bool:
        if not self._networks:
            return True
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped  # an IPv4 peer on a listener that speaks both
        return any(found in network for network in self._networks)

    def _certificate_matches(self, certificate: x509.Certificate | None) -> bool:
        if not self._certificates:
            return True
        return certificate is not None and any(
            pattern.matches(certificate) for pattern in self._certificates
        )

    def _request_matches(self, facts: AccessFacts) -> bool:
        narrowed = bool(self.operation or self.sop_class)
        if narrowed and not facts.operation:
            return self.effect == "allow"  # an association is asked for: see the module
        return _named(facts.operation, self.operation) and _named(facts.sop_class, self.sop_class)


def _named(found: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or (bool(found) and any(fnmatchcase(found, p) for p in patterns))


@dataclass(frozen=True)
class AccessDecision:
    """Yes or no, and why.

    Attributes
    ----------
    allowed : bool
        The answer.
    reason : str
        In words fit for log and audit.
    """

    allowed: bool
    reason: str


@dataclass(frozen=True)
class AccessPolicy:
    """All access rules of a node."""

    rules: tuple[AccessRule, ...] = ()

    def decide(self, facts: AccessFacts) -> AccessDecision:
        """Return the decision on the association or operation `facts` are about."""
        # (1)
        if not self.rules:
            return AccessDecision(True, "no access rule is configured")
        # (2), (3)
        for effect in ("deny", "allow"):
            for rule in self.rules:
                if rule.effect == effect and rule.matches(facts):
                    return AccessDecision(effect == "allow", f"{rule.label} matches")
        # (4)
        return AccessDecision(False, "no access rule allows it")
