"""``access explain``: the decision, the deciding rule, and what the others lack."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.commands import access
from dicom_secure_node.config import load
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.access import AccessPolicy
from dicom_secure_node.identity.access_findings import unreachable
from tests.certs import Ca

CONFIG = """
[[listener]]
name = "plain"
profile = "plain"
host = "0.0.0.0"

[[access.rule]]
effect = "allow"
name = "modalities store"
calling_ae = "CT*"
address = "10.1.0.0/16"
operation = ["echo", "store"]

[[access.rule]]
effect = "allow"
name = "radiology reads"
user = "@radiology"
attribute = "department=radiology"
operation = ["query", "retrieve"]

[[access.rule]]
effect = "deny"
name = "no documents at night"
sop_class = "EncapsulatedPDFStorage"
hours = "22:00-06:00"
zone = "Europe/Berlin"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "node.toml").write_text(CONFIG)
    return tmp_path


def ask(home: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    access.add_parser(parser.add_subparsers(dest="verb"))
    return access.run(parser.parse_args(["access", "explain", "--home", str(home), *words]))


CT1 = ("--calling-ae", "CT1", "--address", "10.1.2.3")
ADA = ("--user", "ada", "--group", "radiology", "--attribute", "department=radiology")
PDF = ("--sop-class", "EncapsulatedPDFStorage")

DECISIONS: dict[str, tuple[tuple[str, ...], int, str | None]] = {
    "an association": (CT1, 0, "access.rule[0]"),
    "nobody in particular": ((), 1, None),
    "an operation": ((*CT1, "--operation", "store"), 0, "access.rule[0]"),
    "an operation in DICOM's words": ((*CT1, "--operation", "C-ECHO"), 0, "access.rule[0]"),
    "another operation": ((*CT1, "--operation", "query"), 1, None),
    "an SOP class says the operation": (
        (*CT1, "--sop-class", "CTImageStorage"), 0, "access.rule[0]",
    ),
    "a UID": ((*CT1, "--sop-class", "1.2.840.10008.5.1.4.1.1.2"), 0, "access.rule[0]"),
    "at night": ((*CT1, *PDF, "--at", "2026-03-01T22:30+01:00"), 1, "access.rule[2]"),
    "by day": ((*CT1, *PDF, "--at", "2026-03-01T12:30+01:00"), 0, "access.rule[0]"),
    "group and attribute": ((*ADA, "--operation", "query"), 0, "access.rule[1]"),
    "the group alone": ((*ADA[:4], "--operation", "query"), 1, None),
    "B.4 a user nobody verified": ((*ADA, "--unproven", "--operation", "query"), 1, None),
}  # fmt: skip


@pytest.mark.parametrize(("words", "code", "rule"), DECISIONS.values(), ids=DECISIONS)
def test_decision(
    words: tuple[str, ...], code: int, rule: str | None, home: Path, capsys: Any
) -> None:
    assert ask(home, *words, "--json") == code
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert answer["allowed"] is (code == 0)
    assert answer["rule"] == rule
    assert [one["key"] for one in answer["rules"]] == [f"access.rule[{i}]" for i in range(3)]
    assert [one["key"] for one in answer["rules"] if one["decides"]] == ([rule] if rule else [])


def test_for_people(home: Path, capsys: Any) -> None:
    assert ask(home, *CT1, *PDF, "--at", "2026-03-01T22:30+01:00") == 1
    assert capsys.readouterr().out.splitlines() == [
        "C-STORE EncapsulatedPDFStorage: refused: access rule 'no documents at night' matches",
        "",
        "rule            effect  name",
        "access.rule[0]  allow   modalities store       matches",
        "access.rule[1]  allow   radiology reads        user is unknown, wanted @radiology; "
        "attribute is unknown, wanted department=radiology; "
        "operation is 'C-STORE', wanted query or retrieve",
        "access.rule[2]  deny    no documents at night  matches and decides",
    ]


def test_failures_as_json(home: Path, capsys: Any) -> None:
    assert ask(home, "--calling-ae", "MR1", "--operation", "echo", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["question"] == "C-ECHO Verification"
    assert answer["rules"][0]["failed"] == {
        "calling_ae": {"found": "'MR1'", "wanted": "CT*"},
        "address": {"found": "unknown", "wanted": "10.1.0.0/16"},
    }


def test_a_certificate(tmp_path: Path, capsys: Any) -> None:
    leaf = Ca().write(tmp_path, "ct1", hosts=("ct1.test",))
    (tmp_path / "node.toml").write_text(
        '[[listener]]\nprofile = "plain"\n'
        '[[access.rule]]\neffect = "allow"\ncertificate = "dns:ct1.test"\n'
    )
    assert ask(tmp_path, "--certificate", str(leaf.crt)) == 0
    assert ask(tmp_path) == 1


def test_a_listener_that_only_observes_is_said(home: Path, capsys: Any) -> None:
    text = CONFIG.replace('name = "plain"', 'name = "plain"\nmode = "observe"', 1)
    (home / "node.toml").write_text(text)
    assert ask(home) == 1
    assert capsys.readouterr().out.splitlines()[:2] == [
        "association: refused: no access rule allows it",
        "listener 'plain' only observes: a refusal is recorded, not carried out",
    ]


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "operation": (("--operation", "sotre"), "--operation: found operation 'sotre'"),
    "two operations": (("--operation", "retrieve"), "wanted one of C-GET, C-MOVE"),
    "SOP class": (("--sop-class", "CTStorage"), "--sop-class: found 'CTStorage'"),
    "pattern": (("--sop-class", "1.2.*"), "--sop-class: found '1.2.*'"),
    "operation left open": (("--sop-class", "1.2.3"), "and no operation"),
    "address": (("--address", "ct1.site"), "--address: found 'ct1.site'"),
    "attribute": (("--attribute", "department"), "wanted NAME=VALUE"),
    "listener": (("--listener", "lab"), "--listener: found 'lab', wanted one of plain"),
    "moment": (("--at", "noon"), "wanted ISO 8601"),
    "moment without zone": (("--at", "2026-03-01T22:30"), "a zone as well"),
    "certificate": (("--certificate", "/nowhere.crt"), "/nowhere.crt"),
}


@pytest.mark.parametrize(("words", "problem"), BAD.values(), ids=BAD)
def test_bad_question(words: tuple[str, ...], problem: str, home: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ask(home, *words)
    assert problem in str(raised.value)


def test_the_listener_is_asked_for_where_there_are_several(home: Path, capsys: Any) -> None:
    more = '[[listener]]\nname = "lab"\nprofile = "plain"\nport = 1\n'
    rule = '[[access.rule]]\neffect = "allow"\nlistener = "lab"\n'
    (home / "node.toml").write_text(CONFIG + more + rule)
    assert ask(home) == 1
    assert "listener is unknown, wanted lab" in capsys.readouterr().out
    assert ask(home, "--listener", "lab") == 0


LISTENERS: dict[str, tuple[str, tuple[bool, bool, bool]]] = {
    "TLS": ("", (True, True, True)),
    "TLS without client certificates": ('client_certificate = "ignore"', (False, True, True)),
    "no identity": ('identity = "not-supported"', (True, False, False)),
    "identity of one AE title": (
        'identity = "not-supported"\nidentity_for = {CT1 = "required"}', (True, True, True),
    ),
    "one type by a table": ('identity = {passcode = "supports"}', (True, True, True)),
    "all types not supported": ('identity = {passcode = "not-supported"}', (True, False, False)),
    "a type that comes in by one AE title alone": (
        'identity = {}\nidentity_for = {CT1 = {username = "required"}}', (True, True, False),
    ),
    "a type that is supported in vain": (
        'identity = {username = "required", saml = "supports"}', (True, True, False),
    ),
    "plain": ('profile = "plain"', (False, True, False)),
    "B.4 names only": ('identity_types = ["username"]', (True, True, False)),
}  # fmt: skip


@pytest.mark.parametrize(("text", "want"), LISTENERS.values(), ids=LISTENERS)
def test_listener_facts(text: str, want: tuple[bool, ...], tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(f"[[listener]]\n{text}\n")
    (found,) = access.listener_facts(load(tmp_path / "node.toml"))
    assert (found.certificates, found.users, found.proven_users) == want


def test_findings_of_a_configuration(home: Path) -> None:
    config = load(home / "node.toml")
    found = unreachable(AccessPolicy(config.access.rule), access.listener_facts(config))
    assert [one.key for one in found] == ["access.rule[1].user", "access.rule[1].attribute"]
