"""What the Digital Signatures Macro says (PS3.3 C.12.1.1.3, Table C.12-6), read from one level.

A MAC Parameters item and a Digital Signatures item are joined by MAC ID Number, at their own
level. What is wrong in an item is said of that item (`problem`); the others are read all the
same. So it is with what a document says of signatures and MACs of other instances (PS3.3
C.17.2.1, Table C.17-3a).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

from dicom_secure_node.elements.explicit import Element, Item, Reader
from dicom_secure_node.errors import InvalidDataSet
from dicom_secure_node.signatures.mac import (
    DIGITAL_SIGNATURES,
    MAC_PARAMETERS,
    may_be_listed,
    may_be_signed,
    stream_of,
)
from dicom_secure_node.spec.signatures import OUTSIDE_MAC, Purpose

MAC_ID = 0x04000005
MAC_SYNTAX = 0x04000010
MAC_ALGORITHM = 0x04000015
DATA_ELEMENTS_SIGNED = 0x04000020
SIGNATURE_UID = 0x04000100
SIGNATURE_DATETIME = 0x04000105
CERTIFICATE_TYPE = 0x04000110
CERTIFICATE = 0x04000115
SIGNATURE = 0x04000120
TIMESTAMP_TYPE = 0x04000305
TIMESTAMP = 0x04000310
PURPOSE = 0x04000401
REFERENCED_SIGNATURES = 0x04000402
REFERENCED_MACS = 0x04000403
MAC = 0x04000404
CODE_VALUE = 0x00080100
CODING_SCHEME = 0x00080102
CODE_MEANING = 0x00080104

# Bytes; ours, the standard has no bounds.
MAX_CERTIFICATE = 64 << 10
MAX_SIGNATURE = 1 << 10  # RSA of 8192 bits
MAX_MAC = 64  # SHA-512
MAX_TIMESTAMP = 256 << 10
MAX_TEXT = 1 << 10
MAX_LISTED = 256 << 10
MAX_REST = 64 << 10  # of all else in a signature's item

_TAG = struct.Struct("<HH")
_NAMES = {
    MAC_ID: "(0400,0005) MAC ID Number",
    MAC_SYNTAX: "(0400,0010) MAC Calculation Transfer Syntax UID",
    MAC_ALGORITHM: "(0400,0015) MAC Algorithm",
    DATA_ELEMENTS_SIGNED: "(0400,0020) Data Elements Signed",
    SIGNATURE_UID: "(0400,0100) Digital Signature UID",
    SIGNATURE_DATETIME: "(0400,0105) Digital Signature DateTime",
    CERTIFICATE_TYPE: "(0400,0110) Certificate Type",
    CERTIFICATE: "(0400,0115) Certificate of Signer",
    SIGNATURE: "(0400,0120) Signature",
    TIMESTAMP_TYPE: "(0400,0305) Certified Timestamp Type",
    TIMESTAMP: "(0400,0310) Certified Timestamp",
    PURPOSE: "(0400,0401) Digital Signature Purpose Code Sequence",
    MAC: "(0400,0404) MAC",
}
_MACRO = "PS3.3 Table C.12-6"
_REFERENCES = "PS3.3 Table C.17-3a"


@dataclass(frozen=True)
class MacParameters:
    """One item of (4FFE,0001) MAC Parameters Sequence.

    Attributes
    ----------
    mac_id : int or None
        None where it cannot be read.
    syntax : str
        MAC Calculation Transfer Syntax UID.
    algorithm : str
        Term of PS3.3, e.g. ``SHA256``.
    tags : tuple of int
        Data Elements Signed, as listed.
    problem : str
        Why it cannot be used; empty when it can.
    """

    mac_id: int | None
    syntax: str = ""
    algorithm: str = ""
    tags: tuple[int, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class SignatureItem:
    """One item of (FFFA,FFFA) Digital Signatures Sequence.

    Attributes
    ----------
    mac_id : int or None
    uid : str
    made : str
        Digital Signature DateTime, as encoded.
    certificate_type, timestamp_type : str
    certificate, signature, timestamp : bytes
        Without pad byte, as far as their encoding tells.
    purpose : Purpose or None
        Code and scheme of (0400,0401).
    meaning : str
        Its Code Meaning; nobody compares it.
    stream : bytes
        What the item itself adds to the MAC (PS3.3 C.12.1.1.3.1.2).
    problem : str
        What makes it unusable; empty when nothing does.
    """

    mac_id: int | None = None
    uid: str = ""
    made: str = ""
    certificate_type: str = ""
    certificate: bytes = field(default=b"", repr=False)
    signature: bytes = field(default=b"", repr=False)
    timestamp_type: str = ""
    timestamp: bytes = field(default=b"", repr=False)
    purpose: Purpose | None = None
    meaning: str = ""
    stream: bytes = field(default=b"", repr=False)
    problem: str = ""


@dataclass(frozen=True)
class ReferencedSignature:
    """One item of (0400,0402) Referenced Digital Signature Sequence.

    Attributes
    ----------
    uid : str
    signature : bytes
        As encoded.
    problem : str
        What makes it unusable; empty when nothing does.
    """

    uid: str = ""
    signature: bytes = field(default=b"", repr=False)
    problem: str = ""


@dataclass(frozen=True)
class ReferencedMac:
    """One item of (0400,0403) Referenced SOP Instance MAC Sequence.

    Attributes
    ----------
    parameters : MacParameters
        They have no MAC ID; what is wrong with the item is their `problem`.
    mac : bytes
        As encoded.
    """

    parameters: MacParameters
    mac: bytes = field(default=b"", repr=False)


def sequence(elements: Iterable[Element], tag: int) -> Element | None:
    """Return the sequence of this tag at one level, None where there is none.

    Raises
    ------
    InvalidDataSet
        It is there twice, or is no sequence.
    """
    found = [element for element in elements if element.tag == tag]
    if not found:
        return None
    name = "(4FFE,0001)" if tag == MAC_PARAMETERS else f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    if len(found) > 1:
        raise InvalidDataSet(f"{len(found)} of them", "one", name, "PS3.5 7.1")
    if found[0].vr != b"SQ":
        raise InvalidDataSet(f"VR {found[0].vr.decode('latin-1')}", "SQ", name, "PS3.3 C.12.1.1.3")
    return found[0]


def mac_parameters(reader: Reader, elements: Iterable[Element], most: int) -> list[MacParameters]:
    """Return the MAC parameters of one level, `most` of them at the most."""
    holder = sequence(elements, MAC_PARAMETERS)
    items = reader.items(holder) if holder else []
    return [_mac_parameters(_Values(reader, item)) for item in items[:most]]


def signature_items(
    reader: Reader, elements: Iterable[Element], most: int
) -> tuple[list[SignatureItem], int]:
    """Return the signatures of one level, `most` of them at the most, and how many there are."""
    holder = sequence(elements, DIGITAL_SIGNATURES)
    items = reader.items(holder) if holder else []
    return [_signature_item(_Values(reader, item)) for item in items[:most]], len(items)


def referenced_signature(reader: Reader, item: Item) -> ReferencedSignature:
    """Return what an item of (0400,0402) says."""
    try:
        values = _Values(reader, item, _REFERENCES)
        return ReferencedSignature(
            values.text(SIGNATURE_UID, b"UI"), values.raw(SIGNATURE, b"OB", MAX_SIGNATURE)
        )
    except InvalidDataSet as exc:
        return ReferencedSignature(problem=str(exc))


def referenced_mac(reader: Reader, item: Item) -> ReferencedMac:
    """Return what an item of (0400,0403) says."""
    try:
        values = _Values(reader, item, _REFERENCES)
        parameters = MacParameters(
            None,
            values.text(MAC_SYNTAX, b"UI"),
            values.text(MAC_ALGORITHM, b"CS"),
            values.tags(DATA_ELEMENTS_SIGNED),
        )
        return ReferencedMac(parameters, values.raw(MAC, b"OB", MAX_MAC))
    except InvalidDataSet as exc:
        return ReferencedMac(MacParameters(None, problem=str(exc)))


def read_datetime(text: str) -> tuple[datetime, bool] | None:
    """Return a DT value in UTC, and whether it had an offset; None where it is no date and time.

    Without an offset it is taken for UTC: the macro asks for one (PS3.3 Table C.12-6).
    """
    match = re.fullmatch(
        r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.(\d{1,6}))?(?:([+-])(\d\d)(\d\d))?",
        text,
        re.ASCII,
    )
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = match.groups()
    zone = UTC if sign is None else _zone(sign, int(hours), int(minutes))
    if zone is None:
        return None
    microsecond = int((fraction or "0").ljust(6, "0"))
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second), microsecond, zone
        )  # fmt: skip
        return moment.astimezone(UTC), sign is not None
    except (ValueError, OverflowError):
        return None


def _zone(sign: str, hours: int, minutes: int) -> timezone | None:
    if hours > 14 or minutes > 59:
        return None
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if sign == "-" else offset)


class _Values:
    """The values of one item; reading one that is wrong raises InvalidDataSet."""

    def __init__(self, reader: Reader, item: Item, table: str = _MACRO) -> None:
        self.reader = reader
        self.item = item
        self.table = table
        self.by_tag: Mapping[int, Element] = {element.tag: element for element in item.elements}

    def has(self, tag: int) -> bool:
        return tag in self.by_tag

    def raw(self, tag: int, vr: bytes, most: int) -> bytes:
        """Return a value of type 1."""
        if len(self.by_tag) != len(self.item.elements):
            raise InvalidDataSet("an element twice in one item", "once", clause="PS3.5 7.1")
        element = self.by_tag.get(tag)
        name = _NAMES.get(tag, f"({tag >> 16:04X},{tag & 0xFFFF:04X})")
        if element is None:
            raise InvalidDataSet("nothing", "a value", name, self.table)
        if element.vr != vr:
            found = f"VR {element.vr.decode('latin-1')}"
            raise InvalidDataSet(found, vr.decode(), name, self.table)
        size = element.end - element.value
        if not 0 < size <= most:
            raise InvalidDataSet(f"{size} bytes", f"1 to {most}", name)
        return bytes(self.reader.buffer[element.value : element.end])

    def text(self, tag: int, vr: bytes) -> str:
        value = self.raw(tag, vr, MAX_TEXT).strip(b"\0 ")
        if not value.isascii() or not value.decode().isprintable():
            raise InvalidDataSet("bytes that are no text", "a text", _NAMES.get(tag, ""))
        return value.decode()

    def tags(self, tag: int) -> tuple[int, ...]:
        value = self.raw(tag, b"AT", MAX_LISTED)
        if len(value) % 4:
            raise InvalidDataSet(f"{len(value)} bytes", "4 for each tag", _NAMES[tag])
        halves = struct.unpack(f"<{len(value) // 2}H", value)
        return tuple(a << 16 | b for a, b in zip(halves[::2], halves[1::2], strict=True))

    def number(self, tag: int) -> int:
        value = self.raw(tag, b"US", 2)
        if len(value) != 2:
            raise InvalidDataSet(f"{len(value)} bytes", "2", _NAMES[tag])
        return int.from_bytes(value, "little")

    def number_or_none(self, tag: int) -> int | None:
        try:
            return self.number(tag)
        except InvalidDataSet:
            return None


def _mac_parameters(values: _Values) -> MacParameters:
    try:
        return MacParameters(
            mac_id=values.number(MAC_ID),
            syntax=values.text(MAC_SYNTAX, b"UI"),
            algorithm=values.text(MAC_ALGORITHM, b"CS"),
            tags=values.tags(DATA_ELEMENTS_SIGNED),
        )
    except InvalidDataSet as exc:
        return MacParameters(values.number_or_none(MAC_ID), problem=str(exc))


def _signature_item(values: _Values) -> SignatureItem:
    try:
        has_timestamp = values.has(TIMESTAMP)
        purpose, meaning = _purpose(values)
        return SignatureItem(
            mac_id=values.number(MAC_ID),
            uid=values.text(SIGNATURE_UID, b"UI"),
            made=values.text(SIGNATURE_DATETIME, b"DT"),
            certificate_type=values.text(CERTIFICATE_TYPE, b"CS"),
            certificate=der_value(values.raw(CERTIFICATE, b"OB", MAX_CERTIFICATE)),
            signature=values.raw(SIGNATURE, b"OB", MAX_SIGNATURE),
            timestamp_type=values.text(TIMESTAMP_TYPE, b"CS") if has_timestamp else "",
            timestamp=values.raw(TIMESTAMP, b"OB", MAX_TIMESTAMP) if has_timestamp else b"",
            purpose=purpose,
            meaning=meaning,
            stream=_stream(values),
        )
    except InvalidDataSet as exc:
        return SignatureItem(values.number_or_none(MAC_ID), problem=str(exc))


def _stream(values: _Values) -> bytes:
    """Return what an item adds to its own MAC; whoever signed it, it has to be small."""
    elements = [e for e in values.item.elements if e.tag not in OUTSIDE_MAC]
    size = sum(element.end - element.start for element in elements)
    if size > MAX_REST:
        raise InvalidDataSet(f"{size} bytes", f"at most {MAX_REST}", "an item of (FFFA,FFFA)")
    for element in elements:
        if may_be_listed(element.tag) and not may_be_signed(values.reader, element):
            raise InvalidDataSet(
                "what cannot be signed", "elements of known VR",
                f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X}) in an item of (FFFA,FFFA)",
                "PS3.3 C.12.1.1.3.1.1",
            )  # fmt: skip
    return stream_of(values.reader, elements)


def _purpose(values: _Values) -> tuple[Purpose | None, str]:
    holder = values.by_tag.get(PURPOSE)
    if holder is None:
        return None, ""
    if holder.vr != b"SQ":
        raise InvalidDataSet(f"VR {holder.vr.decode('latin-1')}", "SQ", _NAMES[PURPOSE])
    items = values.reader.items(holder, 2)
    if len(items) != 1:
        raise InvalidDataSet(f"{len(items)} items", "one", _NAMES[PURPOSE], "PS3.3 Table C.12-6")
    code = _Values(values.reader, items[0])
    scheme = code.text(CODING_SCHEME, b"SH") if code.has(CODING_SCHEME) else ""
    meaning = code.text(CODE_MEANING, b"LO") if code.has(CODE_MEANING) else ""
    return Purpose(code.text(CODE_VALUE, b"SH"), scheme), meaning


def der_value(value: bytes) -> bytes:
    """Return a DER value without what pads it to an even length.

    What does not begin like a DER SEQUENCE with a length within `value` comes back unchanged;
    whoever decodes it will say what is wrong.
    """
    if len(value) < 2 or value[0] != 0x30:
        return value
    first = value[1]
    if first < 0x80:
        size = 2 + first
    else:
        size = 2 + (first & 0x7F) + int.from_bytes(value[2 : 2 + (first & 0x7F)], "big")
    return value[:size] if len(value) - size == 1 and value[-1] == 0 else value
