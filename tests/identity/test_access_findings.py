"""Rules that can never match, or change nothing, are found; rules that can are left alone."""

from __future__ import annotations

import itertools
from fnmatch import fnmatchcase
from typing import Any

import pytest

from dicom_secure_node.identity.access import AccessPolicy, AccessRule
from dicom_secure_node.identity.access_findings import (
    Finding,
    ListenerFacts,
    pattern_covers,
    unreachable,
)

TLS = ListenerFacts("tls", "0.0.0.0")
PLAIN = ListenerFacts("plain", "0.0.0.0", certificates=False, proven_users=False)
CLOSED = ListenerFacts("closed", "0.0.0.0", users=False, proven_users=False)


def allow(**conditions: Any) -> AccessRule:
    return AccessRule("allow", **conditions)


def deny(**conditions: Any) -> AccessRule:
    return AccessRule("deny", **conditions)


# rules, listeners, the key of the finding and what it says
FOUND: dict[str, tuple[list[AccessRule], list[ListenerFacts], str, str]] = {
    "no such listener": ([allow(listener=("lab",))], [TLS], "[0].listener", "known: 'tls'"),
    "certificate on a plain listener": (
        [allow(certificate=("CN=a",), listener=("plain",))], [TLS, PLAIN],
        "[0].certificate", "never see a certificate",
    ),
    "certificate where every listener is plain": (
        [allow(certificate=("CN=a",))], [PLAIN], "[0].certificate", "the listeners never see",
    ),
    "user where none is taken": (
        [allow(user=("ada",), listener=("closed",))], [TLS, CLOSED], "[0].user", "take no user",
    ),
    "B.4 user where none is verified": (
        [allow(user=("ada",))], [PLAIN], "[0].user", "match no allow rule",
    ),
    "attribute where none is verified": (
        [allow(attribute=("a=b",))], [PLAIN], "[0].attribute", "match no allow rule",
    ),
    "denied user where none is taken": (
        [allow(), deny(user=("ada",))], [CLOSED], "[1].user", "take no user identity",
    ),
    "calling AE title too long": (
        [allow(calling_ae=("A" * 17,))], [TLS], "[0].calling_ae", "16 characters",
    ),
    "called AE title too long, pattern": (
        [allow(called_ae=("*" + "A" * 17,))], [TLS], "[0].called_ae", "16 characters",
    ),
    "AE title padded": ([allow(calling_ae=("CT1 ",))], [TLS], "[0].calling_ae", "a space"),
    "AE title with a backslash": (
        [allow(calling_ae=("CT\\1",))], [TLS], "[0].calling_ae", "may have",
    ),
    "AE title, umlaut": ([allow(calling_ae=("RÖ1",))], [TLS], "[0].calling_ae", "may have"),
    "no address at all": ([allow(address=("0.0.0.0",))], [TLS], "[0].address", "nobody calls"),
    "multicast": ([allow(address=("224.0.0.0/4",))], [TLS], "[0].address", "nobody calls"),
    "IPv6 where only IPv4 listens": (
        [allow(address=("fd00::/8",))], [TLS], "[0].address", "reaches a listener on '0.0.0.0'",
    ),
    "elsewhere than the loopback": (
        [allow(address=("10.0.0.0/8",))], [ListenerFacts("l", "127.0.0.1")],
        "[0].address", "reaches a listener on '127.0.0.1'",
    ),
    "IPv4 written as IPv6": (
        [allow(address=("::ffff:10.0.0.0/104",))], [ListenerFacts("l", "::")],
        "[0].address", "is IPv4",
    ),
    "an operation its SOP class has not": (
        [allow(operation=("query",), sop_class=("CTImageStorage",))], [TLS],
        "[0].sop_class", "asked for by C-STORE, and the rule is about query",
    ),
    "a Meta SOP class": (
        [deny(sop_class=("BasicGrayscalePrintManagementMeta",)), allow()], [TLS],
        "[0].sop_class", "member of a Meta SOP class",
    ),
    "only deny rules": ([deny(user=("ada",))], [TLS], "", "everything is refused"),
    "twice the same": (
        [allow(calling_ae=("CT1",)), allow(calling_ae=("CT1",))], [TLS],
        "[1]", "adds nothing to access.rule[0]",
    ),
    "twice the same under other names": (
        [allow(name="a", operation=("store",)), allow(name="b", operation=("C-STORE",))], [TLS],
        "[1]", "adds nothing to access.rule[0] (access rule 'a')",
    ),
    "covered by a later rule": (
        [allow(calling_ae=("CT1",), user=("ada",)), allow(calling_ae=("CT?",))], [TLS],
        "[0]", "adds nothing to access.rule[1]",
    ),
    "wholly denied": (
        [allow(), allow(calling_ae=("CT1", "CT2"), operation=("store",)),
         deny(calling_ae=("CT*",))][1:], [TLS],
        "[0]", "opens nothing: access.rule[1] (an unnamed deny rule) denies all of it",
    ),
    "denied in the same words": (
        [allow(address=("10.1.0.0/16",)), deny(address=("10.1.0.0/16",))], [TLS],
        "[0]", "opens nothing",
    ),
    "denied by a wider network": (
        [allow(address=("10.1.0.0/16",)), deny(address=("10.0.0.0/8",))], [TLS],
        "[0]", "opens nothing",
    ),
    "denied at longer hours": (
        [allow(hours=("09:00-10:00",), zone="UTC"), deny(hours=("08:00-18:00",), zone="UTC")],
        [TLS], "[0]", "opens nothing",
    ),
    "denied with all SOP classes like it": (
        [allow(sop_class=("CTImageStorage",)), deny(sop_class=("*ImageStorage",))], [TLS],
        "[0]", "opens nothing",
    ),
    "denied attribute": (
        [allow(attribute=("a=bc",)), deny(attribute=("a=b*",))], [TLS], "[0]", "opens nothing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND.values(), ids=FOUND)
def test_found(case: Any) -> None:
    rules, listeners, key, problem = case
    (finding,) = unreachable(AccessPolicy(tuple(rules)), listeners)
    assert finding.key == f"access.rule{key}"
    assert problem in finding.problem


FINE: dict[str, tuple[list[AccessRule], list[ListenerFacts]]] = {
    "no rule": ([], [TLS]),
    "every condition": (
        [allow(calling_ae=("CT1", "[CM]T*"), called_ae=("PACS",), user=("ada", "@radiology"),
               attribute=("department=radiology",), address=("10.1.0.0/16",),
               certificate=("CN=ct*,O=Site",), listener=("t*",), operation=("store",),
               sop_class=("*ImageStorage",), days=("mon-fri",), hours=("08:00-18:00",),
               zone="Europe/Berlin")], [TLS],
    ),
    "one listener of several will do": ([allow(certificate=("CN=a",))], [PLAIN, TLS]),
    "a deny rule believes a name nobody proves": (
        [allow(), deny(user=("ada",))], [PLAIN],
    ),
    "IPv4 through an IPv6 listener": (
        [allow(address=("10.0.0.0/8",))], [ListenerFacts("l", "::")],
    ),
    "a host name": ([allow(address=("10.0.0.0/8",))], [ListenerFacts("l", "pacs.site")]),
    "the loopback": ([allow(address=("127.0.0.1",))], [ListenerFacts("l", "127.0.0.1")]),
    "every address": ([allow(address=("0.0.0.0/0",))], [TLS]),
    "partly denied": (
        [allow(calling_ae=("CT*",)), deny(calling_ae=("CT1",))], [TLS],
    ),
    "denied elsewhere": (
        [allow(calling_ae=("CT1",)), deny(calling_ae=("CT1",), listener=("tls",))], [TLS, PLAIN],
    ),
    "denied at another hour": (
        [allow(hours=("09:00-12:00",), zone="UTC"), deny(hours=("10:00-18:00",), zone="UTC")],
        [TLS],
    ),
    "a subject with more parts": (
        [allow(certificate=("CN=a,O=Site",)), deny(certificate=("CN=*",))], [TLS],
    ),
    "a user of the name of a group": (
        [allow(user=("@ada",)), deny(user=("ada",))], [TLS],
    ),
    "private SOP class": ([allow(operation=("N-ACTION",), sop_class=("1.2.3",))], [TLS]),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "listeners"), FINE.values(), ids=FINE)
def test_nothing_found(rules: list[AccessRule], listeners: list[ListenerFacts]) -> None:
    assert unreachable(AccessPolicy(tuple(rules)), listeners) == []


def test_of_three_alike_each_is_named_once() -> None:
    found = unreachable(AccessPolicy((allow(), allow(), allow())), [TLS])
    assert [one.key for one in found] == ["access.rule[1]", "access.rule[2]"]
    assert isinstance(found[0], Finding)


def _words(alphabet: str, longest: int) -> list[str]:
    lengths = range(longest + 1)
    return ["".join(word) for n in lengths for word in itertools.product(alphabet, repeat=n)]


def test_a_pattern_covers_only_what_it_matches() -> None:
    """Every pair of patterns up to three characters, held against every text up to five."""
    texts = _words("ab", 5)
    like = {
        pattern: {text for text in texts if fnmatchcase(text, pattern)}
        for pattern in _words("ab?*", 3)
    }
    for wide, narrow in itertools.product(like, repeat=2):
        if pattern_covers(wide, narrow):
            assert like[narrow] <= like[wide], (wide, narrow)


@pytest.mark.parametrize(
    ("wide", "narrow", "want"),
    [
        ("*", "a*", True),
        ("a*", "ab?", True),
        ("a?", "a*", False),
        ("?*", "*", False),
        ("*b*", "ab", True),
        ("[ab]", "a", False),  # it does, and we do not look into brackets
        ("*", "@a", False),
    ],
)
def test_patterns(wide: str, narrow: str, want: bool) -> None:
    assert pattern_covers(wide, narrow) is want
