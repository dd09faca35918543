"""One message per rule: made from a good one by one change, and found to break that rule alone.

`corpus/good` has a message of each table, `corpus/dialects` messages as others write them; all were
written here. Changes to the text are in test_audit_validate.py; the ones below are made from the
tables of the standard, field by field. jing, reading the compact schema, is the second judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from dicom_secure_node.audit import rulebook
from dicom_secure_node.audit.validate import validate
from dicom_secure_node.spec import audit as spec
from tests import parts
from tests.audit.test_audit_validate import CORPUS, GOOD, GRAMMAR, RNC, TABLES

Change = Callable[[Any], object]
PERSON, THING = "ActiveParticipant", "ParticipantObjectIdentification"


def person(root: Any, entity: Any) -> Any:
    """Return the participant that is the table's `entity`."""
    role = entity["match"].get("role_id_code")
    path = f"RoleIDCode[@csd-code='{role}']" if role else "not(RoleIDCode)"
    return root.xpath(f"{PERSON}[{path}]")[0]


def thing(root: Any, entity: Any) -> Any:
    """Return the object that is the table's `entity`."""
    codes = [code[0] for code in entity["fields"]["ParticipantObjectIDTypeCode"]["codes"]]
    wanted = " or ".join(f"@csd-code='{code}'" for code in codes)
    return root.xpath(f"{THING}[ParticipantObjectIDTypeCode[{wanted}]]")[0]


def remove(element: Any) -> None:
    element.getparent().remove(element)


def put_code(element: Any, value: str, system: str, meaning: str) -> None:
    element.attrib.update({"csd-code": value, "codeSystemName": system, "originalText": meaning})


def becomes(element: Any, tag: str, text: str) -> None:
    element.tag, element.text = tag, text


def only_requestor(root: Any, chosen: Any) -> None:
    for one in root.iter(PERSON):
        one.set("UserIsRequestor", "true" if one is chosen else "false")


# --- The event ---


def event_changes(table: Any) -> Iterator[tuple[str, Change]]:
    values = table["event"]["EventActionCode"]["values"]
    other = next(letter for letter in "CRUDE" if letter not in values)
    yield "event.EventID", lambda root: root.find(".//EventID").set("codeSystemName", "99X")
    yield "event.EventActionCode", lambda root: root[0].set("EventActionCode", other)
    if table["event"].get("EventTypeCode", {}).get("usage") == "M":
        yield "event.EventTypeCode", lambda root: remove(root.find(".//EventTypeCode"))
    if table["requestor"]["min_true"]:
        yield "requestor", lambda root: only_requestor(root, None)


# --- Participants ---

PERSON_CHANGES: dict[str, Change] = {
    "RoleIDCode": lambda one: remove(one.find("RoleIDCode")),
    "UserIsRequestor": lambda one: one.set("UserIsRequestor", "true"),
    "MediaIdentifier": lambda one: remove(one.find("MediaIdentifier")),
    "MediaType": lambda one: put_code(one.find(".//MediaType"), "110122", "DCM", "Login"),
}


def reach(field: str, usage: str) -> Change:
    """Return what makes half a network access point, or none where one is needed."""
    if usage == "M":
        return lambda one: one.attrib.pop(field)
    if field == "NetworkAccessPointID":
        return lambda one: (one.attrib.pop(field, None), one.set("NetworkAccessPointTypeCode", "1"))
    return lambda one: put_code(one.find(".//MediaType"), "110037", "DCM", "URI")


def one_too_many(table: Any, entity: Any) -> Change:
    alike = [one for one in table["participants"] if "role_id_code" not in one["match"]]
    most = entity["max"] or 0 if entity["match"] else sum(one["max"] or 0 for one in alike)

    def change(root: Any) -> None:
        for _ in range(most):
            copy = deepcopy(person(root, entity))
            copy.set("UserIsRequestor", "false")
            person(root, entity).addnext(copy)

    return change


# --- Objects ---

THING_CHANGES: dict[str, Change] = {
    "ParticipantObjectTypeCode": lambda one: one.set("ParticipantObjectTypeCode", "4"),
    "ParticipantObjectTypeCodeRole": lambda one: one.set("ParticipantObjectTypeCodeRole", "26"),
    "ParticipantObjectIDTypeCode": lambda one: put_code(one[0], "9", "RFC-3881", "Report Number"),
    "ParticipantObjectName": lambda one: becomes(one[1], "ParticipantObjectQuery", "AAAA"),
    "ParticipantObjectQuery": lambda one: becomes(one[1], "ParticipantObjectName", "N"),
    "ParticipantObjectDetail": lambda one: remove(one.find("ParticipantObjectDetail")),
}


def table_changes() -> Iterator[tuple[str, str, Change]]:
    """Yield rule, section and a change that breaks the rule."""
    for table in spec.messages().values():
        section = table["section"]
        changes = dict(event_changes(table))
        for entity in table["participants"]:
            key = entity["key"]

            def at_person(change: Change, entity: Any = entity) -> Change:
                return lambda root: change(person(root, entity))

            changes[key] = one_too_many(table, entity)
            for field, row in entity["fields"].items():
                change = PERSON_CHANGES.get(field) or reach(field, row["usage"])
                changes[f"{key}.{field}"] = at_person(change)
        for entity in table["objects"]:
            key = entity["key"]

            def at_thing(change: Change, entity: Any = entity) -> Change:
                return lambda root: change(thing(root, entity))

            changes[key] = at_thing(remove)
            for field in entity["fields"]:
                if field in THING_CHANGES:
                    changes[f"{key}.{field}"] = at_thing(THING_CHANGES[field])
        for name, change in changes.items():
            if f"{section}:{name}" in rulebook.of_tables():
                yield f"{section}:{name}", section, change


def grammar_changes() -> Iterator[tuple[str, str, Change]]:
    """Yield a sentence, a section and a change for each thing that the grammar requires."""
    for element, table in spec.tables()["elements"].items():
        section = next(name for name, xml in GOOD.items() if f"<{element}" in xml)

        def first(root: Any, element: str = element) -> Any:
            return root if root.tag == element else root.find(f".//{element}")

        for name, known in table["attributes"].items():
            if known["required"]:
                yield (
                    f"{element} without {name}",
                    section,
                    lambda root, name=name, first=first: first(root).attrib.pop(name),
                )
            if known["type"] == "enum":
                yield (
                    f"{element} with another {name}",
                    section,
                    lambda root, name=name, first=first: first(root).set(name, "99"),
                )
        yield (
            f"{element} with an attribute of its own",
            section,
            lambda root, first=first: first(root).set("extra", "x"),
        )
        yield (
            f"{element} with an element of its own",
            section,
            lambda root, first=first: first(root).append(etree.Element("Extra")),
        )


def changed(section: str, change: Change) -> bytes:
    root = etree.fromstring(GOOD[section])
    before = etree.tostring(root)
    change(root)
    after = etree.tostring(root)
    assert after != before
    return after


BY_TABLE = {rule: (section, change) for rule, section, change in table_changes()}
BY_GRAMMAR = {name: (section, change) for name, section, change in grammar_changes()}


@pytest.mark.parametrize("rule", BY_TABLE)
def test_a_message_that_breaks_one_rule_of_a_table(rule: str) -> None:
    problems = validate(changed(*BY_TABLE[rule])).problems
    assert {one.rule for one in problems} == {rule}
    assert rulebook.clause(rule) == f"PS3.15 Table {rule.partition(':')[0]}-1"


@pytest.mark.parametrize("name", BY_GRAMMAR)
def test_a_message_that_breaks_the_grammar_in_one_place(name: str) -> None:
    problems = validate(changed(*BY_GRAMMAR[name])).problems
    assert len({one.rule for one in problems}) == 1, problems
    assert problems[0].rule.startswith("A.5.1.1")
    assert name.split()[0] in problems[0].where


def test_every_rule_is_broken_by_some_message() -> None:
    tables = {rule for *_, rule in TABLES.values()} | set(BY_TABLE)
    assert set(rulebook.of_tables()) <= tables
    # The words of the schema are heard only if our own walk misses something.
    heard = {"A.5.1.1.schema", "A.5.a", "A.6.msg"}
    assert set(rulebook.STATED) - heard <= tables | {rule for *_, rule in GRAMMAR.values()}


def test_every_rule_has_a_sentence_and_a_clause() -> None:
    found = [
        one
        for section, change in (*BY_TABLE.values(), *BY_GRAMMAR.values())
        for one in validate(changed(section, change)).problems
    ]
    for rule in {one.rule for one in found} | set(rulebook.STATED) | set(rulebook.ADVICE):
        assert rulebook.sentence(rule), rule
        assert rulebook.clause(rule).startswith("PS3.15 "), rule


def test_where_is_an_xpath_and_the_line_is_its_line() -> None:
    for section, change in (*BY_TABLE.values(), *BY_GRAMMAR.values()):
        root = etree.fromstring((CORPUS / "good" / f"{section}.xml").read_bytes())
        for element in root.iter():  # put everything on a line of its own, two lines down
            element.tail = "\n"
        change(root)
        xml = b"\n\n" + etree.tostring(root)
        for one in validate(xml).problems:
            found = etree.fromstring(xml.lstrip()).xpath(one.where)
            if isinstance(found, list) and found and hasattr(found[0], "sourceline"):
                assert one.line == found[0].sourceline + 2, one
            assert one.line > 2 or one.where.count("/") == 1, one


def test_jing_agrees_on_the_whole_corpus(tmp_path: Path) -> None:
    messages = {f"good {path.stem}": path.read_bytes() for path in CORPUS.glob("good/*.xml")}
    messages |= {f"table {rule}": changed(*how) for rule, how in BY_TABLE.items()}
    messages |= {f"grammar {name}": changed(*how) for name, how in BY_GRAMMAR.items()}
    messages |= {f"dialect {path.stem}": path.read_bytes() for path in CORPUS.glob("dialects/*")}
    paths = {name: tmp_path / f"{n}.xml" for n, name in enumerate(messages)}
    for name, xml in messages.items():
        paths[name].write_bytes(xml)
    done = parts.run(["jing", "-c", RNC, *paths.values()])
    theirs = {name for name, path in paths.items() if f"{path}:" in done.stdout}
    ours = {
        name
        for name, xml in messages.items()
        if any(one.rule.startswith("A.5.1.1") for one in validate(xml).problems)
    }
    assert theirs == ours
    assert {name.split()[0] for name in theirs} == {"grammar", "dialect"}
