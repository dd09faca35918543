"""Which audit messages are not kept: ``[[audit.suppress]]`` (PS3.15 A.5.3: triggers, one by one).

Rules, in order:

1. A rule suppresses a message when every condition given matches; a condition is a list, one
   member is enough, and an empty list sets none. The conditions on a participant have to match one
   and the same participant.
2. ``outcome`` is 0 where it is not given: what failed is recorded.
3. Whoever looks for an attack, or for gaps in the trail, needs what `PROTECTED` names and whatever
   failed. A rule that could suppress one of these is refused, unless it says
   ``allow_security = true``.
4. A rule with no condition but the outcome would silence the trail, and is always refused.
5. What is suppressed is counted; nothing of the message is kept.
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property

from dicom_secure_node.audit.model import SUCCESS, AuditMessage, Participant
from dicom_secure_node.audit.text import cut
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.spec import audit as spec
from dicom_secure_node.spec.audit import Code

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Alerts, who read the trail, and when recording began and ended: with a rule in force, the start
# and stop of the application are where the trail itself says so.
PROTECTED = (spec.SECURITY_ALERT, spec.AUDIT_LOG_USED, spec.APPLICATION_ACTIVITY)

_OUTCOMES = (0, 4, 8, 12)


@dataclass(frozen=True)
class SuppressRule:
    """One ``[[audit.suppress]]``.

    Attributes
    ----------
    event : tuple of str
        Code values or names of A.5.3: ``110112``, ``Query``, ``Data Export``.
    type : tuple of str
        Code values or names of CID 401: ``Login``.
    outcome : tuple of int
        0, 4, 8, 12.
    user : tuple of str
        Patterns with ``*`` and ``?`` for a UserID; case matters.
    ae : tuple of str
        AE titles.
    address : tuple of str
        IP addresses, networks, or host names.
    allow_security : bool
        Whether it may suppress what an investigation would need, rule 3.
    reason : str
        Why, for whoever reads the conformance data.

    Raises
    ------
    ConfigurationError
        A member is not what its list wants, or rules 3 and 4 forbid it.
    """

    event: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    outcome: tuple[int, ...] = (SUCCESS,)
    user: tuple[str, ...] = ()
    ae: tuple[str, ...] = ()
    address: tuple[str, ...] = ()
    allow_security: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        _ = self._events, self._types, self._networks
        for outcome in self.outcome:
            if outcome not in _OUTCOMES:
                raise ConfigurationError(f"found {outcome}, wanted 0, 4, 8 or 12", "outcome")
        if not (self.event or self.type or self._about_participants):
            raise ConfigurationError(
                "found no event, type, user, ae or address, wanted one at least: "
                "this rule would silence the trail"
            )
        if not self.allow_security and (touched := self._security):
            raise ConfigurationError(
                f"it could suppress {touched}, wanted allow_security = true "
                "if that is meant, or narrower conditions"
            )

    # -- what it says ----------------------------------------------------------------------

    @property
    def _security(self) -> str:
        """Return, in words, what it could suppress that rule 3 protects; or nothing."""
        if not self.outcome or set(self.outcome) != {SUCCESS}:
            return "events that failed"
        covered = [one for one in PROTECTED if not self.event or one in self._events]
        return ", ".join(one.meaning for one in covered)

    @property
    def _about_participants(self) -> bool:
        return bool(self.user or self.ae or self.address)

    def describe(self) -> str:
        """Return what it suppresses, in one line for the conformance statement."""
        events = sorted(self._events, key=lambda code: code.value)
        parts = [", ".join(f"{one.meaning} ({one.value})" for one in events) or "every event"]
        types = sorted(self._types, key=lambda code: code.value)
        words: Mapping[str, Iterable[object]] = {
            "type": [f"{one.meaning} ({one.value})" for one in types],
            "outcome": self.outcome,
            "user": self.user,
            "AE title": self.ae,
            "address": self.address,
        }
        parts += [
            f"{name} {' or '.join(map(str, values))}" for name, values in words.items() if values
        ]
        if not self.outcome:
            parts.append("any outcome")
        if self.allow_security:
            parts.append("security events included")
        return "; ".join([*parts, f"because: {self.reason}"] if self.reason else parts)

    # -- whether it matches ----------------------------------------------------------------

    def matches(self, message: AuditMessage) -> bool:
        """Return True when the message is not to be kept."""
        return (
            (not self.event or message.event in self._events)
            and (not self.type or any(one in self._types for one in message.types))
            and (not self.outcome or message.outcome in self.outcome)
            and (not self._about_participants or any(map(self._meant, message.participants)))
        )

    def _meant(self, who: Participant) -> bool:
        return (
            (not self.user or self._user_pattern.match(cut(who.user_id)) is not None)
            and (not self.ae or any(title.strip() in self.ae for title in who.ae_titles))
            and (not self.address or self._is_here(who.address))
        )

    def _is_here(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return address.casefold() in self._names
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
            return any(found.ipv4_mapped in network for network in self._networks)
        return any(found in network for network in self._networks)

    # -- made ready ------------------------------------------------------------------------

    @cached_property
    def _events(self) -> frozenset[Code]:
        rows = spec.messages()
        names = {row["name"]: spec.by_value(value) for value, row in rows.items()}
        codes = spec.group("CID 400")
        names |= {code.meaning: code for code in codes.values()}
        return _named("event", self.event, codes, names)

    @cached_property
    def _types(self) -> frozenset[Code]:
        codes = spec.group("CID 401")
        return _named("type", self.type, codes, {code.meaning: code for code in codes.values()})

    @cached_property
    def _user_pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(translate, self.user)))

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        return tuple(one for text in self.address if (one := _network(text)) is not None)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(text.casefold() for text in self.address if _network(text) is None)


class AuditSuppressions:
    """All rules of a node, and how often each has suppressed; safe to share by threads."""

    def __init__(self, rules: Sequence[SuppressRule] = ()) -> None:
        self._rules = tuple(rules)
        self._counts = [0] * len(self._rules)
        self._lock = threading.Lock()

    def suppresses(self, message: AuditMessage) -> bool:
        """Return True, and count it, when a rule says that the message is not kept."""
        for number, rule in enumerate(self._rules):
            if rule.matches(message):
                with self._lock:
                    self._counts[number] += 1
                return True
        return False

    def describe(self) -> list[str]:
        """Return a line for each rule, for `config show`, log and conformance statement."""
        return [f"audit.suppress[{n}]: {rule.describe()}" for n, rule in enumerate(self._rules)]

    @property
    def counts(self) -> tuple[int, ...]:
        """Return how many messages each rule has suppressed; the first that matches counts."""
        with self._lock:
            return tuple(self._counts)


def _named(
    key: str, found: Iterable[str], codes: Mapping[str, Code], names: Mapping[str, Code]
) -> frozenset[Code]:
    """Return the codes meant by values or names; a name may be written in any case."""
    known = {name.casefold(): code for name, code in names.items()}
    wanted = []
    for text in found:
        code = codes.get(text.strip()) or known.get(" ".join(text.split()).casefold())
        if code is None:
            listed = ", ".join(sorted(names))
            raise ConfigurationError(f"found {text!r}, wanted a code or name: {listed}", key)
        wanted.append(code)
    return frozenset(wanted)


def _network(text: str) -> Network | None:
    """Return the network; None for a host name."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as exc:
        if not text.strip() or re.fullmatch(r"[0-9.:/]+|.*[/:].*", text):
            raise ConfigurationError(str(exc), "address") from exc
        return None
