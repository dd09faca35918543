"""A peer written byte by byte, for what no toolkit sends."""

from __future__ import annotations

import socket
import struct

from tests.loopback import CT_STORAGE, request_pdu


def p_data(context_id: int, header: int, fragment: bytes) -> bytes:
    """Return a P-DATA-TF PDU with one presentation data value (PS3.8 9.3.5)."""
    pdv = struct.pack(">LBB", len(fragment) + 2, context_id, header) + fragment
    return b"\x04\0" + struct.pack(">L", len(pdv)) + pdv


def command(field: int, *, data_set: bool, message_id: int = 1, instance: str = "1.2.3") -> bytes:
    """Return a command set in Implicit VR Little Endian (PS3.7 6.3.1)."""

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHL", 0, number, len(value)) + value

    uid = CT_STORAGE.encode() if field == 0x0001 else b"1.2.840.10008.1.1"
    body = element(0x0002, uid + b"\0" * (len(uid) % 2))
    body += element(0x0100, struct.pack("<H", field))
    body += element(0x0110, struct.pack("<H", message_id))
    body += element(0x0700, struct.pack("<H", 0))
    body += element(0x0800, struct.pack("<H", 0x0000 if data_set else 0x0101))
    if field == 0x0001:
        raw = instance.encode()
        body += element(0x1000, raw + b"\0" * (len(raw) % 2))
    return element(0x0000, struct.pack("<L", len(body))) + body


ECHO, STORE = 0x0030, 0x0001


class Raw:
    """A peer written by hand, with an accepted association."""

    def __init__(self, port: int, abstract: str = CT_STORAGE) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.sendall(request_pdu(abstract=abstract.encode()))
        assert self.pdu()[0] == 0x02  # A-ASSOCIATE-AC

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                return data
            data += piece
        return data

    def pdu(self) -> bytes:
        """Return the next PDU, or nothing when the node closed."""
        try:
            head = self.exactly(6)
            return head + self.exactly(struct.unpack(">L", head[2:])[0]) if head else b""
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        self.socket.close()
