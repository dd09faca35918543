"""What is no breach and still worth saying: read differently, or forbidden by a later edition.

The rules are `rulebook.ADVICE`. They never make a message invalid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dicom_secure_node.audit.grammar import Problem
from dicom_secure_node.audit.text import cut
from dicom_secure_node.spec.audit import DCM_OID, group, messages, tables

_UID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))*")  # comment of the schema
_TITLES = re.compile(r"AETITLES=[^ ;][^;]*(?:;[^;]+)*")
_ALMOST_TITLES = re.compile(r"\s*AE_?TITLES?\s*[=:]", re.IGNORECASE)
_DEPRECATED_ROLES = ("4", "7", "12", "14", "22")
_GROUPS = {
    "EventID": "CID 400",
    "EventTypeCode": "CID 401",
    "RoleIDCode": "CID 402",
    "ParticipantObjectIDTypeCode": "CID 404",
}
# A.5.1.2.2: the types of object that a role goes with.
_TYPES_OF_ROLE = {
    **dict.fromkeys(("1", "8"), ("1",)),
    **dict.fromkeys(("2", "9", "19"), ("3",)),
    **dict.fromkeys(("4", "10", "15"), ("1", "3")),
    **dict.fromkeys(("6", "11"), ("1", "2")),
}
_MAY_BE_EMPTY = "EventOutcomeDescription", "ParticipantObjectName", "ParticipantObjectQuery"


def advice(root: Any) -> Iterator[Problem]:
    """Yield what a message whose root is AuditMessage had better do otherwise."""
    # A path costs a walk over siblings: only hints get one.
    path = root.getroottree().getpath
    for hint in _hints(root):
        yield Problem(hint.rule, path(hint.element) + hint.below, hint.found, hint.wanted)


@dataclass(frozen=True, slots=True)
class _Hint:
    rule: str
    element: Any
    below: str  # from the element on
    found: str
    wanted: str


def _hints(root: Any) -> Iterator[_Hint]:
    for element in root.iter():
        yield from _empty(element)
        yield from _uid(element)
        yield from _code(element)
        if element.tag == "ActiveParticipant":
            yield from _titles(element)
        elif element.tag == "ParticipantObjectIdentification":
            yield from _object(element)
    yield from _objects_of_event(root)


def _empty(element: Any) -> Iterator[_Hint]:
    for name, value in element.attrib.items():
        if not value.strip():
            yield _Hint("A.5.2.no_empty", element, f"/@{cut(name, 80)}", "''", "text or nothing")
    if element.tag in _MAY_BE_EMPTY and not (element.text or "").strip() and not len(element):
        yield _Hint("A.5.2.no_empty", element, "", "an empty element", "text or nothing")


def _uid(element: Any) -> Iterator[_Hint]:
    uid = element.get("UID", "").strip()
    if uid and (len(uid) > 64 or not _UID.fullmatch(uid)):
        yield _Hint("A.5.1.1.uid", element, "/@UID", repr(cut(uid, 70)), "a UID")


def _code(element: Any) -> Iterator[_Hint]:
    value, system = element.get("csd-code", "").strip(), element.get("codeSystemName", "").strip()
    cid = _GROUPS.get(element.tag)
    if cid and value and system in ("DCM", DCM_OID) and value not in group(cid):
        yield _Hint("A.5.2.context-group", element, "", repr(cut(value, 32)), f"a code of {cid}")
    if element.tag != "ParticipantObjectIDTypeCode":
        return
    meaning = tables()["code_tables"]["participant_object_id_type_code"].get(value)
    if meaning is None or system in ("DCM", DCM_OID):
        return
    text = " ".join(element.get("originalText", meaning).split())
    if system != "RFC-3881" or text.casefold() != meaning.casefold():
        found = f"({value}, {cut(system, 32)}, {cut(text, 64)!r})"
        yield _Hint("A.5.1.2.4", element, "", found, f"({value}, RFC-3881, {meaning!r})")


def _titles(element: Any) -> Iterator[_Hint]:
    text = element.get("AlternativeUserID", "")
    if _ALMOST_TITLES.match(text) and not _TITLES.fullmatch(text.strip()):
        yield _Hint(
            "A.5.2.2.ae", element, "/@AlternativeUserID", repr(cut(text, 64)), "AETITLES=A;B"
        )


def _object(element: Any) -> Iterator[_Hint]:
    role = element.get("ParticipantObjectTypeCodeRole", "").strip()
    kind = element.get("ParticipantObjectTypeCode", "").strip()
    if role in _DEPRECATED_ROLES:
        below = "/@ParticipantObjectTypeCodeRole"
        yield _Hint("A.5.1.2.2", element, below, f"{role}, which is deprecated", "another role")
    likely = _TYPES_OF_ROLE.get(role, ("2",))
    if role and kind and kind not in likely:
        found = f"role {cut(role, 8)} with type {cut(kind, 8)}"
        yield _Hint("A.5.2.6", element, "", found, f"type {' or '.join(likely)}")
    id_type = element.find("ParticipantObjectIDTypeCode")
    if id_type is None or id_type.get("csd-code") != "110180":
        return
    uid = element.get("ParticipantObjectID", "").strip()
    if uid and not _UID.fullmatch(uid):
        yield _Hint(
            "A.5.1.1.uid",
            element,
            "/@ParticipantObjectID",
            repr(cut(uid, 70)),
            "a Study Instance UID",
        )
    if element.find("ParticipantObjectDescription/ParticipantObjectContainsStudy") is not None:
        below = "/ParticipantObjectDescription/ParticipantObjectContainsStudy"
        yield _Hint("A.5.2.contains-study", element, below, "the study's own UID again", "nothing")


def _objects_of_event(root: Any) -> Iterator[_Hint]:
    event = root.find("EventIdentification/EventID")
    table = messages().get("" if event is None else event.get("csd-code", "").strip())
    first = root.find("ParticipantObjectIdentification")
    if table is not None and not table["objects"] and first is not None:
        found = f"objects in {table['name']}"
        yield _Hint("A.5.3.objects", first, "", found, "none")
