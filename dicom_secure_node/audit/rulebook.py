# ruff: noqa: E501 - a row a line: tables to read
"""What each rule of the judge says, in a sentence, and the clause it comes from.

Ids begin with the section. Rules of the text are listed here; those of the message tables are read
from the tables (`spec.audit`): ``A.5.3.7:source.RoleIDCode`` is table A.5.3.7-1, entity ``source``,
field RoleIDCode. ``A.5.1.1:Element.Field`` are the grammar's own, one for each attribute and child.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from dicom_secure_node.spec.audit import messages, tables

# fmt: off
# Breaches: a message with one of these is not valid.
STATED: Mapping[str, str] = MappingProxyType({
    "A.5.a": "a message is well-formed XML that can be validated against the schema",
    "A.5.1.1": "the root is AuditMessage, in no namespace",
    "A.5.1.1.schema": "the message is valid against the RELAX NG schema",
    "A.5.1.1.order": "child elements come in the order of the schema",
    "A.5.1.1.one-source": "there is exactly one AuditSourceIdentification",
    "A.5.1.1.coded": "a code is csd-code, codeSystemName and originalText, which has the meaning DICOM gives it",
    "A.5.1.1.name_or_query": "an object has exactly one of ParticipantObjectName and ParticipantObjectQuery",
    "A.5.1.1.boolean": "a boolean is true, false, 1 or 0, in lower case",
    "A.5.1.1.base64": "queries and values of details are base64, plain text also",
    "A.5.1.1.instances": "a SOPClass has its NumberOfInstances, an integer",
    "A.5.1.1.media": "a MediaIdentifier holds one MediaType and nothing else",
    "A.5.1.1.role-enum": "roles and life cycles of objects are closed lists, 1 to 26 and 1 to 15",
    "A.5.1.1.xsi": "there are no attributes of other namespaces, xsi:noNamespaceSchemaLocation included",
    "A.5.1.2.1": "a type of source is a number from 1 to 9, or a code with its system and meaning",
    "A.5.2.requestor": "at most one participant is the requestor",
    "A.5.2.sopclass": "a study with accession numbers, MPPS or flags lists its SOP Classes",
    "A.5.2.5.timezone": "EventDateTime includes the time zone",
    "A.6.msg": "in a syslog message the XML is UTF-8",
})

# Advice: the standard leaves it open, a later edition does not, or another reader may stumble.
ADVICE: Mapping[str, str] = MappingProxyType({
    "A.5.1.1.uid": "UIDs have the form of an OID",
    "A.5.1.2.2": "deprecated roles of objects are not used",
    "A.5.1.2.4": "number codes of RFC-3881 carry that system and their own meaning",
    "A.5.2.no_empty": "no element and no attribute is empty (later editions forbid it)",
    "A.5.2.context-group": "a DCM code is one of the context group that A.5.2 names",
    "A.5.2.contains-study": "a study object does not repeat its UID in ParticipantObjectContainsStudy",
    "A.5.2.2.ae": "AE titles are written AETITLES= with semicolons between",
    "A.5.2.6": "an object's role goes with its type",
    "A.5.3.objects": "an event whose table lists no objects carries none",
})
# fmt: on

_SECTION = re.compile(r"A\.\d+(?:\.\d+)*")
_TABLE = re.compile(r"(A\.5\.3\.\d+):")


def clause(rule: str) -> str:
    """Return where a rule stands, e.g. ``PS3.15 Table A.5.3.7-1``."""
    if found := _TABLE.match(rule):
        return f"PS3.15 Table {found[1]}-1"
    if rule.startswith("RFC"):
        return rule
    section = _SECTION.match(rule)
    return f"PS3.15 {section[0] if section else 'A.5'}"


def sentence(rule: str) -> str:
    """Return what a rule says."""
    stated = STATED.get(rule) or ADVICE.get(rule) or of_tables().get(rule)
    if stated:
        return stated
    name = rule.partition(":")[2]
    element, _, field = name.partition(".")
    if field == "text":
        return f"{element} holds no text"
    known = tables()["elements"].get(element, {}).get("attributes", {})
    if field in known:
        need = "has" if known[field]["required"] else "may have"
        return f"{element} {need} {field}, {known[field]['type']}"
    if field in tables()["elements"]:
        return f"{element} holds {field} as often as the schema says"
    return f"{element} has no {field}" if field else f"{element} holds what the schema says"


@cache
def of_tables() -> Mapping[str, str]:
    """Return the rules of tables A.5.3.1-1 to A.5.3.15-1 with their sentences."""
    found: dict[str, str] = {}
    for table in messages().values():
        section, name = table["section"], table["name"]
        for field, row in _event_rows(table):
            found[f"{section}:event.{field}"] = f"{name}: {field} is {_wanted(row)}"
        if table["requestor"]["min_true"]:
            found[f"{section}:requestor"] = f"{name}: exactly one participant is the requestor"
        for entity in (*table["participants"], *table["objects"]):
            where = f"{name}: {entity['key']}"
            if _is_counted(table, entity):
                found[f"{section}:{entity['key']}"] = f"{where} is there {_times(entity)}"
            for field, row in _entity_rows(table, entity):
                found[f"{section}:{entity['key']}.{field}"] = f"{where}: {field} is {_wanted(row)}"
    return MappingProxyType(found)


def _event_rows(table: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for field in ("EventID", "EventActionCode", "EventTypeCode"):
        row = table["event"].get(field)
        if row is not None and (row["usage"] == "M" or field == "EventActionCode"):
            yield field, row


def _is_counted(table: Mapping[str, Any], entity: Mapping[str, Any]) -> bool:
    """Return True when too many or too few of an entity can be told (`rules`)."""
    role = entity["match"].get("role_id_code")
    if entity in table["objects"]:
        return entity["min"] > 0 or entity["max"] is not None
    if role is not None:
        return entity["max"] is not None
    alike = [one for one in table["participants"] if "role_id_code" not in one["match"]]
    return entity is alike[0] and all(one["max"] is not None for one in alike)


def _entity_rows(
    table: Mapping[str, Any], entity: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    alike = [one for one in table["participants"] if "role_id_code" not in one["match"]]
    unmatched = "role_id_code" not in entity["match"] and entity in table["participants"]
    for field, row in entity["fields"].items():
        if field == "RoleIDCode":
            known = "codes" in row and entity["min"] > 0
        elif field == "UserIsRequestor":
            # Entities without a role of their own cannot be told apart.
            known = row.get("fixed") is False and not (unmatched and len(alike) > 1)
        elif field == "MediaIdentifier":
            known = row["usage"] == "M"
        elif field in ("NetworkAccessPointTypeCode", "NetworkAccessPointID"):
            known = row["usage"] in ("M", "MC")
        elif field in ("ParticipantObjectName", "ParticipantObjectQuery"):
            known = row["usage"] == "M"
        elif field == "ParticipantObjectDetail":
            known = row["usage"] in ("M", "MC")
        elif field == "ParticipantObjectIDTypeCode":
            known = row.get("term") != "DT"
        else:
            known = field == "MediaType" or "fixed" in row
        if known:
            yield field, row


def _wanted(row: Mapping[str, Any]) -> str:
    """Return what a row asks for, in words."""
    if row.get("fixed") is not None:
        return repr(row["fixed"]) if isinstance(row["fixed"], str) else str(row["fixed"]).lower()
    if "codes" in row:
        return " or ".join(f"{value} ({meaning})" for value, _, meaning in row["codes"])
    if "cid" in row:
        return f"a code of {row['cid']}"
    if "values" in row:
        return " or ".join(row["values"])
    if "required_types" in row:
        return " and ".join(f"of type {name!r}" for name in row["required_types"])
    return "present where its condition holds" if row["usage"] == "MC" else "present"


def _times(entity: Mapping[str, Any]) -> str:
    least, most = entity["min"], entity["max"]
    if most is None:
        return f"at least {least} times" if least != 1 else "at least once"
    return "exactly once" if (least, most) == (1, 1) else f"{least} to {most} times"
