"""What stands around the XML of an audit message, and how its octets become text.

Senders, relays and collectors wrap a message in turn. `peel` takes off, from the outside in:

1. the octet count of RFC 5425 (``936 <85>1 ...``);
2. the syslog header, RFC 5424 or the older RFC 3164, with structured data of any kind;
3. the BOM, also doubled, and blanks around it (RFC 5424 section 6.4);
4. the escapes rsyslog writes for control characters (``#012`` is a line feed in octal).

`decode` then finds the character encoding. Nothing here raises on any input, and nothing takes
more than linear time.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from xml.parsers import expat

DEPTH_LIMIT = 32  # elements within one another; the grammar needs 6
ATTRIBUTE_LIMIT = 64  # of one element; the grammar has 6

_COUNT = re.compile(rb"\s*[1-9][0-9]{0,8} (?=<[0-9]{1,3}>)")
_PRIORITY = re.compile(rb"\s*<[0-9]{1,3}>")
# RFC 5424 up to the blank before MSG: what looks like a document in structured data is none.
_HEADER = re.compile(
    rb"\s*<[0-9]{1,3}>1(?: [\x21-\x7e]{1,255}){5} "
    rb"(?:-|(?:\[(?:[^\]\\\"]|\"(?:[^\"\\]|\\.)*\")*\])+)(?: |\Z)",
    re.DOTALL,
)
# Where the document begins: its declaration, or an element or document type of the right name.
_DOCUMENT = re.compile(
    rb"<\?xml[\s#]|<(?:[A-Za-z_][\w.-]{0,63}:)?AuditMessage\b|<!DOCTYPE\b", re.IGNORECASE
)
_ESCAPE = re.compile(rb"#([0-3][0-7]{2})")
# An escape where XML has white space or nothing: a text of the sender's own is not taken for one.
_ESCAPED = re.compile(rb"[>\"'?]#0(?:11|12|15)|\A(?:#357#273#277|#0(?:11|12|15))")
_BOM = codecs.BOM_UTF8
_ESCAPED_BOM = b"#357#273#277"

_MARKS = (
    # longest first: the UTF-32 mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
# Declared name: codec. Others are not tried: nobody's audit message needs EBCDIC or UTF-7.
_ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "iso-8859-15": "iso-8859-15",
    "windows-1252": "cp1252",
}
_DECLARATION = re.compile(r"\A\s*<\?xml\s[^>]{0,200}?\?>")
_Q = r"(?:\"{0}\"|'{0}')"
_WELL_FORMED = re.compile(
    r"\s*<\?xml\s+version\s*=\s*"
    + _Q.format(r"1\.[0-9]+")
    + r"(?:\s+encoding\s*=\s*"
    + _Q.format(r"[A-Za-z][A-Za-z0-9._-]*")
    + ")?"
    + r"(?:\s+standalone\s*=\s*"
    + _Q.format("(?:yes|no)")
    + r")?\s*\?>"
)
_DECLARED = re.compile(rb"\A\s*<\?xml\s[^>]{0,100}?\bencoding\s*=\s*[\"']([A-Za-z][\w.-]{0,39})")

__all__ = [
    "ATTRIBUTE_LIMIT",
    "DEPTH_LIMIT",
    "Decoded",
    "Peeled",
    "declares_type",
    "decode",
    "misshapen",
    "peel",
]


@dataclass(frozen=True, slots=True)
class Peeled:
    """A document and what was around it.

    Attributes
    ----------
    xml : bytes
        From the XML declaration or the first element on; everything when neither is to be seen.
    header : bytes
        The syslog header, without octet count; empty where there was none.
    escaped : bool
        Control characters were written as ``#ooo`` and are themselves again.
    """

    xml: bytes
    header: bytes = b""
    escaped: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """The text of a document, without BOM and declaration.

    Attributes
    ----------
    encoding : str
        The codec that was used.
    lines : int
        Line feeds cut off in front, so that line numbers can be told as in the file.
    trouble : str
        What is wrong with the encoding, in words; empty when nothing is.
    """

    text: str
    encoding: str
    lines: int = 0
    trouble: str = ""


def peel(raw: bytes) -> Peeled:
    """Return the document in one message as it came off a wire or out of a log."""
    if counted := _COUNT.match(raw):
        raw = raw[counted.end() :]
    header = b""
    # Collectors' files hold headers without PRI: a document does not start with a letter.
    if _PRIORITY.match(raw) or raw.lstrip()[:1].isalnum():
        known = _HEADER.match(raw)
        start = _DOCUMENT.search(raw, known.end() if known else 0)
        # RFC 5424 carries other messages, too: what has no document is kept whole.
        if start is not None:
            header, raw = raw[: start.start()], raw[start.start() :]
            header = _without_marks(header)
    escaped = b"\n" not in raw.strip() and _ESCAPED.search(raw) is not None
    if escaped:
        raw = _ESCAPE.sub(_octet, raw)
    while raw.startswith(_BOM + _BOM):
        raw = raw[len(_BOM) :]
    return Peeled(raw, header, escaped)


def decode(xml: bytes) -> Decoded:
    """Return the text of a document, by its BOM, its declaration, or as UTF-8.

    Octets that do not fit become U+FFFD or, where nothing is declared, what Windows-1252 makes of
    them: products that forget the declaration mostly write that. `Decoded.trouble` then says so.
    """
    name, trouble = "utf-8", ""
    for mark, codec in _MARKS:
        if xml.startswith(mark):
            name = codec
            xml = xml.removeprefix(mark) if b"<" not in mark else xml
            break
    else:
        name, trouble = _declared(xml)
    try:
        text = xml.decode(name)
    except UnicodeDecodeError as exc:
        trouble = trouble or f"octet {exc.start} is not {name}"
        # A message cut off inside a character is UTF-8 all the same.
        if name == "utf-8" and exc.start < len(xml) - 3:
            name = "cp1252"
        text = xml.decode(name, "replace")
    bare = text.lstrip("\ufeff")
    if declaration := _DECLARATION.match(bare):
        if _WELL_FORMED.fullmatch(declaration[0]) is None:
            trouble = trouble or "an XML declaration that is none"
        bare = bare[declaration.end() :]
    bare = bare.lstrip()
    return Decoded(bare, name, text.count("\n", 0, len(text) - len(bare)), trouble)


def declares_type(text: str) -> bool:
    """Return True for a document with a document type declaration: entities come from there."""
    at = 0
    while True:
        rest = text[at : at + 1]
        if rest and rest in " \t\r\n":
            at += 1
        elif text.startswith("<!--", at) or text.startswith("<?", at):
            end = "-->" if text.startswith("<!--", at) else "?>"
            stop = text.find(end, at)
            if stop < 0:
                return False
            at = stop + len(end)
        else:
            return text.startswith("<!DOCTYPE", at)


def misshapen(text: str) -> str:
    """Return in words what of a document's shape is beyond bounds, or nothing.

    What is not well-formed ends the look: the parser will say so.
    """
    depth = 0

    def start(_: str, attributes: list[str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH_LIMIT:
            raise _Misshapen(f"more than {DEPTH_LIMIT} elements within one another")
        if len(attributes) > 2 * ATTRIBUTE_LIMIT:
            raise _Misshapen(f"an element with more than {ATTRIBUTE_LIMIT} attributes")

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate("utf-8")
    parser.ordered_attributes = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except _Misshapen as exc:
        return str(exc)
    except expat.ExpatError:
        pass
    return ""


class _Misshapen(Exception):
    """The text says how."""


def _declared(xml: bytes) -> tuple[str, str]:
    """Return codec and trouble of a document without a mark."""
    found = _DECLARED.match(xml)
    if found is None:
        return "utf-8", ""
    name = found[1].decode("ascii").lower()
    codec = _ENCODINGS.get(name)
    if codec is not None:
        return codec, ""
    # .NET's StringWriter declares utf-16 whatever the octets are.
    return "utf-8", f"declares {name}, the octets are not"


def _octet(found: re.Match[bytes]) -> bytes:
    value = int(found[1], 8)
    # rsyslog escapes control characters and, if told to, octets with the high bit.
    return bytes((value,)) if value < 32 or value > 126 else found[0]


def _without_marks(header: bytes) -> bytes:
    header = header.strip()
    while header.endswith((_BOM, _ESCAPED_BOM)):
        header = header.removesuffix(_BOM).removesuffix(_ESCAPED_BOM).rstrip()
    return header
