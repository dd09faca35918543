"""Is this an audit message of PS3.15 A.5, and if not, which rule does it break where?

In order:

1. What is around the XML comes off, and octets become text (`envelope`).
2. Document type declarations, very deep elements and very many attributes are refused before a
   parser sees them that expands, recurses or compares each with each.
3. Two judges see the message: our own walk over grammar, conventions and message tables, which
   names rules, and the RELAX NG schema of A.5.1.1. If only the schema objects, its words are passed
   on under rule ``A.5.1.1.schema``.
4. The dialect is recognised, and each breach that is one of its habits says so (`dialects`). That
   excuses nothing: a message with a breach is not valid.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any

from lxml import etree

from dicom_secure_node.audit import advice, dialects, grammar, rules
from dicom_secure_node.audit.dialects import Dialect
from dicom_secure_node.audit.envelope import declares_type, decode, misshapen, peel
from dicom_secure_node.audit.grammar import Problem
from dicom_secure_node.audit.text import cut
from dicom_secure_node.spec.audit import schema

SIZE_LIMIT = 1024 * 1024  # octets; A.6 asks for 32768
PROBLEM_LIMIT = 200  # a hostile message may have a hundred thousand; nobody reads on

__all__ = ["PROBLEM_LIMIT", "SIZE_LIMIT", "Problem", "Report", "validate"]


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on one message.

    Attributes
    ----------
    problems : tuple of Problem
        Breaches of PS3.15, the first `PROBLEM_LIMIT`. Those that the dialect makes as a matter of
        course have its name in `Problem.dialect`.
    advice : tuple of Problem
        What PS3.15 leaves open and had better be otherwise (`rulebook.ADVICE`).
    dialect : Dialect or None
        None: no mark of a known one.
    own : tuple of Problem
        Breaches of the dialect's own rules that PS3.15 does not know.
    """

    problems: tuple[Problem, ...] = ()
    advice: tuple[Problem, ...] = ()
    dialect: Dialect | None = None
    own: tuple[Problem, ...] = ()

    @property
    def valid(self) -> bool:
        """Return True when nothing of PS3.15 is broken."""
        return not self.problems

    @property
    def of_dialect(self) -> tuple[Problem, ...]:
        """Return the breaches of PS3.15 that are habits of the dialect."""
        return tuple(one for one in self.problems if one.dialect)

    @property
    def beyond_dialect(self) -> tuple[Problem, ...]:
        """Return what breaks even the dialect, or PS3.15 where there is no dialect."""
        return (*(one for one in self.problems if not one.dialect), *self.own)


def validate(raw: bytes, *, limit: int = SIZE_LIMIT) -> Report:
    """Return the report on one message. Total: no input makes it raise.

    Parameters
    ----------
    raw : bytes
        The message as it came: XML with or without BOM, or a SYSLOG-MSG with or without octet
        count (RFC 5424, receiver checklist RX.5).
    limit : int
        Octets; a longer message is not read.
    """
    if len(raw) > limit:
        return _refused(f"more than {limit} octets", f"at most {limit}")
    peeled = peel(raw)
    decoded = decode(peeled.xml)
    if declares_type(decoded.text):
        return _refused("a document type declaration", "none: a message declares no entities")
    if trouble := misshapen(decoded.text):
        return _refused(trouble, "a message of bounded shape")
    found: list[Problem] = []
    if decoded.trouble:
        found.append(Problem("A.5.a", "/", decoded.trouble, "the declared encoding, else UTF-8"))
    if peeled.header and decoded.encoding != "utf-8":
        found.append(Problem("A.6.msg", "/", f"XML in {decoded.encoding}", "UTF-8 (RFC 5424)"))
    try:
        root = etree.fromstring(decoded.text.encode("utf-8", "replace"), _parser())
    except (etree.XMLSyntaxError, ValueError) as exc:
        line = decoded.lines + max(getattr(exc, "lineno", 0) or 0, 1)
        problem = Problem("A.5.a", "/", _said(exc), "well-formed XML", line)
        return Report((*found, problem))
    found += islice(grammar.problems(root), PROBLEM_LIMIT)
    hints: list[Problem] = []
    if root.tag == "AuditMessage":
        if not found:
            found += _schema_problems(root)
        found += islice(rules.problems(root), PROBLEM_LIMIT)
        hints += islice(advice.advice(root), PROBLEM_LIMIT)
    dialect = dialects.recognise(root)
    own: list[Problem] = []
    if dialect is not None:
        found = [dialects.attribute(one, dialect) for one in found]
        own += islice(dialects.own_problems(root, dialect), PROBLEM_LIMIT)
    before = decoded.lines
    return Report(
        _placed(found, root, before),
        _placed(hints, root, before),
        dialect,
        _placed(own, root, before),
    )


def _refused(found: str, wanted: str) -> Report:
    return Report((Problem("A.5.a", "/", found, wanted),))


def _said(exc: Exception) -> str:
    """Return libxml2's words without the name and place it adds."""
    return cut(re.sub(r" \(<string>, line \d+\)$|, line \d+, column \d+.*$", "", str(exc)), 160)


def _parser() -> Any:
    # A parser each time: lxml's are not to be shared between threads while parsing.
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )


@cache
def _relax_ng() -> Any:
    return etree.RelaxNG(etree.fromstring(schema()))


def _schema_problems(root: Any) -> list[Problem]:
    """Ask the schema; second 60 is legal in A.5.2.5 but not in xsd:dateTime."""
    event = root.find("EventIdentification")
    time = event.get("EventDateTime")
    event.set("EventDateTime", grammar.leap_second(time))
    relax_ng = _relax_ng()
    valid = relax_ng.validate(root)
    event.set("EventDateTime", time)
    if valid:
        return []
    last = relax_ng.error_log.last_error
    words = cut(last.message, 160) if last is not None else "not valid"
    return [Problem("A.5.1.1.schema", "/AuditMessage", words, "a message of the schema")]


# --- Places ---

_STEP = re.compile(r"([^\[/]+)(?:\[(\d+)\])?")


def _placed(problems: Iterable[Problem], root: Any, before: int) -> tuple[Problem, ...]:
    """Return the problems with the lines they are in, the first of them if there are very many."""
    known: _Children = {}
    first = islice(problems, PROBLEM_LIMIT)
    return tuple(replace(one, line=before + _line(root, one.where, known)) for one in first)


_Children = dict[tuple[Any, str], list[Any]]  # by parent and tag: asked for again and again


def _line(root: Any, where: str, known: _Children) -> int:
    """Return the line of the deepest element on the path that is there."""
    element = root
    for step in where.split("/")[2:]:
        found = _STEP.fullmatch(step)
        if found is None or step.startswith("@"):
            break
        if (element, found[1]) not in known:
            known[element, found[1]] = [one for one in element if one.tag == found[1]]
        below = known[element, found[1]]
        number = int(found[2] or 1)
        if number > len(below):
            break
        element = below[number - 1]
    return int(element.sourceline or 0)
