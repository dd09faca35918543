"""The conventions of A.5.2 and the message tables of A.5.3, checked against one message.

Rule ids are the digest's: ``A.5.3.7:source.RoleIDCode`` is table A.5.3.7, entity ``source``, field
RoleIDCode. What the tables leave open is not a problem: codes of other systems where a group is
extensible or terms are only defined, further participants and objects (A.5.b), an EventID that no
table describes (A.5.3.similar), empty values (A.5.2.no_empty binds writers). What the grammar has
found already is not found again: a code under RFC 3881's attribute names counts for the tables, and
a value of no list is the grammar's matter alone.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dicom_secure_node.audit.grammar import Problem, has_time_zone, is_base64, is_date_time
from dicom_secure_node.audit.text import cut
from dicom_secure_node.spec.audit import DCM_OID, group, meanings, messages, tables

_DCM = frozenset(("DCM", DCM_OID))
_TRUE = frozenset(("true", "1"))
_ABOUT_INSTANCES = ("Accession", "MPPS", "Encrypted", "Anonymized")


def problems(root: Any) -> Iterator[Problem]:
    """Yield the breaches of A.5.2 and A.5.3 in a message whose root is AuditMessage."""
    yield from _meanings(root)
    event = root.find("EventIdentification")
    if event is None:
        return
    time = event.get("EventDateTime", "")
    if is_date_time(" ".join(time.split())) and not has_time_zone(time):
        where = "/AuditMessage/EventIdentification/@EventDateTime"
        yield Problem("A.5.2.5.timezone", where, "a time without zone", "Z or +hh:mm")
    yield from _source_types(root)
    yield from _sop_class_missing(root)
    table = messages().get(_value(event.find("EventID")))
    if table is None:
        people = root.findall("ActiveParticipant")
        yield from _requestors(people, {"min_true": 0, "max_true": 1}, "A.5.2.requestor")
        return
    yield from _event(event, table)
    yield from _participants(root, table)
    yield from _objects(root, table)


# --- A.5.2 ---


def _meanings(root: Any) -> Iterator[Problem]:
    """originalText carries the DICOM Code Meaning (A.5.1.1.coded)."""
    for element in root.iter():
        text = element.get("originalText")
        if text is None or not _is_dcm(element):
            continue
        wanted = meanings().get(_value(element))
        if wanted is not None and " ".join(text.split()).casefold() != wanted.casefold():
            where = root.getroottree().getpath(element)
            yield Problem(
                "A.5.1.1.coded", f"{where}/@originalText", repr(cut(text, 64)), repr(wanted)
            )


def _source_types(root: Any) -> Iterator[Problem]:
    """A number of the table, or a code with its system and meaning (A.5.1.2.1)."""
    known = tables()["code_tables"]["audit_source_type_code"]
    for element in root.findall("AuditSourceIdentification/AuditSourceTypeCode"):
        value = _value(element)
        if value and value not in known and "codeSystemName" not in element.attrib:
            where = f"{root.getroottree().getpath(element)}/@csd-code"
            wanted = "1 to 9, or codeSystemName and originalText"
            yield Problem("A.5.1.2.1", where, repr(cut(value, 32)), wanted)


def _sop_class_missing(root: Any) -> Iterator[Problem]:
    for where, thing in _numbered(root, "ParticipantObjectIdentification"):
        if not _has_code(thing.find("ParticipantObjectIDTypeCode"), "110180"):
            continue
        path = "ParticipantObjectDescription/"
        present = [name for name in _ABOUT_INSTANCES if thing.find(path + name) is not None]
        if present and thing.find(f"{path}SOPClass") is None:
            yield Problem("A.5.2.sopclass", where, f"{present[0]} without SOPClass", "SOPClass")


def _requestors(people: Sequence[Any], limits: Mapping[str, Any], rule: str) -> Iterator[Problem]:
    count = sum(_requests(one) for one in people)
    least, most = limits["min_true"], limits["max_true"]
    if not least <= count <= most:
        wanted = f"exactly {most}" if least == most else f"at most {most}"
        found = f"{count} participants with UserIsRequestor true"
        yield Problem(rule, "/AuditMessage/ActiveParticipant/@UserIsRequestor", found, wanted)


# --- A.5.3 ---


def _event(event: Any, table: Mapping[str, Any]) -> Iterator[Problem]:
    rule, where = f"{table['section']}:event", "/AuditMessage/EventIdentification"
    if not _is_dcm(event.find("EventID")):
        system = _attribute(event.find("EventID"), "codeSystemName")
        yield Problem(f"{rule}.EventID", f"{where}/EventID", f"system {cut(system, 64)!r}", "DCM")
    fields = table["event"]
    wanted = fields["EventActionCode"]["values"]
    action = event.get("EventActionCode")
    known = tables()["code_tables"]["event_action_code"]
    if action is None or (action.strip() not in wanted and action.strip() in known):
        found = "nothing" if action is None else repr(cut(action, 16))
        yield Problem(
            f"{rule}.EventActionCode", f"{where}/@EventActionCode", found, " or ".join(wanted)
        )
    yield from _event_types(event.findall("EventTypeCode"), fields.get("EventTypeCode"), rule)


def _event_types(
    types: Sequence[Any], field: Mapping[str, Any] | None, rule: str
) -> Iterator[Problem]:
    if field is None or field["usage"] != "M":
        return
    where = "/AuditMessage/EventIdentification/EventTypeCode"
    codes = [c[0] for c in field.get("codes", ())] or list(group(field["cid"]))
    wanted = " or ".join(codes) if len(codes) < 4 else field.get("cid", "a listed code")
    if not types:
        yield Problem(f"{rule}.EventTypeCode", where, "nothing", wanted)
        return
    # Defined terms and groups may be extended by codes of other systems; enumerated ones not.
    closed = field.get("term") == "EV"
    listed = any(_has_code(one, code) or not _value(one) for one in types for code in codes)
    if not listed and (closed or all(_is_dcm(one) for one in types)):
        found = ", ".join(map(_value, types))
        yield Problem(f"{rule}.EventTypeCode", where, repr(cut(found, 64)), wanted)


def _participants(root: Any, table: Mapping[str, Any]) -> Iterator[Problem]:
    section = table["section"]
    rest = list(_numbered(root, "ActiveParticipant"))
    if not rest:  # the grammar's matter
        return
    limits = table["requestor"]
    general = limits["min_true"] == 0
    # "Exactly one user" (A.5.3.4.1): a medium is none, and has a rule of its own.
    media = [one["match"].get("role_id_code") for one in table["participants"] if _is_passive(one)]
    people = [one for _, one in rest if not any(_has_role(one, role) for role in media if role)]
    yield from _requestors(people, limits, "A.5.2.requestor" if general else f"{section}:requestor")
    # A role without code is the grammar's matter, and may be the one that is missed.
    vague = sum(any(not _value(role) for role in one.findall("RoleIDCode")) for _, one in rest)
    unmatched = []
    for entity in table["participants"]:
        role = entity["match"].get("role_id_code")
        if role is None:
            unmatched.append(entity)
            continue
        matched = [one for one in rest if _has_role(one[1], role)]
        rest = _without(rest, matched)
        rule = f"{section}:{entity['key']}"
        if len(matched) + vague < entity["min"]:
            wanted = f"{entity['min']} with RoleIDCode {role}"
            yield Problem(
                f"{rule}.RoleIDCode", "/AuditMessage/ActiveParticipant", str(len(matched)), wanted
            )
        yield from _too_many(matched, entity, rule)
        for where, one in matched:
            yield from _participant(where, one, entity, rule)
    yield from _unmatched(rest, unmatched, section)


def _unmatched(
    rest: Sequence[tuple[str, Any]], entities: Sequence[Mapping[str, Any]], section: str
) -> Iterator[Problem]:
    """Check the entities that no role tells apart: their number, and what holds for one."""
    if not entities:
        return
    first = entities[0]
    rule = f"{section}:{first['key']}"
    if len(rest) < first["min"]:
        where = "/AuditMessage/ActiveParticipant"
        yield Problem(rule, where, str(len(rest)), f"{first['min']} without a prescribed role")
    if all(entity["max"] is not None for entity in entities):
        most = sum(entity["max"] for entity in entities)
        yield from _too_many(rest, {"max": most}, rule)
    if "NetworkAccessPointID" in first["fields"]:  # the user of A.5.3.12, whichever that is
        needed = ("NetworkAccessPointID", "NetworkAccessPointTypeCode")
        for name in needed:
            if rest and not any(name in one.attrib for _, one in rest):
                yield Problem(f"{rule}.{name}", f"{rest[0][0]}/@{name}", "nothing", "the attribute")
    if len(entities) == 1:
        for where, one in rest:
            yield from _participant(where, one, first, rule)


def _participant(where: str, one: Any, entity: Mapping[str, Any], rule: str) -> Iterator[Problem]:
    fields = entity["fields"]
    if _is_passive(entity) and _requests(one):
        yield Problem(f"{rule}.UserIsRequestor", f"{where}/@UserIsRequestor", "true", "false")
    media = fields.get("MediaIdentifier", {}).get("usage") == "M"
    if media and one.find("MediaIdentifier") is None:
        yield Problem(f"{rule}.MediaIdentifier", where, "nothing", "MediaIdentifier")
    if "MediaType" in fields:
        yield from _media_type(where, one, fields, rule)
    if "NetworkAccessPointID" in fields and fields["NetworkAccessPointID"]["usage"] == "MC":
        point = "NetworkAccessPointTypeCode" in one.attrib, "NetworkAccessPointID" in one.attrib
        if point == (True, False):
            name = "NetworkAccessPointID"
            yield Problem(f"{rule}.{name}", f"{where}/@{name}", "nothing", "the attribute")


def _media_type(where: str, one: Any, fields: Mapping[str, Any], rule: str) -> Iterator[Problem]:
    kind = one.find("MediaIdentifier/MediaType")
    cid = fields["MediaType"]["cid"]
    if kind is not None and _is_dcm(kind) and _value(kind) and _value(kind) not in group(cid):
        path = f"{where}/MediaIdentifier/MediaType"
        yield Problem(f"{rule}.MediaType", path, repr(cut(_value(kind), 32)), cid)
    # Required when the target is no physical medium (A.5.3.4).
    name = "NetworkAccessPointTypeCode"
    remote = fields.get(name, {}).get("usage") == "MC" and any(
        _has_code(kind, code) for code in _NOT_PHYSICAL
    )
    if remote and name not in one.attrib:
        yield Problem(f"{rule}.{name}", f"{where}/@{name}", "nothing", "the attribute")


_NOT_PHYSICAL = ("110031", "110037")  # Email, URI


def _objects(root: Any, table: Mapping[str, Any]) -> Iterator[Problem]:
    rest = list(_numbered(root, "ParticipantObjectIdentification"))
    for entity in table["objects"]:
        rule = f"{table['section']}:{entity['key']}"
        matched = [one for one in rest if _is_meant(one[1], entity)]
        rest = _without(rest, matched)
        if len(matched) < entity["min"]:
            where = "/AuditMessage/ParticipantObjectIdentification"
            yield Problem(rule, where, f"{len(matched)} of {entity['key']}", str(entity["min"]))
        yield from _too_many(matched, entity, rule)
        for where, one in matched:
            yield from _object(where, one, entity["fields"], rule)


def _is_meant(thing: Any, entity: Mapping[str, Any]) -> bool:
    """Return True when an object is the table's `entity`, be it with a mistake in it."""
    kind = thing.find("ParticipantObjectIDTypeCode")
    codes = [code[0] for code in entity["fields"]["ParticipantObjectIDTypeCode"]["codes"]]
    if any(_has_code(kind, code) for code in codes):
        return True
    match = entity["match"]
    wanted = (match.get("type_code"), match.get("type_code_role"))
    found = [thing.get(f"ParticipantObjectTypeCode{end}", "").strip() for end in ("", "Role")]
    return wanted[0] == found[0] and wanted[1] in (None, found[1])


def _object(where: str, thing: Any, fields: Mapping[str, Any], rule: str) -> Iterator[Problem]:
    for name in ("ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"):
        value, field = thing.get(name), fields.get(name, {})
        listed = value is None or value.strip() in tables()["code_tables"][_CODE_TABLES[name]]
        if "fixed" in field and listed and (value is None or value.strip() != field["fixed"]):
            found = "nothing" if value is None else repr(cut(value, 16))
            yield Problem(f"{rule}.{name}", f"{where}/@{name}", found, field["fixed"])
    yield from _object_kind(where, thing, fields["ParticipantObjectIDTypeCode"], rule)
    name, query = thing.find("ParticipantObjectName"), thing.find("ParticipantObjectQuery")
    usages = {n: fields.get(n, {}).get("usage") for n in _NAME_OR_QUERY}
    for kind, one, other in zip(_NAME_OR_QUERY, (name, query), (query, name), strict=True):
        # Neither: the grammar's matter.
        if one is None and other is not None and usages[kind] == "M":
            yield Problem(f"{rule}.{kind}", f"{where}/{kind}", "nothing", "the element")
    fixed = fields.get("ParticipantObjectName", {}).get("fixed")
    if fixed and name is not None and " ".join((name.text or "").split()) != fixed:
        text = repr(cut(name.text or "", 64))
        yield Problem(
            f"{rule}.ParticipantObjectName", f"{where}/ParticipantObjectName", text, fixed
        )
    yield from _details(where, thing, fields.get("ParticipantObjectDetail", {}), rule)


_CODE_TABLES = {
    "ParticipantObjectTypeCode": "participant_object_type_code",
    "ParticipantObjectTypeCodeRole": "participant_object_type_code_role",
}
_NAME_OR_QUERY = ("ParticipantObjectName", "ParticipantObjectQuery")


def _object_kind(where: str, thing: Any, field: Mapping[str, Any], rule: str) -> Iterator[Problem]:
    kind = thing.find("ParticipantObjectIDTypeCode")
    codes = [code[0] for code in field["codes"]]
    if kind is None or any(_has_code(kind, code) for code in codes):
        return
    # Defined terms (A.5.3.10, A.5.3.11) may be replaced by other identifiers.
    if field.get("term") != "DT":
        found = repr(cut(_value(kind), 32))
        path = f"{where}/ParticipantObjectIDTypeCode"
        yield Problem(f"{rule}.ParticipantObjectIDTypeCode", path, found, " or ".join(codes))


def _details(where: str, thing: Any, field: Mapping[str, Any], rule: str) -> Iterator[Problem]:
    wanted = list(field.get("required_types", ()))
    kind = thing.find("ParticipantObjectIDTypeCode")
    if field.get("usage") == "MC" and _has_code(kind, "110181"):
        wanted.append("TransferSyntax")  # A.5.3.10
    path = f"{where}/ParticipantObjectDetail"
    given = {
        one.get("type", "").strip(): one.get("value", "")
        for one in thing.findall("ParticipantObjectDetail")
    }
    for name in wanted:
        if name not in given and "" not in given:
            yield Problem(f"{rule}.ParticipantObjectDetail", path, "nothing", f"type {name!r}")
    syntax = given.get("TransferSyntax") if "TransferSyntax" in wanted else None
    if syntax and is_base64(syntax) and _UID.fullmatch(a2b_base64(syntax)) is None:
        yield Problem(
            f"{rule}.ParticipantObjectDetail", path, "base64 of no UID", "base64 of a UID"
        )


_UID = re.compile(rb"[0-2](?:\.(?:0|[1-9][0-9]*))+[\0 ]*")


# --- Reading ---


def _too_many(
    matched: Sequence[tuple[str, Any]], entity: Mapping[str, Any], rule: str
) -> Iterator[Problem]:
    most = entity["max"]
    if most is not None and len(matched) > most:
        yield Problem(rule, matched[most][0], str(len(matched)), f"at most {most}")


def _without(
    rest: Sequence[tuple[str, Any]], matched: Sequence[tuple[str, Any]]
) -> list[tuple[str, Any]]:
    taken = {where for where, _ in matched}
    return [one for one in rest if one[0] not in taken]


def _numbered(root: Any, tag: str) -> Iterator[tuple[str, Any]]:
    for number, element in enumerate(root.findall(tag), 1):
        yield f"/AuditMessage/{tag}[{number}]", element


def _attribute(element: Any, name: str) -> str:
    return "" if element is None else str(element.get(name, "")).strip()


def _value(element: Any) -> str:
    """Return csd-code, or what RFC 3881 calls ``code``."""
    return _attribute(element, "csd-code") or _attribute(element, "code")


def _is_dcm(element: Any) -> bool:
    # A code system that is missing is the grammar's matter; six digits are meant for DCM.
    if element is not None and "codeSystemName" not in element.attrib:
        return len(_value(element)) == 6
    return _attribute(element, "codeSystemName") in _DCM


def _has_code(element: Any, code: str) -> bool:
    """Return True for `code`: of DCM if it has six digits, else a number code of A.5.1.2.4.

    The tables of this edition name no system for the number codes, so any but DCM will do.
    """
    return _value(element) == code and _is_dcm(element) == (len(code) == 6)


def _has_role(participant: Any, role: str) -> bool:
    return any(_has_code(one, role) for one in participant.findall("RoleIDCode"))


def _is_passive(entity: Mapping[str, Any]) -> bool:
    """Return True for an entity whose UserIsRequestor is always false."""
    return entity["fields"].get("UserIsRequestor", {}).get("fixed") is False


def _requests(participant: Any) -> bool:
    # TRUE is the grammar's matter, and meant.
    return _attribute(participant, "UserIsRequestor").lower() in _TRUE
