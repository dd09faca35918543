"""Targets for what a peer sends: whole streams, requests, messages and command sets.

A short, repeatable run is part of every build (`test_fuzz_upper_layer`); by hand
``.ci/fuzz_upper_layer.py`` goes on for as long as one likes. `TARGETS` names the four:

``streams``
    Every byte of a connection after TCP accept. The first byte of the input says how they are
    read: bit 0, by pynetdicom's decoder; bits 1 and 2, in which pieces; bit 3, without
    waiting for the answer to the request; bit 4, closing without waiting for the last answers;
    bit 5, an application takes the instances from memory.
``requests``
    The body of an A-ASSOCIATE-RQ, through every check before the gates.
``messages``
    Presentation data values, always well-framed: records of one byte of options, two of
    length, and a fragment. After a first byte as with ``streams``.
``commands``
    A command set: our codec against pynetdicom's decoder.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from pynetdicom.dimse_primitives import C_STORE

from dicom_secure_node.errors import Refused
from dicom_secure_node.node.association import SecureAssociation
from dicom_secure_node.node.context import Connection
from dicom_secure_node.node.host import PluginHost
from dicom_secure_node.node.limits import ProtocolFault
from dicom_secure_node.node.peer_facts import claim_of
from dicom_secure_node.node.request import check_request, without_reserved_identities
from dicom_secure_node.node.store_codec import decode_store_request
from dicom_secure_node.node.upper_layer import BoundedDUL
from tests.fuzz.acceptor import (
    CONTEXTS,
    LIMITS,
    Heard,
    acceptor,
    by_pynetdicom,
    check_kept,
    pdus,
)
from tests.loopback import application_entity

CORPUS = Path(__file__).parent / "corpus"
SIZES = ((), (1,), (7, 1, 4096), (6, 5, 1, 2))
BY_PYNETDICOM, SIZE, PIPELINED, HASTY, IN_MEMORY = 0x01, 0x06, 0x08, 0x10, 0x20
RELEASE_RQ = b"\x05\0\0\0\0\x04\0\0\0\0"


def request(contexts: dict[int, str] = CONTEXTS) -> bytes:
    """Return an A-ASSOCIATE-RQ for what the acceptor serves (PS3.8 9.3.2)."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(content)) + content

    body = b"\0\1\0\0" + b"NODE".ljust(16) + b"FUZZ".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, abstract in contexts.items():
        syntaxes = item(0x30, abstract.encode()) + item(0x40, b"1.2.840.10008.1.2")
        body += item(0x20, bytes((number, 0, 0, 0)) + syntaxes)
    body += item(0x50, item(0x51, struct.pack(">L", 16_384)) + item(0x52, b"1.2.3"))
    return struct.pack(">BxL", 1, len(body)) + body


def _talk(options: int, stream: bytes) -> Heard:
    first = 6 + int.from_bytes(stream[2:6], "big")
    whole = options & PIPELINED or len(stream) <= first
    return acceptor(bool(options & BY_PYNETDICOM), bool(options & IN_MEMORY)).talk(
        [stream] if whole else [stream[:first], stream[first:]],
        SIZES[(options & SIZE) >> 1],
        patient=not options & HASTY,
    )


def streams(data: bytes) -> None:
    """Let a peer send the bytes, whatever they are."""
    if len(data) > 1:
        check_kept(_talk(data[0], data[1:]), data[1:])


def messages(data: bytes) -> None:
    """Let a peer send the records as presentation data values, after a good request."""
    if len(data) > 1:
        stream = b"".join((request(), *_p_data(data[1:]), RELEASE_RQ))
        check_kept(_talk(data[0] & ~PIPELINED, stream), stream)


def _p_data(records: bytes) -> Iterator[bytes]:
    """Yield the P-DATA-TF PDUs the records stand for."""
    body = b""
    while len(records) > 3:
        options, length = struct.unpack_from(">BH", records)
        fragment, records = records[3 : 3 + length], records[3 + length :]
        control = options & 0x03
        context = (1, 3, 5, 7, 1, 1, 9, 2)[(options >> 2) & 0x07]
        pdv = struct.pack(">LBB", len(fragment) + 2, context, control) + fragment
        if not options & 0x20 or len(body) + len(pdv) > LIMITS.pdu_length:
            if body:
                yield struct.pack(">BxL", 4, len(body)) + body
            body = b""
        body += pdv
    if body:
        yield struct.pack(">BxL", 4, len(body)) + body


@lru_cache(maxsize=1)
def _association() -> SecureAssociation:
    """Return an association that has not begun."""
    return SecureAssociation(
        application_entity(), "acceptor", PluginHost([]), Connection("fuzz", "127.0.0.1", 1), LIMITS
    )


def requests(data: bytes) -> None:
    """Take the body of an A-ASSOCIATE-RQ as far as the claim the identity plug-in gets."""
    body = memoryview(data)
    try:
        check_request(body)
        kept, left_out = without_reserved_identities(body)
        assert without_reserved_identities(memoryview(kept)) == (kept, 0)
        assoc = _association()
        dul: Any = cast(BoundedDUL, assoc.dul)
        dul._decode_and_queue(b"\x01\0" + struct.pack(">L", len(kept)) + kept)
    except ProtocolFault:
        return
    dul.event_queue.get(block=False)
    assoc.requestor.primitive = dul._recv_pdu.get(block=False).to_primitive()
    assoc.reserved_identities = left_out
    try:
        claim = claim_of(assoc)
    except Refused:
        return
    found = list(_identities(kept))
    if claim is not None and not left_out:
        assert [(int(claim.kind), claim.primary, claim.secondary)] == found


def _identities(body: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield type and fields of each User Identity sub-item (PS3.7 Table D.3-14)."""
    for kind, content in _items(body[68:]):
        for sub_kind, sub in _items(content) if kind == 0x50 else ():
            if sub_kind == 0x58:
                length = int.from_bytes(sub[2:4], "big")
                yield sub[0], sub[4 : 4 + length], sub[6 + length :]


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        end = 4 + int.from_bytes(data[2:4], "big")
        yield data[0], data[4:end]
        data = data[end:]


def commands(data: bytes) -> None:
    """Compare the C-STORE-RQ we see in a command set with the one pynetdicom sees."""
    ours = decode_store_request(data)
    assert ours == decode_store_request(memoryview(data))
    if ours is None:
        return
    message = by_pynetdicom(data)
    assert message is not None
    theirs: Any = message.message_to_primitive()
    assert isinstance(theirs, C_STORE)
    assert theirs.is_valid_request
    assert message.command_set.CommandDataSetType != 0x0101
    assert ours == (
        theirs.MessageID,
        theirs.AffectedSOPClassUID,
        theirs.AffectedSOPInstanceUID,
        theirs.Priority,
    )


TARGETS: dict[str, Callable[[bytes], None]] = {
    "streams": streams,
    "requests": requests,
    "messages": messages,
    "commands": commands,
}


# -- damage, for runs that are to be repeated ----------------------------------------------


def corpus(target: str) -> list[bytes]:
    """Return the inputs kept for a target, by name."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def damaged(seed: bytes, dice: random.Random, other: bytes) -> bytes:
    """Return an input with some damage; `other` is one to take a piece from."""
    data = bytearray(seed)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at, size = dice.randrange(len(data) + 1), dice.choice((1, 2, 4, 8, 100))
        kind = dice.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes((dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256))),))
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = data[at : at + size]
        elif kind == 3:
            start = dice.randrange(len(other) + 1)
            data[at:at] = other[start : start + size]
        elif kind == 4:
            data[at : at + 4] = dice.choice((b"\xff\xff\xff\xff", bytes(4), b"\0\0\xff\xff"))
        elif data:
            # Early, where lengths and types are.
            data[dice.randrange(min(len(data), 120))] = dice.randrange(256)
    return bytes(data)


def reframed(stream: bytes, dice: random.Random) -> bytes:
    """Return a stream with whole PDUs doubled, left out or moved; the framing stays right."""
    whole = [struct.pack(">BxL", kind, len(body)) + body for kind, body in pdus(stream)]
    for _ in range(dice.choice((1, 2))):
        if not whole:
            break
        one = whole.pop(dice.randrange(len(whole)))
        for _ in range(dice.choice((0, 1, 2))):
            whole.insert(dice.randrange(len(whole) + 1), one)
    return b"".join(whole)
