"""Rules of an access policy that can never match, or that change nothing: what somebody meant
to say and did not.

Nothing here refuses anything. A finding is certain: what cannot be told is not reported.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dicom_secure_node.identity.access import AccessPolicy, AccessRule, Network
from dicom_secure_node.identity.operations import operations_of

_MAX_AE_TITLE = 16  # PS3.5 6.2
_LOOPBACK = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128"))


@dataclass(frozen=True)
class ListenerFacts:
    """What peers can show at one listener.

    Attributes
    ----------
    name : str
        What rules call it.
    host : str
        Where it listens.
    certificates : bool
        A peer may show a certificate.
    users : bool
        A user identity of some kind is taken.
    proven_users : bool
        One that somebody verifies is taken.
    """

    name: str
    host: str = ""
    certificates: bool = True
    users: bool = True
    proven_users: bool = True


@dataclass(frozen=True)
class Finding:
    """Something in the rules that has no effect.

    Attributes
    ----------
    key : str
        Where: ``access.rule[0].listener``.
    problem : str
        What, in words.
    """

    key: str
    problem: str


def unreachable(policy: AccessPolicy, listeners: Sequence[ListenerFacts]) -> list[Finding]:
    """Return what in `policy` can never match, or changes nothing, in the order of the rules."""
    rules = policy.rules
    findings = [
        Finding(f"access.rule[{i}]{'.' if key else ''}{key}", f"{rule.label}: {problem}")
        for i, rule in enumerate(rules)
        for key, problem in (*_hopeless(rule, listeners), *_overruled(i, rules))
    ]
    if rules and all(rule.effect == "deny" for rule in rules):
        findings.append(Finding("access.rule", "no rule allows anything, so everything is refused"))
    return findings


# -- one rule by itself --------------------------------------------------------------------


def _hopeless(rule: AccessRule, listeners: Sequence[ListenerFacts]) -> Iterator[tuple[str, str]]:
    """Yield key and problem of each condition of `rule` that cannot hold."""
    for key in ("calling_ae", "called_ae"):
        yield from ((key, problem) for text in getattr(rule, key) if (problem := _no_title(text)))
    yield from _no_request(rule)
    here = [one for one in listeners if _is_at(rule, one)]
    if rule.listener and not here:
        known = ", ".join(repr(one.name) for one in listeners)
        yield "listener", f"there is no listener {' or '.join(rule.listener)}; known: {known}"
    if not here:
        return
    where = "its listeners" if rule.listener else "the listeners"
    if rule.certificate and not any(one.certificates for one in here):
        yield "certificate", f"{where} never see a certificate"
    if rule.address:
        yield from _no_address(rule.networks, here)
    for key in ("user", "attribute"):
        if not getattr(rule, key):
            continue
        if not any(one.users for one in here):
            yield key, f"{where} take no user identity"
        elif rule.effect == "allow" and not any(one.proven_users for one in here):
            yield key, f"{where} take only users nobody verifies, and those match no allow rule"


def _is_at(rule: AccessRule, listener: ListenerFacts) -> bool:
    return not rule.listener or any(fnmatchcase(listener.name, text) for text in rule.listener)


def _no_title(pattern: str) -> str:
    """Return why no AE title can be like `pattern`, empty where one can (PS3.5 6.2)."""
    if "[" in pattern:
        return ""
    if len(pattern.replace("*", "")) > _MAX_AE_TITLE:
        return f"{pattern!r} is longer than an AE title can be (16 characters)"
    if pattern != pattern.strip(" "):
        return f"{pattern!r} begins or ends with a space, which does not count in AE titles"
    if not pattern.isascii() or "\\" in pattern:
        return f"{pattern!r} holds a character no AE title may have"
    return ""


def _no_request(rule: AccessRule) -> Iterator[tuple[str, str]]:
    """Yield the SOP classes for which none of the rule's operations exists."""
    for text in rule.sop_classes:
        if set(text) & set("*?["):
            continue
        possible = operations_of(text)
        named = text if text in rule.sop_class else f"{' '.join(rule.sop_class)} ({text})"
        if not possible:
            yield "sop_class", f"{named}: requests name a member of a Meta SOP class, never itself"
        elif rule.operation and not possible & rule.operations:
            yield (
                "sop_class",
                f"{named}: asked for by {' '.join(sorted(possible))}, "
                f"and the rule is about {' '.join(rule.operation)}",
            )


def _no_address(
    networks: Sequence[Network], listeners: Sequence[ListenerFacts]
) -> Iterator[tuple[str, str]]:
    for network in networks:
        lone = network.num_addresses == 1
        if network.is_multicast or (lone and network.network_address.is_unspecified):
            yield "address", f"nobody calls from {network}"
        elif isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
            yield "address", f"{network} is IPv4, wanted written so: as 10.1.0.0/16"
        elif not any(_may_come(network, one.host) for one in listeners):
            hosts = ", ".join(sorted({repr(one.host) for one in listeners}))
            yield "address", f"nobody from {network} reaches a listener on {hosts}"


def _may_come(network: Network, host: str) -> bool:
    """Return whether a peer of `network` may reach a listener on `host`."""
    try:
        ours = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True  # a name, or nothing said
    if ours.is_loopback:
        return any(_overlap(network, one) for one in _LOOPBACK)
    if isinstance(ours, ipaddress.IPv4Address) or not ours.is_unspecified:
        return network.version == ours.version
    return True  # "::" takes IPv4 as well


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and one.overlaps(other)
    return isinstance(other, ipaddress.IPv6Network) and one.overlaps(other)


# -- one rule beside the others ------------------------------------------------------------


def _overruled(index: int, rules: Sequence[AccessRule]) -> Iterator[tuple[str, str]]:
    """Yield that another rule covers all of rule `index`."""
    rule = rules[index]
    for i, other in enumerate(rules):
        same_effect = other.effect == rule.effect
        if i == index or not (same_effect or other.effect == "deny") or not _covers(other, rule):
            continue
        if not same_effect:
            yield "", f"opens nothing: access.rule[{i}] ({other.label}) denies all of it"
            return
        # Of two that say the same, the later one is the one too many.
        if i < index or not _covers(rule, other):
            yield "", f"adds nothing to access.rule[{i}] ({other.label})"
            return


def _covers(wide: AccessRule, narrow: AccessRule) -> bool:
    """Return whether `wide` matches whenever `narrow` does, as far as can be told."""
    return all(covers(wide, narrow) for covers in _COVERS)


def _patterns(key: str) -> Callable[[AccessRule, AccessRule], bool]:
    def covers(wide: AccessRule, narrow: AccessRule) -> bool:
        outer, inner = getattr(wide, key), getattr(narrow, key)
        return not outer or (
            bool(inner)
            and all(
                one in outer or any(pattern_covers(pattern, one) for pattern in outer)
                for one in inner
            )
        )

    return covers


def pattern_covers(wide: str, narrow: str) -> bool:
    """Return whether every text like `narrow` is like `wide`, as far as can be told."""
    if wide == narrow or not set(wide) & set("*?["):
        return wide == narrow
    if "[" in wide or "[" in narrow:
        return False
    if wide.startswith("@") != narrow.startswith("@"):  # in a list of users: groups
        return False
    # reached[j]: the part of `wide` read so far covers the first j characters of `narrow`.
    reached = [True] + [False] * len(narrow)
    for sign in wide:
        if sign == "*":
            first = reached.index(True) if True in reached else len(reached)
            reached = [j >= first for j in range(len(reached))]
        else:
            reached = [False] + [
                reached[j] and (narrow[j] == sign or (sign == "?" and narrow[j] != "*"))
                for j in range(len(narrow))
            ]
    return reached[-1]


def _certificates(wide: AccessRule, narrow: AccessRule) -> bool:
    """Compare as they are written: a ``*`` in a subject stays within its part."""
    if not wide.certificate:
        return True
    return bool(narrow.certificate) and set(narrow.certificate) <= set(wide.certificate)


def _attributes(wide: AccessRule, narrow: AccessRule) -> bool:
    if not wide.attribute:
        return True
    return bool(narrow.attribute) and all(
        any(name == other and pattern_covers(outer, inner) for other, outer in wide.attributes)
        for name, inner in narrow.attributes
    )


def _addresses(wide: AccessRule, narrow: AccessRule) -> bool:
    if not wide.address:
        return True
    return bool(narrow.address) and all(
        any(_within(inner, outer) for outer in wide.networks) for inner in narrow.networks
    )


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _operations(wide: AccessRule, narrow: AccessRule) -> bool:
    return not wide.operation or (bool(narrow.operation) and narrow.operations <= wide.operations)


def _schedules(wide: AccessRule, narrow: AccessRule) -> bool:
    if wide.schedule is None:
        return True
    return narrow.schedule is not None and wide.schedule.covers(narrow.schedule)


_COVERS = (
    _patterns("calling_ae"),
    _patterns("called_ae"),
    _patterns("listener"),
    _patterns("sop_classes"),
    _patterns("user"),
    _attributes,
    _addresses,
    _operations,
    _schedules,
    _certificates,
)
