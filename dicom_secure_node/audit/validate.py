"""Is this an audit message of PS3.15 A.5, and if not, which rule does it break where?

Two judges see every message: the RELAX NG schema of A.5.1.1, and our own walk, which names rules.
If only the schema objects, its words are passed on under rule ``A.5.1.1.schema``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from lxml import etree

from dicom_secure_node.audit import grammar, rules
from dicom_secure_node.audit.grammar import Problem
from dicom_secure_node.audit.text import cut
from dicom_secure_node.spec.audit import schema

SIZE_LIMIT = 1024 * 1024  # octets; A.6 asks for 32768
_BOM = b"\xef\xbb\xbf"

__all__ = ["SIZE_LIMIT", "Problem", "Report", "validate"]


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on one message."""

    problems: tuple[Problem, ...] = ()

    @property
    def valid(self) -> bool:
        """Return True when nothing was found."""
        return not self.problems


def validate(xml: bytes) -> Report:
    """Return the report on one message.

    Parameters
    ----------
    xml : bytes
        The XML; a BOM and blanks before it are allowed (RFC 5424, receiver checklist RX.5).
    """
    if len(xml) > SIZE_LIMIT:
        return _refused(f"{len(xml)} octets", f"at most {SIZE_LIMIT}")
    try:
        root = etree.fromstring(xml.removeprefix(_BOM).lstrip(), _parser())
    except (etree.XMLSyntaxError, ValueError) as exc:
        return _refused(cut(str(exc), 160), "well-formed XML")
    if root.getroottree().docinfo.internalDTD is not None:
        return _refused("a document type declaration", "none: a message declares no entities")
    found = list(grammar.problems(root))
    if root.tag == "AuditMessage":
        if not found:
            found += _schema_problems(root)
        found += rules.problems(root)
    return Report(tuple(found))


def _refused(found: str, wanted: str) -> Report:
    return Report((Problem("A.5.a", "/", found, wanted),))


def _parser() -> Any:
    # A parser each time: lxml's are not to be shared between threads while parsing.
    return etree.XMLParser(
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
