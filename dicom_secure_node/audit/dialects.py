# ruff: noqa: E501 - a row a line: tables to read
"""Dialects of the audit message that receivers meet, and what each does against PS3.15 A.5.

A dialect is data: *marks*, XPath expressions of which one suffices to know it; *habits*, the rules
it breaks as a matter of course, where, and what to change in the product; and *own* rules, where it
asks for more than PS3.15 or something else. What no habit covers breaks even the dialect.

Sources, read and told in own words:

* RFC 3881 (September 2004): the forms of its schema that products publish (section 6), what DICOM's
  schema says it added, and messages of its days. The RFC's own text was not at hand: its section
  numbers and the default of UserIsRequestor are from memory;
* dcm4che: the project's own schema of the message, and the audit chapter of the dcm4chee-arc
  conformance statement with its samples; issues dcm4che #49 (codes of the source), #215 (meanings
  of the roles until 2018), #1572 (roles 25 and 26); dcm4chee-arc-light #586 (a sample), #912 (types
  of users, after change proposals of IHE and DICOM that were not taken up so);
* IPF: its serialisation strategies by edition (DICOM 2016a, 2016c, 2017c), after CP-1362 and
  CP-1638; issues oehf/ipf #265 (Name and Query), #347, #348 (samples); krasserm/ipf #42 (a message
  of its days with RFC 3881). PurposeOfUse is from IHE ITI TF-2, 3.20;
* earlier editions of PS3.15: their own text, up to 2016b and from 2016c to 2017a.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from lxml import etree

from dicom_secure_node.audit.grammar import Problem
from dicom_secure_node.audit.text import cut

__all__ = ["DIALECTS", "Dialect", "Habit", "Own", "attribute", "own_problems", "recognise"]


@dataclass(frozen=True, slots=True)
class Habit:
    """A breach a dialect is known for.

    Attributes
    ----------
    rule : str
        Regular expression for the whole rule id.
    where : str
        Regular expression searched in the path.
    differs : str
        What PS3.15 wants in its place, in a clause ("codes are ..., not ...").
    change : str
        What to change in the product.
    """

    rule: str
    where: str
    differs: str
    change: str


@dataclass(frozen=True, slots=True)
class Own:
    """A rule of the dialect's own: XPath of what breaks it."""

    rule: str
    broken: str
    found: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of writing audit messages.

    Attributes
    ----------
    key : str
        What reports call it.
    title : str
        Who writes it, for people.
    marks : tuple of str
        XPath expressions; the prefix ``xsi`` is bound.
    habits : tuple of Habit
        First match counts.
    own : tuple of Own
        See `Own`.
    """

    key: str
    title: str
    marks: tuple[str, ...]
    habits: tuple[Habit, ...]
    own: tuple[Own, ...] = ()


_XSI = {"xsi": "http://www.w3.org/2001/XMLSchema-instance"}

_LOCATION = Habit(
    r"A\.5\.1\.1\.xsi",
    r"schemaLocation|noNamespaceSchemaLocation",
    "the root has no attribute that points to a schema",
    "write the root as <AuditMessage> alone; receivers know the schema",
)
_NAME_MISSING = Habit(
    r"A\.5\.1\.1\.name_or_query|A\.5\.3\.\d+:\w+\.ParticipantObjectName",
    r"ParticipantObject",
    "each object has exactly one of ParticipantObjectName and ParticipantObjectQuery",
    "write one of the two: for a study its description or UID as name; for a query the query alone",
)
_OLD_MEANING = Habit(
    r"A\.5\.1\.1\.coded",
    r"/@originalText$",
    "originalText is the code meaning of PS3.16, e.g. 'Source Role ID', not 'Source'",
    "take the meanings of PS3.16 CID 400 to 405",
)
_SOURCE_CODE = Habit(
    r"A\.5\.1\.1\.coded|A\.5\.1\.2\.1",
    r"AuditSourceTypeCode",
    "AuditSourceTypeCode has the attribute csd-code, since 2017b",
    'write <AuditSourceTypeCode csd-code="4"/>',
)

# fmt: off
RFC_3881 = Dialect(
    "RFC 3881",
    "RFC 3881 of 2004",
    marks=(
        "//EventID[@code and not(@csd-code)]",
        "//EventTypeCode[@code and not(@csd-code)]",
        "//RoleIDCode[@code and not(@csd-code)]",
        "//ParticipantObjectIDTypeCode[@code and not(@csd-code)]",
        "/AuditMessage/@xsi:noNamespaceSchemaLocation[contains(., 'healthcare-security-audit')]",
        "/AuditMessage[count(AuditSourceIdentification) > 1]",
    ),
    habits=(
        Habit(r"A\.5\.1\.1\.coded", r"ID|Type|Role",
              "codes are csd-code, codeSystemName and originalText, all three, not code, codeSystem and displayName",
              "rename code to csd-code, write the meaning as originalText, always name the code system, drop codeSystem"),
        Habit(r"A\.5\.1\.1\.one-source", r"", "there is one AuditSourceIdentification, not one or more",
              "report the system that made the message; others are participants"),
        Habit(r"A\.5\.1\.1:ActiveParticipant\.UserIsRequestor", r"", "UserIsRequestor is required, not true by default",
              "write UserIsRequestor for each participant"),
        Habit(r"A\.5\.1\.1\.name_or_query", r"", "an object has a name or a query, not perhaps",
              _NAME_MISSING.change),
        _LOCATION,
        Habit(r"A\.5\.1\.2\.1", r"", "types of sources beyond 1 to 9 have system and meaning", _SOURCE_CODE.change),
        Habit(r"A\.5\.2\.5\.timezone", r"", "the time has a zone; RFC 3881 asks for one in prose", "write Z or the offset"),
        Habit(r"A\.5\.[23].*", r"", "there are conventions and fifteen message tables, of which RFC 3881 has none",
              "follow the table of the event in PS3.15 A.5.3"),
    ),
    own=(
        Own("RFC 3881 5.3", "//ActiveParticipant/@NetworkAccessPointTypeCode[. = '4' or . = '5']",
            "a type that DICOM added", "1, 2 or 3"),
        Own("RFC 3881 5.5", "//ParticipantObjectDescription", "an element that DICOM added", "none"),
        Own("RFC 3881 5.5", "//@ParticipantObjectTypeCodeRole[. > 24 and . < 27]", "a role that DICOM added", "1 to 24"),
        Own("RFC 3881 5.2", "//MediaIdentifier", "an element that DICOM added", "none"),
        Own("RFC 3881 5.1", "//EventOutcomeDescription", "an element that DICOM added", "none"),
    ),
)

DCM4CHE = Dialect(
    "dcm4che",
    "dcm4che and dcm4chee-arc",
    marks=(
        "/AuditMessage/@xsi:noNamespaceSchemaLocation[contains(., 'dcm4che')]",
        "//ActiveParticipant/@UserTypeCode",
        "//ActiveParticipant/UserIDTypeCode",
        "//*[@codeSystemName = '99DCM4CHEE']",
    ),
    habits=(
        _LOCATION,
        Habit(r"A\.5\.1\.1:ActiveParticipant\.UserTypeCode", r"", "ActiveParticipant has no UserTypeCode",
              "leave it out; that an application acts is told by its role"),
        Habit(r"A\.5\.1\.1:ActiveParticipant", r"/UserIDTypeCode", "ActiveParticipant has no UserIDTypeCode",
              "leave it out; an AE title is AlternativeUserID AETITLES=..., UserID the process or login"),
        _NAME_MISSING,
        Habit(r"A\.5\.1\.1\.one-source", r"", "there is exactly one AuditSourceIdentification", "write one"),
        _SOURCE_CODE,
        _OLD_MEANING,
        Habit(r"A\.5\.1\.1\.instances", r"", "NumberOfInstances of a SOPClass is required", "write the number"),
        Habit(r"A\.5\.1\.1:ActiveParticipant", r"/MediaType", "MediaType is inside MediaIdentifier",
              "write <MediaIdentifier><MediaType .../></MediaIdentifier>"),
        Habit(r"A\.5\.1\.1:ParticipantObjectDescription\.(Encrypted|Anonymized)", r"",
              "Encrypted and Anonymized are elements, not attributes", "write <Encrypted>true</Encrypted>"),
        Habit(r"A\.5\.2\.sopclass", r"", "a study with accession numbers lists its SOP Classes",
              "add SOPClass, or leave the accession number out"),
        Habit(r"A\.5\.3\.10:query\.ParticipantObjectTypeCodeRole", r"", "the object of Query has role 3, not 24",
              "write role 3 (Report) in DICOM queries"),
    ),
)

IHE = Dialect(
    "IHE ATNA",
    "IPF and other products of IHE ATNA",
    marks=(
        "//EventIdentification/PurposeOfUse",
        "//*[@codeSystemName = 'IHE Transactions']",
        "//*[@codeSystemName = 'IHE XDS Metadata']",
        "//*[@codeSystemName = 'urn:ihe:event-type-code']",
        "//ParticipantObjectDetail[starts-with(@type, 'ihe:')]",
    ),
    habits=(
        Habit(r"A\.5\.1\.1:EventIdentification", r"/PurposeOfUse", "EventIdentification has no PurposeOfUse",
              "leave it out of messages for PS3.15; IHE alone defines it"),
        Habit(r"A\.5\.1\.1\.name_or_query", r"", _NAME_MISSING.differs, _NAME_MISSING.change),
        Habit(r"A\.5\.1\.1:AuditSourceTypeCode\.text", r"", "AuditSourceTypeCode is an attribute's value, not text",
              "choose the serialisation of 2017c or later (IPF: DICOM2017c, Current)"),
        _SOURCE_CODE,
        Habit(r"A\.5\.1\.1\.base64", r"/@value", "values of details are base64", "encode the value; IPF takes octets as they are"),
        _LOCATION,
        _OLD_MEANING,
        Habit(r"A\.5\.3\.\d+:query(\..*)?", r"",
              "Query is about one SOP Class in role 3, with its transfer syntax; IHE queries are role 24",
              "DICOM queries follow A.5.3.10; ITI queries are IHE's and stay as they are"),
        Habit(r"A\.5\.3\.[45]:media(\..*)?", r"", "Export and Import name their medium, network targets also",
              "add a participant with role 110154 or 110155"),
        Habit(r"A\.5\.3\.[45]:(requestor|patient|local.*|importer.*)", r"", "Export and Import follow the tables of A.5.3",
              "ITI transactions are IHE's own use of the event; DICOM exports follow the table"),
    ),
)

EARLIER = Dialect(
    "PS3.15 before 2017b",
    "an earlier edition of PS3.15",
    marks=(
        "//AuditSourceTypeCode[@code and not(@csd-code)]",
        "//AuditSourceTypeCode[normalize-space(.) != '']",
        "//AuditSourceIdentification/@code",
    ),
    habits=(
        Habit(r"A\.5\.1\.1:AuditSourceTypeCode\.text", r"", "AuditSourceTypeCode is an attribute's value, not text",
              _SOURCE_CODE.change),
        Habit(r"A\.5\.1\.1:AuditSourceIdentification\.\w+", r"/@(code|codeSystemName|originalText|displayName)$",
              "AuditSourceIdentification has no code of its own", _SOURCE_CODE.change),
        _SOURCE_CODE,
        _NAME_MISSING,
        _OLD_MEANING,
    ),
)
# fmt: on

# The first whose mark is found: dcm4che and IPF write parts of the others, too.
DIALECTS = (DCM4CHE, IHE, RFC_3881, EARLIER)


@cache
def _compiled(expression: str) -> Any:
    return etree.XPath(expression, namespaces=_XSI)


def recognise(root: Any) -> Dialect | None:
    """Return the dialect of a message, None where no mark of any is in it."""
    for dialect in DIALECTS:
        if any(_compiled(mark)(root) for mark in dialect.marks):
            return dialect
    return None


def attribute(problem: Problem, dialect: Dialect) -> Problem:
    """Return the problem with the dialect's name and the cure, if it is a habit."""
    for habit in dialect.habits:
        if re.fullmatch(habit.rule, problem.rule) and re.search(habit.where, problem.where):
            return replace(problem, dialect=dialect.key, change=habit.change)
    return problem


def own_problems(root: Any, dialect: Dialect) -> Iterator[Problem]:
    """Yield what breaks the dialect's own rules, be it allowed by PS3.15."""
    tree = root.getroottree()
    for own in dialect.own:
        for node in _compiled(own.broken)(root):
            element = node.getparent() if hasattr(node, "getparent") else None
            is_text = getattr(node, "is_attribute", False)
            where = tree.getpath(element if is_text else node)
            if is_text:
                where += f"/@{cut(node.attrname, 80)}"
            yield Problem(own.rule, where, own.found, own.wanted)
