"""One message, explained: what breaks which rule, and its octets made readable."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from dicom_secure_node.audit.envelope import decode, peel
from dicom_secure_node.audit.rulebook import clause, sentence
from dicom_secure_node.audit.validate import Problem, validate
from dicom_secure_node.audit_web.text import visible

SHOWN_CHARACTERS = 256 * 1024
SHOWN_PROBLEMS = 200


@dataclass(frozen=True, slots=True)
class Explained:
    """A breach, what its rule says, and where the rule stands."""

    problem: Problem
    sentence: str
    clause: str


def explained(raw: bytes) -> tuple[list[Explained], int]:
    """Return the breaches of a message, the first of them, and how many there are."""
    found = validate(raw).problems
    shown = found[:SHOWN_PROBLEMS]
    return [Explained(one, sentence(one.rule), clause(one.rule)) for one in shown], len(found)


def readable(raw: bytes) -> tuple[str, list[str]]:
    """Return the syslog header and the lines of the document, indented where it is XML.

    What cannot be seen is spelt out, and what is very long is cut.
    """
    peeled = peel(raw)
    header = visible(peeled.header.decode("utf-8", "replace"))
    text = _indented(peeled.xml)
    if text is None:
        text = decode(peeled.xml).text if peeled.header or b"<" in raw else _text(raw)
    cut = text[:SHOWN_CHARACTERS]
    lines = [visible(line) for line in cut.replace("\r\n", "\n").split("\n")]
    if len(cut) < len(text):
        lines.append(f"... {len(text) - len(cut)} more characters")
    return header, lines


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _indented(xml: bytes) -> str | None:
    """Return the document with a line an element; None where it is not well-formed XML."""
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_blank_text=True,
    )
    try:
        root = etree.fromstring(xml.removeprefix(b"\xef\xbb\xbf").lstrip(), parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    if root.getroottree().docinfo.internalDTD is not None:
        return None
    return etree.tostring(root, encoding="unicode", pretty_print=True).rstrip()
