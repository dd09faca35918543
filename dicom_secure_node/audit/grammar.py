"""The grammar of an audit message (PS3.15 A.5.1.1), checked so that each problem has its rule.

A RELAX NG validator says *that* a message is wrong, hardly what; and libxml2's lets broken base64
pass. This walk over the element table says which rule, where, what was found and what was wanted.
`validate` asks both.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from lxml import etree

from dicom_secure_node.audit.text import cut
from dicom_secure_node.spec.audit import tables

# Types: lxml ships none, so elements are Any here and in `rules`.

_DATE_TIME = re.compile(
    r"(-?\d{4,})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-](?:0\d|1[0-4]):[0-5]\d)?"
)
_XSI = "{http://www.w3.org/2001/XMLSchema-instance"
_INTEGER = re.compile(r"[+-]?\d+")

_CODED = frozenset(
    ("EventID", "EventTypeCode", "RoleIDCode", "MediaType", "ParticipantObjectIDTypeCode")
)
# What has a rule of its own; anything else is named after element and field.
_RULES = {
    ("AuditMessage", "AuditSourceIdentification"): "A.5.1.1.one-source",
    ("MediaIdentifier", "MediaType"): "A.5.1.1.media",
    ("SOPClass", "NumberOfInstances"): "A.5.1.1.instances",
    ("ParticipantObjectIdentification", "ParticipantObjectName"): "A.5.1.1.name_or_query",
    ("ParticipantObjectIdentification", "ParticipantObjectQuery"): "A.5.1.1.name_or_query",
    ("ParticipantObjectIdentification", "ParticipantObjectTypeCodeRole"): "A.5.1.1.role-enum",
    ("ParticipantObjectIdentification", "ParticipantObjectDataLifeCycle"): "A.5.1.1.role-enum",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One breach: the rule's id, an XPath, and found against wanted.

    Attributes
    ----------
    rule : str
        Section of PS3.15 and name; `rulebook` has a sentence and the clause for each.
    line : int
        In the octets judged, from 1; 0 where there is none.
    dialect : str
        The dialect that does this as a rule (`dialects`), or empty.
    change : str
        What to change in that product.
    """

    rule: str
    where: str
    found: str
    wanted: str
    line: int = 0
    dialect: str = ""
    change: str = ""


def problems(root: Any) -> Iterator[Problem]:
    """Yield what the grammar does not allow, in document order."""
    if root.tag != "AuditMessage":
        yield Problem("A.5.1.1", "/", f"root {cut(root.tag, 80)}", "AuditMessage, no namespace")
        return
    yield from _element(root, "/AuditMessage")


def _element(element: Any, where: str) -> Iterator[Problem]:
    table = tables()["elements"][element.tag]
    yield from _attributes(element, where, table)
    yield from _text(element, where, table)
    yield from _children(element, where, table)


def _attributes(element: Any, where: str, table: Mapping[str, Any]) -> Iterator[Problem]:
    tag = element.tag
    for name, value in element.attrib.items():
        known = table["attributes"].get(name)
        if known is None:
            yield Problem(
                "A.5.1.1.xsi" if name.startswith("{") else _rule(tag, name),
                f"{where}/@{_step(name)}",
                "an attribute the grammar does not have",
                "none",
            )
        else:
            yield from _value(tag, name, f"{where}/@{name}", value, known)
    for name, known in table["attributes"].items():
        if known["required"] and name not in element.attrib:
            yield Problem(_rule(tag, name), f"{where}/@{name}", "nothing", "the attribute")
    if tag == "AuditSourceTypeCode":
        given = [n in element.attrib for n in ("codeSystemName", "originalText", "displayName")]
        if given[0] != given[1] or (given[2] and not given[0]):
            yield Problem(
                "A.5.1.1.coded",
                where,
                "a part of code system and meaning",
                "codeSystemName and originalText, both or neither",
            )


def _text(element: Any, where: str, table: Mapping[str, Any]) -> Iterator[Problem]:
    kind = table.get("text")
    pieces = [element.text or "", *(child.tail or "" for child in element)]
    if kind is None:
        if any(piece.strip() for piece in pieces):
            yield Problem(_rule(element.tag, "text"), where, "text", "none here")
    else:
        yield from _value(element.tag, "", where, "".join(pieces), {"type": kind})


def _children(element: Any, where: str, table: Mapping[str, Any]) -> Iterator[Problem]:
    particles = table["children"]
    place = {
        name: index
        for index, particle in enumerate(particles)
        for name in particle.get("choice", [particle.get("element")])
    }
    counts: Counter[int] = Counter()
    numbers: Counter[str] = Counter()
    latest = 0
    for child in element.iterchildren(tag=etree.Element):
        numbers[child.tag] += 1
        here = f"{where}/{_step(child.tag)}"
        if not child.tag.startswith("{"):
            here += f"[{numbers[child.tag]}]"
        index = place.get(child.tag)
        if index is None:
            rule = "A.5.1.1.media" if element.tag == "MediaIdentifier" else _rule(element.tag, "")
            yield Problem(rule, here, "an element that does not belong here", "none")
            continue
        if index < latest:
            after = "/".join(_names(particles[latest]))
            yield Problem("A.5.1.1.order", here, f"after {after}", f"before {after}")
        latest = max(latest, index)
        counts[index] += 1
        yield from _element(child, here)
    for index, particle in enumerate(particles):
        count, most = counts[index], particle["max"]
        if count < particle["min"] or (most is not None and count > most):
            names = _names(particle)
            wanted = f"{particle['min']} or more" if most is None else f"{particle['min']}..{most}"
            yield Problem(_rule(element.tag, names[0]), f"{where}/{names[0]}", str(count), wanted)


def _value(
    tag: str, name: str, where: str, text: str, known: Mapping[str, Any]
) -> Iterator[Problem]:
    kind, value = known["type"], " ".join(text.split())
    if kind == "enum" and value not in known["values"]:
        yield Problem(_rule(tag, name), where, _quoted(value), _one_of(known["values"]))
    elif kind == "xsd:boolean" and value not in ("true", "false", "1", "0"):
        yield Problem("A.5.1.1.boolean", where, _quoted(value), "true, false, 1 or 0")
    elif kind == "xsd:base64Binary" and not is_base64(value):
        yield Problem("A.5.1.1.base64", where, "text that is no base64", "base64 (RFC 2045)")
    elif kind == "xsd:dateTime" and not is_date_time(value):
        yield Problem(_rule(tag, name), where, _quoted(value), "xsd:dateTime")
    elif kind == "xsd:integer" and not _INTEGER.fullmatch(value):
        yield Problem(_rule(tag, name), where, _quoted(value), "an integer")


def leap_second(value: str) -> str:
    """Return `value` with second 60 mapped to 59: legal in A.5.2.5, not in xsd:dateTime."""
    found = _DATE_TIME.fullmatch(value.strip())
    if found is None or found[6] != "60":
        return value
    text = value.strip()
    return text[: found.start(6)] + "59" + text[found.end(6) :]


def has_time_zone(value: str) -> bool:
    """Return True for a dateTime with ``Z`` or an offset."""
    found = _DATE_TIME.fullmatch(value.strip())
    return found is not None and found[8] is not None


def is_date_time(value: str) -> bool:
    """Return True for xsd:dateTime, second 60 included."""
    found = _DATE_TIME.fullmatch(value)
    if found is None or (len(found[1].lstrip("-")) > 4 and found[1].lstrip("-")[0] == "0"):
        return False
    year, month, day, hour, minute, second = (int(found[n]) for n in range(1, 7))
    try:
        # The calendar repeats after 400 years; year 0 does not exist in XML Schema 1.0.
        date(2000 + year % 400, month, day)
    except ValueError:
        return False
    if hour == 24:
        return (minute, second) == (0, 0) and not (found[7] or "").strip(".0") and year != 0
    zone = found[8] or "Z"
    return year != 0 and hour < 24 and minute < 60 and second <= 60 and zone[1:] <= "14:00"


def is_base64(value: str) -> bool:
    """Return True for xsd:base64Binary."""
    try:
        a2b_base64(value.replace(" ", "").encode("ascii"), strict_mode=True)
    except (Base64Error, UnicodeEncodeError):
        return False
    return True


def _step(name: str) -> str:
    """Return the XPath step of a name in Clark's notation."""
    space, _, local = name.rpartition("}")
    if space == _XSI:
        return f"xsi:{cut(local, 80)}"
    return f"*[local-name()='{cut(local, 80)}']" if space else cut(name, 80)


def _names(particle: Mapping[str, Any]) -> list[str]:
    return list(particle["choice"]) if "choice" in particle else [particle["element"]]


def _rule(tag: str, name: str) -> str:
    if tag in _CODED or tag == "AuditSourceTypeCode":
        return "A.5.1.1.coded"
    return _RULES.get((tag, name)) or f"A.5.1.1:{tag}.{cut(name, 80)}".rstrip(".")


def _quoted(value: str) -> str:
    return repr(cut(value, 64))


def _one_of(values: list[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}"
