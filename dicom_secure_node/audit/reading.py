"""Read what can be read of anyone's audit message: who, what, when, which patient and study.

For a repository that keeps everyone's messages. Nothing is judged here (`validate` does): the
present form of PS3.15 A.5, RFC 3881 and the forms products write are read alike, names without
regard to case, prefix and order, and of a message that breaks off, what came before.

`summarise` is total: hostile input costs bounded time and memory and yields a `Summary` whose
`trouble` says what is missing. Document type declarations are not read, entities not expanded.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from xml.parsers import expat

from dicom_secure_node.audit.envelope import DEPTH_LIMIT, decode, peel
from dicom_secure_node.audit.grammar import leap_second
from dicom_secure_node.audit.text import ID_LIMIT, REASON_LIMIT, cut
from dicom_secure_node.spec.audit import DCM_OID, Code, meanings

READ_LIMIT = 1024 * 1024  # octets of one message; the rest is not looked at
LIST_LIMIT = 256  # users, patients, studies, accession numbers: each

__all__ = ["READ_LIMIT", "Patient", "Summary", "User", "summarise"]


@dataclass(frozen=True, slots=True)
class User:
    """One ActiveParticipant.

    Attributes
    ----------
    ae_titles : tuple of str
        From an AlternativeUserID ``AETITLES=A;B`` (A.5.2.2); its other forms are
        `alternative_id`.
    requestor : bool or None
        None: not said, or not readable.
    roles : tuple of Code
        RoleIDCode.
    """

    user_id: str = ""
    alternative_id: str = ""
    ae_titles: tuple[str, ...] = ()
    name: str = ""
    requestor: bool | None = None
    address: str = ""
    roles: tuple[Code, ...] = ()


@dataclass(frozen=True, slots=True)
class Patient:
    """One object that is a patient."""

    patient_id: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a message says, as far as it can be read. All text is cut and printable.

    Attributes
    ----------
    event : Code or None
        EventID; its meaning is the table's where the message gives none.
    types : tuple of Code
        EventTypeCode.
    action : str
        ``C R U D E``, or empty.
    outcome : int or None
        0, 4, 8, 12.
    time : datetime or None
        EventDateTime in UTC. A time without zone is taken for UTC, `zoned` is then False.
    time_text : str
        EventDateTime as written.
    studies, accessions : tuple of str
        Study Instance UIDs and accession numbers, each once.
    source, site : str
        AuditSourceID and AuditEnterpriseSiteID; of several sources the first.
    text : str
        EventOutcomeDescription and descriptions of alerts.
    trouble : str
        Why something may be missing; empty when the document was read to its end.
    """

    event: Code | None = None
    types: tuple[Code, ...] = ()
    action: str = ""
    outcome: int | None = None
    time: datetime | None = None
    zoned: bool = True
    time_text: str = ""
    users: tuple[User, ...] = ()
    patients: tuple[Patient, ...] = ()
    studies: tuple[str, ...] = ()
    accessions: tuple[str, ...] = ()
    source: str = ""
    site: str = ""
    text: str = ""
    trouble: str = ""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return addresses and AE titles of the participants, each once."""
        named = (name for user in self.users for name in (user.address, *user.ae_titles))
        return tuple(dict.fromkeys(name for name in named if name))


def summarise(raw: bytes) -> Summary:
    """Return what one message says.

    Parameters
    ----------
    raw : bytes
        The message as it came: XML, a SYSLOG-MSG with or without octet count, or a line of the
        node's own store (JSON with ``xml``).
    """
    size = len(raw)
    xml = peel(_unstored(raw[:READ_LIMIT])).xml
    decoded = decode(xml)
    reader = _Reader()
    trouble = reader.read(decoded.text, decoded.lines) or decoded.trouble
    if size > READ_LIMIT:
        trouble = f"{size} octets, {READ_LIMIT} of them read"
    return reader.summary(trouble)


def _unstored(raw: bytes) -> bytes:
    """Return the XML in a line of a node's store, anything else as it is."""
    if raw.lstrip()[:1] != b"{":
        return raw
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    xml = record.get("xml") if isinstance(record, dict) else None
    return xml.encode("utf-8", "replace") if isinstance(xml, str) else raw


# --- The document ---

# What XML 1.0 forbids (production [2]); expat would stop there.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# An ampersand that is no reference of XML's own: text somebody forgot to escape, or an entity.
_AMPERSAND = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)")
_TITLES = re.compile(r"\s*AETITLES?\s*=\s*", re.IGNORECASE)
_OUTCOMES = {"0": 0, "4": 4, "8": 8, "12": 12}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_PATIENT_NUMBERS = ("1", "2")  # medical record number, patient number (A.5.1.2.4)

_T = TypeVar("_T")
_Words = Mapping[str, str]


class _Stop(Exception):
    """Reading ends here; the text says why."""


class _Reader:
    """Collect from elements as they pass; unfinished ones count."""

    def __init__(self) -> None:
        self._depth = 0
        self._seen = False
        self._content: list[str] = []
        self._user: dict[str, str] | None = None
        self._roles: list[Code] = []
        self._object: dict[str, str] | None = None
        self._kind: Code | None = None
        self._event: dict[str, str] = {}
        self._event_id: Code | None = None
        self._types: list[Code] = []
        self._users: list[User] = []
        self._patients: list[Patient] = []
        self._studies: list[str] = []
        self._accessions: list[str] = []
        self._source: dict[str, str] | None = None
        self._texts: list[str] = []

    def read(self, text: str, lines: int = 0) -> str:
        """Read a document and return why it was not read to its end, or nothing."""
        text = _AMPERSAND.sub("&amp;", _FORBIDDEN.sub("\ufffd", text))
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = _refuse_doctype
        trouble = ""
        try:
            parser.Parse(text.encode("utf-8", "replace"), True)
        except _Stop as exc:
            trouble = str(exc)
        except expat.ExpatError as exc:
            trouble = f"line {lines + exc.lineno}: {expat.ErrorString(exc.code)}"
        self._end_user()
        self._end_object()
        return trouble or ("" if self._seen else "no AuditMessage")

    def summary(self, trouble: str) -> Summary:
        """Return what was collected."""
        written = self._event.get("eventdatetime", "")
        when, zoned = _moment(written)
        action = self._event.get("eventactioncode", "").strip().upper()
        source = self._source or {}
        return Summary(
            event=self._event_id,
            types=tuple(self._types),
            action=action if action in ("C", "R", "U", "D", "E") else "",
            outcome=_OUTCOMES.get(self._event.get("eventoutcomeindicator", "").strip()),
            time=when,
            zoned=zoned,
            time_text=cut(written, ID_LIMIT),
            users=tuple(self._users),
            patients=tuple(dict.fromkeys(self._patients)),
            studies=tuple(dict.fromkeys(self._studies)),
            accessions=tuple(dict.fromkeys(self._accessions)),
            source=cut(source.get("auditsourceid", "")),
            site=cut(source.get("auditenterprisesiteid", "")),
            text=cut(" / ".join(self._texts), 2 * REASON_LIMIT),
            trouble=cut(trouble),
        )

    # Handlers

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise _Stop(f"more than {DEPTH_LIMIT} elements within one another")
        tag, words = _local(name), {_local(key): value for key, value in attributes.items()}
        self._content.clear()
        self._seen = self._seen or tag == "auditmessage"
        if tag == "eventidentification":
            self._event = self._event or words
        elif tag == "eventid":
            self._event_id = self._event_id or _code(words)
        elif tag == "eventtypecode":
            _keep(self._types, _code(words))
        elif tag == "activeparticipant":
            self._end_user()
            self._user = words
        elif tag == "roleidcode":
            _keep(self._roles, _code(words))
        elif tag == "auditsourceidentification":
            self._source = self._source or words
        elif tag == "participantobjectidentification":
            self._end_object()
            self._object = words
        elif tag == "participantobjectidtypecode":
            self._kind = _code(words)
        elif tag == "studyids":
            _keep(self._studies, cut(words.get("uid", ""), ID_LIMIT))
        elif tag == "accession":
            _keep(self._accessions, cut(words.get("number", ""), ID_LIMIT))
        elif tag == "participantobjectdetail":
            self._detail(words)

    def _end(self, name: str) -> None:
        self._depth -= 1
        tag, content = _local(name), "".join(self._content)
        self._content.clear()
        if tag == "eventoutcomedescription":
            _keep(self._texts, cut(content, REASON_LIMIT))
        elif tag == "participantobjectname" and self._object is not None:
            self._object["name"] = cut(content)
        elif tag == "activeparticipant":
            self._end_user()
        elif tag == "participantobjectidentification":
            self._end_object()

    def _characters(self, text: str) -> None:
        self._content.append(text)

    # Elements

    def _detail(self, words: _Words) -> None:
        if "description" in words.get("type", "").lower():
            _keep(self._texts, cut(_from_base64(words.get("value", "")), REASON_LIMIT))

    def _end_user(self) -> None:
        words, self._user = self._user, None
        roles, self._roles = tuple(self._roles), []
        if words is None:
            return
        alternative = words.get("alternativeuserid", words.get("alternateuserid", ""))
        titles: tuple[str, ...] = ()
        if found := _TITLES.match(alternative):
            titles = tuple(
                cut(title, 16) for title in alternative[found.end() :].split(";", 16)[:16] if title
            )
            alternative = ""
        user = User(
            user_id=cut(words.get("userid", "")),
            alternative_id=cut(alternative),
            ae_titles=titles,
            name=cut(words.get("username", "")),
            requestor=_TRUTH.get(words.get("userisrequestor", "").strip().lower()),
            address=cut(words.get("networkaccesspointid", "")),
            roles=roles,
        )
        _keep(self._users, user)

    def _end_object(self) -> None:
        words, self._object = self._object, None
        kind, self._kind = self._kind, None
        if words is None:
            return
        identifier = words.get("participantobjectid", "")
        if _is_study(kind):
            _keep(self._studies, cut(identifier, ID_LIMIT))
        elif _is_patient(words, kind):
            patient = Patient(cut(identifier), words.get("name", ""))
            _keep(self._patients, patient if patient != Patient("") else None)


def _refuse_doctype(*_: object) -> None:
    raise _Stop("a document type declaration")


def _is_study(kind: Code | None) -> bool:
    return kind is not None and (
        kind.value == "110180" or kind.meaning.casefold() == "study instance uid"
    )


def _is_patient(words: _Words, kind: Code | None) -> bool:
    type_code = words.get("participantobjecttypecode", "").strip()
    role = words.get("participantobjecttypecoderole", "").strip()
    if role:
        return role == "1" and type_code in ("", "1")
    return type_code in ("", "1") and kind is not None and kind.value in _PATIENT_NUMBERS


def _code(words: _Words) -> Code | None:
    """Return a coded entry; ``code`` and ``displayName`` were RFC 3881's names of its parts."""
    value = cut(words.get("csd-code", words.get("code", "")), ID_LIMIT)
    system = cut(words.get("codesystemname", words.get("codesystem", "")), ID_LIMIT)
    meaning = cut(words.get("originaltext", "") or words.get("displayname", ""))
    if not meaning and system in ("", "DCM", DCM_OID):
        meaning = meanings().get(value, "")
    return Code(value, meaning, system) if value or meaning else None


def _moment(text: str) -> tuple[datetime | None, bool]:
    """Return a dateTime in UTC, and whether it said its zone."""
    try:
        found = datetime.fromisoformat(leap_second(text.strip()[:64]))
        zoned = found.tzinfo is not None
        return (found if zoned else found.replace(tzinfo=UTC)).astimezone(UTC), zoned
    except (ValueError, OverflowError):
        return None, True


def _from_base64(value: str) -> str:
    """Return the text in a detail; what is no base64 is text already."""
    value = value[: 8 * REASON_LIMIT]
    try:
        octets = b64decode("".join(value.split())[: len(value) // 4 * 4], validate=True)
    except ValueError:
        return value
    return octets.decode("utf-8", "replace")


def _local(name: str) -> str:
    return name.rpartition(":")[2].lower()


def _keep(items: list[_T], item: _T | None) -> None:
    if item and len(items) < LIST_LIMIT:
        items.append(item)
