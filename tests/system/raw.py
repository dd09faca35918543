"""A peer that writes its PDUs by hand (PS3.8 9.3, PS3.7 9.3), for what no toolkit would send."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

from tests.loopback import CT_STORAGE, request_pdu

ASSOCIATE_AC = 0x02
ASSOCIATE_RJ = 0x03
P_DATA = 0x04
RELEASE_RP = 0x06
ABORT = 0x07

PLAIN_LISTENER = """
[[listener]]
name = "clear"
host = "127.0.0.1"
port = 0
profile = "plain"
identity = "{identity}"
"""


class Peer:
    """One association spoken by hand, over a socket that is connected."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.message_id = 0
        sock.settimeout(20)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.sock.close()

    def associate(self, request: bytes | None = None) -> tuple[int, bytes]:
        """Send an A-ASSOCIATE-RQ and return type and body of the answer."""
        self.sock.sendall(request or request_pdu(abstract=CT_STORAGE.encode()))
        return self.read()

    def read(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU; type 0 when the node has closed."""
        try:
            header = self._exactly(6)
            return header[0], self._exactly(int.from_bytes(header[2:], "big"))
        except (EOFError, ConnectionError):
            return 0, b""

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def send(self, data: bytes, control: int) -> None:
        """Send one fragment in a P-DATA-TF; `control`: 1 command, 2 last (PS3.8 E.2)."""
        pdv = struct.pack(">LBB", len(data) + 2, 1, control) + data
        self.sock.sendall(struct.pack(">BBL", P_DATA, 0, len(pdv)) + pdv)

    def store(self, instance: bytes, data_set: bytes, message_id: int | None = None) -> int:
        """Send a C-STORE and return the status, or -1 when the association has ended."""
        self.message_id = (self.message_id + 1) % 65_536
        number = self.message_id if message_id is None else message_id
        self.send(store_command(instance, message_id=number), 3)
        self.send(data_set, 2)
        kind, body = self.read()
        return status_of(body) if kind == P_DATA else -1

    def echo(self) -> int:
        """Send a C-ECHO on the one context and return the status, or -1."""
        self.send(ECHO, 3)
        kind, body = self.read()
        return status_of(body) if kind == P_DATA else -1


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


def command(elements: dict[int, bytes], data_set: int = 0x0101) -> bytes:
    """Return a command set of group 0000 elements, in Implicit VR Little Endian."""
    content = b""
    for element, value in sorted({**elements, 0x0800: _us(data_set)}.items()):
        even = value + b"\0" * (len(value) % 2)
        content += struct.pack("<HHL", 0, element, len(even)) + even
    return struct.pack("<HHLL", 0, 0, 4, len(content)) + content


ECHO = command({0x0002: b"1.2.840.10008.1.1", 0x0100: _us(0x30), 0x0110: _us(1)})


def store_command(instance: bytes, message_id: int = 1) -> bytes:
    """Return a C-STORE-RQ of a CT image (PS3.7 9.3.1.1)."""
    elements = {
        0x0002: CT_STORAGE.encode(),
        0x0100: _us(1),
        0x0110: _us(message_id),
        0x0700: _us(0),
        0x1000: instance,
    }
    return command(elements, 1)


def status_of(body: bytes) -> int:
    """Return the Status (0000,0900) of a response in one P-DATA-TF."""
    at = body.index(b"\x00\x00\x00\x09\x02\x00\x00\x00")
    return int.from_bytes(body[at + 8 : at + 10], "little")


def identity_item(kind: int, primary: bytes, secondary: bytes = b"", respond: int = 0) -> bytes:
    """Return a user identity sub-item 58H (PS3.7 Table D.3-14)."""
    content = bytes((kind, respond)) + len(primary).to_bytes(2, "big") + primary
    content += len(secondary).to_bytes(2, "big") + secondary
    return b"\x58\0" + len(content).to_bytes(2, "big") + content


def small_ct(instance: bytes, pixels: int = 64) -> bytes:
    """Return a data set in Implicit VR Little Endian, with `pixels` bytes of pixel data."""
    elements = [
        (0x0008, 0x0016, CT_STORAGE.encode()),
        (0x0008, 0x0018, instance),
        (0x0010, 0x0010, b"Test^Patient"),
        (0x0010, 0x0020, b"TEST1"),
        (0x0020, 0x000D, b"1.2.3.4"),
        (0x0020, 0x000E, b"1.2.3.4.5"),
        (0x7FE0, 0x0010, b"\x55" * pixels),
    ]
    data = b""
    for group, element, value in elements:
        fill = b" " if group == 0x0010 else b"\0"
        even = value + fill * (len(value) % 2)
        data += struct.pack("<HHL", group, element, len(even)) + even
    return data
