"""The C-STORE codec agrees with pynetdicom, or leaves the decoding to it (PS3.7 9.3.1)."""

from __future__ import annotations

import random
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, C_STORE_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from dicom_secure_node.node.store_codec import (
    COMMAND,
    LAST,
    StoreRequest,
    StoreResponse,
    command_pdu,
    data_pdu_header,
    decode_store_request,
    decode_store_response,
    encode_store_request,
    encode_store_response,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
GOOD = encode_store_request(7, CT, "1.2.3.45")
ANSWER = encode_store_response(StoreRequest(7, CT, "1.2.3.45", 0), 0xA700)

numbers = st.integers(0, 0xFFFF)
uids = st.from_regex(r"[1-9][0-9]{0,8}(\.(0|[1-9][0-9]{0,7})){1,5}", fullmatch=True)


def by_pynetdicom(command: bytes) -> Any:
    """Return the primitive pynetdicom makes of a command set, None where it cannot."""
    message, data = DIMSEMessage(), P_DATA()
    data.presentation_data_value_list.append((1, bytes([COMMAND | LAST]) + command))
    try:
        message.decode_msg(data)
        primitive: Any = message.message_to_primitive()
    except Exception:
        return None
    primitive.has_data_set = message.command_set.CommandDataSetType != 0x0101
    return primitive


def request(message_id: int, sop_class: str, sop_instance: str) -> C_STORE:
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = message_id, 0
    primitive.AffectedSOPClassUID = sop_class  # type: ignore[assignment] # its setter takes str
    primitive.AffectedSOPInstanceUID = sop_instance  # type: ignore[assignment]
    primitive.DataSet = BytesIO(b"data")
    return primitive


@given(numbers, uids, uids)
def test_a_request_is_what_pynetdicom_would_send(number: int, first: str, second: str) -> None:
    message = C_STORE_RQ()
    message.primitive_to_message(request(number, first, second))
    ours = encode_store_request(number, first, second)
    assert ours == encode(message.command_set, True, True)
    assert decode_store_request(ours) == StoreRequest(number, first, second, 0)


@given(numbers, numbers, uids, uids)
def test_a_response_is_what_pynetdicom_would_send(
    number: int, status: int, first: str, second: str
) -> None:
    primitive = request(number, first, second)
    primitive.MessageIDBeingRespondedTo, primitive.Status = number, status
    message = C_STORE_RSP()
    message.primitive_to_message(primitive)
    ours = encode_store_response(StoreRequest(number, first, second, 0), status)
    assert ours == encode(message.command_set, True, True)
    assert decode_store_response(ours) == StoreResponse(number, status)


def test_the_pdu_is_what_pynetdicom_would_send() -> None:
    data = P_DATA()
    data.presentation_data_value_list.append((3, bytes([COMMAND | LAST]) + GOOD))
    pdu = P_DATA_TF()
    pdu.from_primitive(data)
    assert command_pdu(3, GOOD) == pdu.encode()
    assert data_pdu_header(3, COMMAND | LAST, len(GOOD)) + GOOD == pdu.encode()


def without(command: bytes, number: int) -> bytes:
    """Return a command set without one element, its group length corrected."""
    position, kept = 12, b""
    while position < len(command):
        size = 8 + int.from_bytes(command[position + 4 : position + 8], "little")
        if int.from_bytes(command[position + 2 : position + 4], "little") != number:
            kept += command[position : position + size]
        position += size
    return command[:8] + len(kept).to_bytes(4, "little") + kept


def with_number(number: int, value: int) -> bytes:
    """Return the good request with another value of a US element."""
    position = GOOD.index(bytes([0, 0, *number.to_bytes(2, "little"), 2, 0, 0, 0])) + 8
    return GOOD[:position] + value.to_bytes(2, "little") + GOOD[position + 2 :]


def echo() -> bytes:
    primitive = C_ECHO()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = "1.2.840.10008.1.1"  # type: ignore[assignment]
    message = C_ECHO_RQ()
    message.primitive_to_message(primitive)
    return encode(message.command_set, True, True) or b""


UNUSUAL = {
    "nothing": b"",
    "another command": echo(),
    "a response": ANSWER,
    "no message ID": without(GOOD, 0x0110),
    "no priority": without(GOOD, 0x0700),
    "no SOP class": without(GOOD, 0x0002),
    "no SOP instance": without(GOOD, 0x1000),
    "no data set announced": with_number(0x0800, 0x0101),
    "a priority PS3.7 does not know": with_number(0x0700, 3),
    "a wrong group length": GOOD[:8] + bytes(4) + GOOD[12:],
    "a byte too many": GOOD + b"\0",
    "a byte too few": GOOD[:-1],
    "an element twice": GOOD + GOOD[-16:],
    "another group": GOOD[:12] + b"\2" + GOOD[13:],
    "a UID of letters": encode_store_request(7, CT, "1.2.x"),
    "a UID with a leading zero": encode_store_request(7, CT, "1.02"),
    "a UID of 66 characters": encode_store_request(7, CT, "1." + "2" * 64),
    "an empty UID": encode_store_request(7, CT, ""),
    "more than any C-STORE needs": GOOD + bytes(512),
}


@pytest.mark.parametrize("command", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_unusual_is_left_to_pynetdicom(command: bytes) -> None:
    assert decode_store_request(command) is None


def test_a_move_originator_is_let_pass() -> None:
    title = bytes([0, 0, 0x30, 0x10, 6, 0, 0, 0]) + b"MOVER "
    number = bytes([0, 0, 0x31, 0x10, 2, 0, 0, 0, 9, 0])
    rest = GOOD[12:] + title + number
    command = GOOD[:8] + len(rest).to_bytes(4, "little") + rest
    assert decode_store_request(command) == StoreRequest(7, CT, "1.2.3.45", 0)
    assert by_pynetdicom(command).MoveOriginatorMessageID == 9


@pytest.mark.parametrize("command", [GOOD, ANSWER], ids=["request", "response"])
def test_damage_is_never_taken_for_another_c_store_than_pynetdicom_sees(command: bytes) -> None:
    chance = random.Random(15)
    taken = 0
    for _ in range(4_000):
        damaged = bytearray(command)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.choice(
                (0, 1, 2, 0x31, 0x2E, 0xFF, chance.randrange(256))
            )
        ours: Any = decode_store_request(bytes(damaged)) or decode_store_response(bytes(damaged))
        if ours is None:
            continue
        taken += 1
        theirs = by_pynetdicom(bytes(damaged))
        assert isinstance(theirs, C_STORE)
        if isinstance(ours, StoreRequest):
            assert theirs.is_valid_request
            assert theirs.has_data_set  # type: ignore[attr-defined]
            assert ours == (
                theirs.MessageID,
                theirs.AffectedSOPClassUID,
                theirs.AffectedSOPInstanceUID,
                theirs.Priority,
            )
        else:
            assert theirs.is_valid_response
            assert ours == (theirs.MessageIDBeingRespondedTo, theirs.Status)
    assert taken > 100
