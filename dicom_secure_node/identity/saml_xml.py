"""SAML documents from strangers, read with suspicion (PS3.15 B.7, SAML 2.0 core).

A document that breaks one of these rules is refused before anybody asks what it says:

1. At most 65 535 bytes, which is what the sub-item 58H can hold, of UTF-8 text: neither base64
   nor compressed. Both belong to HTTP bindings; here the XML itself is sent.
2. No ``<!``, and no ``<?`` but the XML declaration. In well-formed XML these stand only for
   DOCTYPE (and with it every entity), comment, CDATA section and processing instruction, and
   each of them has made two programs read one name differently.
3. The parser fetches nothing, expands nothing and believes no encoding the document declares.
4. At most 32 levels, 2000 elements and 200 namespace declarations: the cost of canonical XML
   grows with their product.
5. Every identifier is there once, whatever its attribute is called (``ID``, ``Id``, ``xml:id``).

Reasons name what was found. Values in them are cut short and quoted.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from lxml import etree

from dicom_secure_node.errors import IdentityRefused

SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
DS = "http://www.w3.org/2000/09/xmldsig#"

ASSERTION = f"{{{SAML}}}Assertion"
RESPONSE = f"{{{SAMLP}}}Response"

MAX_BYTES = 65_535  # Primary-field-length has 16 bits (PS3.7 Table D.3-14)
_MAX_DEPTH = 32
_MAX_ELEMENTS = 2000
_MAX_NAMESPACES = 200

_PREFIXES = {SAML: "saml", SAMLP: "samlp", DS: "ds"}
_DECLARATION = re.compile(rb"\s*<\?xml\s[^<>]*\?>")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=%\s-]+")
_FORBIDDEN = {
    b"<!DOCTYPE": "a DOCTYPE",
    b"<!ENTITY": "an entity declaration",
    b"<!--": "a comment",
    b"<![CDATA[": "a CDATA section",
}

Element = etree._Element


def refusal(words: str) -> IdentityRefused:
    """Return the refusal of a SAML claim."""
    return IdentityRefused(f"SAML: {words}")


def shown(text: str | None) -> str:
    """Return the sender's `text` fit for a log: quoted, escaped, at most 80 characters."""
    if text is None:
        return "nothing"
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}..."


def name_of(element: Element) -> str:
    """Return the element's name with the customary prefix of its namespace, for a log."""
    name = etree.QName(element)
    if name.namespace in _PREFIXES and name.localname.isprintable():
        return f"{_PREFIXES[name.namespace]}:{name.localname[:80]}"
    return shown(str(element.tag))


def saml_children(parent: Element, name: str) -> list[Element]:
    """Return the children of `parent` called ``saml:name``."""
    return parent.findall(f"{{{SAML}}}{name}")


def only(parent: Element, tag: str) -> Element:
    """Return the one child `tag` of `parent`; none or several are refused."""
    found = parent.findall(tag)
    if len(found) != 1:
        name = tag.rpartition("}")[2]
        raise refusal(f"{len(found)} elements {name} in {name_of(parent)}, wanted one")
    return found[0]


def text_of(element: Element) -> str:
    """Return the text of an element that may hold nothing else."""
    if len(element):
        raise refusal(f"{name_of(element)} holds elements, wanted text")
    return element.text or ""


def hardened_parser() -> etree.XMLParser:
    """Return a new parser that keeps rule 3."""
    return etree.XMLParser(
        encoding="utf-8",  # overrules the declaration
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
    )


def read_document(data: bytes) -> Element:
    """Return the document element of `data`, which kept all rules of this module.

    Raises
    ------
    IdentityRefused
        It broke one; the reason says which.
    """
    # (1)
    if len(data) > MAX_BYTES:
        raise refusal(f"{len(data)} bytes, wanted at most {MAX_BYTES}")
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if not start.startswith(b"<"):
        raise refusal(f"found {_form(data)}, wanted the XML of an assertion")
    try:
        data.decode("utf-8", "strict")
    except UnicodeDecodeError as exc:
        # The cause would carry the assertion.
        raise refusal(f"not UTF-8 (byte {exc.start})") from None
    # (2)
    _check_markup(_DECLARATION.sub(b"", start, count=1) if start[:5] == b"<?xml" else start)
    # (3)
    try:
        root = etree.fromstring(start, hardened_parser())
    except etree.XMLSyntaxError as exc:
        # libxml2's own words quote the document.
        raise refusal(f"not well-formed XML (line {exc.position[0]})") from None
    # (4)
    _check_size(root, start)
    # (5)
    _check_identifiers(root)
    return root


def _form(data: bytes) -> str:
    """Return in words what a document that does not begin with ``<`` may be."""
    if not data.strip():
        return "nothing"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff", b"\0<"):
        return "UTF-16 text"
    if _BASE64.fullmatch(data):
        return "base64 text"
    for window in (-15, 47):  # raw deflate; zlib or gzip
        try:
            # One byte out is enough to know, and a bomb gets no further.
            if zlib.decompressobj(window).decompress(data, 1)[:1] in (b"<", b"\xef"):
                return "compressed data"
        except zlib.error:
            continue
    return "something that is no XML"


def _check_markup(text: bytes) -> None:
    position = text.find(b"<!")
    if position >= 0:
        what = next((words for mark, words in _FORBIDDEN.items()
                     if text.startswith(mark, position)), "a markup declaration")  # fmt: skip
        raise refusal(f"found {what}, none is allowed")
    if b"<?" in text:
        raise refusal("found a processing instruction, none is allowed")


def _check_size(root: Element, text: bytes) -> None:
    if text.count(b"xmlns") > _MAX_NAMESPACES:
        raise refusal(f"more than {_MAX_NAMESPACES} namespace declarations")
    for count, depth in enumerate(_depths(root), 1):
        if depth > _MAX_DEPTH:
            raise refusal(f"more than {_MAX_DEPTH} levels of elements")
        if count > _MAX_ELEMENTS:
            raise refusal(f"more than {_MAX_ELEMENTS} elements")


def _depths(root: Element) -> Iterator[int]:
    """Yield the depth of each element, the root's being 1."""
    todo = [(root, 1)]
    while todo:
        element, depth = todo.pop()
        yield depth
        todo += [(child, depth + 1) for child in element]


def _check_identifiers(root: Element) -> None:
    seen: set[str] = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            if etree.QName(name).localname.lower() != "id":
                continue
            if value in seen:
                raise refusal("two elements have the same ID")
            seen.add(str(value))
