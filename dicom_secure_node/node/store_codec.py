"""C-STORE commands and the PDUs around them, encoded and decoded by ``struct``.

pynetdicom decodes every command set into a pydicom `Dataset` and a primitive, which costs more
than receiving a small instance. C-STORE-RQ and C-STORE-RSP (PS3.7 Tables 9.3-1 and 9.3-2) are a
handful of elements of fixed kind, so this knows them, and nothing else: whatever is in any way
unusual gives None, and pynetdicom decodes it as ever. Nothing here is more tolerant than
pynetdicom.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

P_DATA_TF = 0x04  # PS3.8 9.3.5
COMMAND, LAST = 0x01, 0x02  # message control header (PS3.8 E.2)
PDU_HEADER, PDV_HEADER = 6, 6  # bytes; that of a PDV with its message control header

LONGEST_COMMAND = 512  # bytes; two UIDs and a title need less than half
LONGEST_ANSWER = 256  # bytes of a PDU with a C-STORE-RSP; two UIDs make 202

_ELEMENT = struct.Struct("<HHL")  # of implicit VR little endian (PS3.7 6.3.1)
_SHORT = struct.Struct("<H")
_DATA_PDU = struct.Struct(">BxLLBB")

_SOP_CLASS, _COMMAND_FIELD, _MESSAGE_ID, _RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
_PRIORITY, _DATA_SET_TYPE, _STATUS, _SOP_INSTANCE = 0x0700, 0x0800, 0x0900, 0x1000
_GROUP_LENGTH, _ORIGINATOR, _ORIGINATOR_ID = 0x0000, 0x1030, 0x1031

_STORE_RQ, _STORE_RSP = 0x0001, 0x8001  # PS3.7 E.1
_NO_DATA_SET, _A_DATA_SET = 0x0101, 0x0001

_NUMBERS = frozenset({_COMMAND_FIELD, _MESSAGE_ID, _RESPONDED_TO, _PRIORITY, _DATA_SET_TYPE})
_NUMBERS |= {_STATUS, _ORIGINATOR_ID}
_REQUEST = frozenset(
    {_SOP_CLASS, _COMMAND_FIELD, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE, _SOP_INSTANCE}
)
_REQUEST_MAY = _REQUEST | {_GROUP_LENGTH, _ORIGINATOR, _ORIGINATOR_ID}
_RESPONSE = frozenset({_COMMAND_FIELD, _RESPONDED_TO, _DATA_SET_TYPE, _STATUS})
_RESPONSE_MAY = _RESPONSE | {_GROUP_LENGTH, _SOP_CLASS, _SOP_INSTANCE}

# PS3.5 9.1, padded to even length by one NUL.
_UID = re.compile(rb"(?=.{1,64}\Z)((?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*)\0?", re.DOTALL)
# PS3.5 6.2, VR AE; what is all spaces means no value.
_TITLE = re.compile(rb"[ -\[\]-~]{0,15}[!-\[\]-~][ -\[\]-~]{0,15}")

Values = dict[int, int | str]


class StoreRequest(NamedTuple):
    """A C-STORE-RQ that announces a data set (PS3.7 Table 9.3-1)."""

    message_id: int
    sop_class: str
    sop_instance: str
    priority: int


class StoreResponse(NamedTuple):
    """A C-STORE-RSP (PS3.7 Table 9.3-2)."""

    message_id: int  # Message ID Being Responded To
    status: int


def decode_store_request(data: bytes | memoryview) -> StoreRequest | None:
    """Return the C-STORE-RQ `data` is.

    Parameters
    ----------
    data : bytes-like
        A whole command set.

    Returns
    -------
    StoreRequest or None
        None: another message, or one for pynetdicom to decode, if it can.
    """
    found = _decode(data, _REQUEST_MAY)
    if found is None or not found.keys() >= _REQUEST or found[_COMMAND_FIELD] != _STORE_RQ:
        return None
    message_id, priority = found[_MESSAGE_ID], found[_PRIORITY]
    sop_class, sop_instance = found[_SOP_CLASS], found[_SOP_INSTANCE]
    assert isinstance(message_id, int) and isinstance(priority, int)  # noqa: PT018 - for mypy
    if found[_DATA_SET_TYPE] == _NO_DATA_SET or priority > 2:
        return None
    return StoreRequest(message_id, str(sop_class), str(sop_instance), priority)


def decode_store_response(data: bytes | memoryview) -> StoreResponse | None:
    """Return the C-STORE-RSP `data` is, None where pynetdicom has to look.

    Parameters
    ----------
    data : bytes-like
        A whole command set.
    """
    found = _decode(data, _RESPONSE_MAY)
    if found is None or not found.keys() >= _RESPONSE or found[_COMMAND_FIELD] != _STORE_RSP:
        return None
    message_id, status = found[_RESPONDED_TO], found[_STATUS]
    assert isinstance(message_id, int) and isinstance(status, int)  # noqa: PT018 - for mypy
    if found[_DATA_SET_TYPE] != _NO_DATA_SET:
        return None
    return StoreResponse(message_id, status)


def _decode(data: bytes | memoryview, known: frozenset[int]) -> Values | None:
    """Return the elements of a command set by number, None unless all of them are plain."""
    end = len(data)
    if end > LONGEST_COMMAND:
        return None
    raw = bytes(data)
    found: Values = {}
    position, last = 0, -1
    while position + 8 <= end:
        group, number, length = _ELEMENT.unpack_from(raw, position)
        position += 8
        if group or number <= last or number not in known or position + length > end:
            return None
        last = number
        if number in _NUMBERS:
            if length != 2:
                return None
            (found[number],) = _SHORT.unpack_from(raw, position)
        elif number == _GROUP_LENGTH:
            # The length of what follows it (PS3.7 6.3.1).
            if length != 4 or int.from_bytes(raw[8:12], "little") != end - 12:
                return None
        elif number == _ORIGINATOR:
            if not _TITLE.fullmatch(raw, position, position + length) or length % 2:
                return None
        else:
            uid = _UID.fullmatch(raw, position, position + length)
            if uid is None or length % 2:
                return None
            found[number] = uid[1].decode("ascii")
        position += length
    return found if position == end else None


def encode_store_request(message_id: int, sop_class: str, sop_instance: str) -> bytes:
    """Return the command set of a C-STORE-RQ of medium priority, with a data set.

    Parameters
    ----------
    message_id : int
    sop_class, sop_instance : str
        UIDs, without padding.
    """
    return _with_length(
        _text(_SOP_CLASS, sop_class),
        _number(_COMMAND_FIELD, _STORE_RQ),
        _number(_MESSAGE_ID, message_id),
        _number(_PRIORITY, 0),
        _number(_DATA_SET_TYPE, _A_DATA_SET),
        _text(_SOP_INSTANCE, sop_instance),
    )


def encode_store_response(request: StoreRequest, status: int) -> bytes:
    """Return the command set of the C-STORE-RSP that gives `request` its status."""
    return _with_length(
        _text(_SOP_CLASS, request.sop_class),
        _number(_COMMAND_FIELD, _STORE_RSP),
        _number(_RESPONDED_TO, request.message_id),
        _number(_DATA_SET_TYPE, _NO_DATA_SET),
        _number(_STATUS, status),
        _text(_SOP_INSTANCE, request.sop_instance),
    )


def data_pdu_header(context_id: int, control: int, size: int) -> bytes:
    """Return what stands before a fragment that has a P-DATA-TF PDU to itself (PS3.8 9.3.5).

    Parameters
    ----------
    context_id : int
        Of the presentation context.
    control : int
        Message control header: `COMMAND` and `LAST`, or'ed.
    size : int
        Of the fragment, in bytes.
    """
    return _DATA_PDU.pack(P_DATA_TF, size + PDV_HEADER, size + 2, context_id, control)


def command_pdu(context_id: int, command: bytes) -> bytes:
    """Return a P-DATA-TF PDU that holds a whole command set."""
    return data_pdu_header(context_id, COMMAND | LAST, len(command)) + command


def _with_length(*elements: bytes) -> bytes:
    rest = b"".join(elements)
    return _ELEMENT.pack(0, _GROUP_LENGTH, 4) + len(rest).to_bytes(4, "little") + rest


def _number(number: int, value: int) -> bytes:
    return _ELEMENT.pack(0, number, 2) + _SHORT.pack(value)


def _text(number: int, value: str) -> bytes:
    encoded = value.encode("ascii")
    encoded += b"\0" * (len(encoded) % 2)
    return _ELEMENT.pack(0, number, len(encoded)) + encoded
