"""Peers for `benchmarks.soak`: prebuilt PDUs over plain sockets, with a UID put in for each one.

Most associations bring a batch in order. The others are what a node meets on a bad day, all day:
aborted, reset, left without reading the answer, refused, no DICOM at all. What such a one did not
get through is sent again by the next, so that in the end every instance is acknowledged.
"""

from __future__ import annotations

import random
import socket
import ssl
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

from tests.loopback import CT_STORAGE, request_pdu
from tests.system.raw import ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RP, small_ct, store_command
from tests.system.raw import status_of as _status_of

BATCH = 40  # instances of an association
PIXELS = 1_800  # bytes; some 2 KiB with the rest
WAYS = {  # how an association ends, and how often
    "released": 100,
    "released, one instance refused": 4,
    "aborted in the middle of an instance": 4,
    "reset in the middle of an instance": 3,
    "gone before the answer": 3,
    "refused": 3,
    "no DICOM": 2,
}
SUCCESS = 0x0000
RELEASE_RQ = b"\x05\0\0\0\0\x04\0\0\0\0"
ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"
_FIRST = 10**19
_PLACE_HOLDER = f"2.25.{_FIRST}"

Connect = Callable[[], socket.socket]


class Failed(Exception):
    """The node did not answer as it has to."""


def uid_of(serial: int) -> str:
    """Return the UID of an instance; all are of one length."""
    return f"2.25.{_FIRST + serial}"


def serial_of(uid: str) -> int:
    """Return which instance has a UID of ours."""
    return int(uid.removeprefix("2.25.")) - _FIRST


def data_set(serial: int) -> bytes:
    """Return what the archive has to hold of an instance."""
    return _DATA.replace(_PLACE_HOLDER.encode(), uid_of(serial).encode())


def _stored() -> bytes:
    """Return a C-STORE, command and data set in one PDU."""
    command = store_command(_PLACE_HOLDER.encode())
    values = b"".join(
        struct.pack(">LBB", len(data) + 2, 1, control) + data
        for control, data in ((3, command), (2, _DATA))
    )
    return struct.pack(">BBL", P_DATA, 0, len(values)) + values


_DATA = small_ct(_PLACE_HOLDER.encode(), PIXELS)
_STORE = _stored()
_PLACES = [
    at for at in range(len(_STORE)) if _STORE.startswith(_PLACE_HOLDER.encode(), at)
]  # in command and data set


class Work:
    """What is to be sent, and what has been acknowledged; shared by all senders.

    Attributes
    ----------
    acknowledged : deque of int
        Serial numbers, to be taken by whoever compares.
    ended : Counter of str
        Associations, by the way they ended.
    """

    def __init__(self, instances: int) -> None:
        self.acknowledged: deque[int] = deque()
        self.ended: Counter[str] = Counter()
        self._next, self._end = 0, instances
        self._lock = threading.Lock()

    def batch(self) -> deque[int]:
        """Return the next serial numbers, none when all are given out."""
        with self._lock:
            start, self._next = self._next, min(self._next + BATCH, self._end)
            return deque(range(start, self._next))

    def note(self, way: str) -> None:
        """Count an association."""
        with self._lock:
            self.ended[way] += 1


def send(work: Work, connects: Sequence[Connect], seed: int) -> None:
    """Send batches until there are none left.

    Parameters
    ----------
    work : Work
    connects : sequence of callable
        Open a connection to the node; each one has its turn.
    seed : int

    Raises
    ------
    Failed
        An answer was wrong, or none came.
    """
    dice = random.Random(seed)
    ways = tuple(WAYS)
    while todo := work.batch():
        while todo:
            (way,) = dice.choices(ways, tuple(WAYS.values()))
            with dice.choice(connects)() as sock, suppress(ConnectionResetError):
                Association(sock, todo, work).go(way)
            work.note(way)


class Association:
    """One connection, with what is left of a batch to send by it."""

    def __init__(self, sock: socket.socket, todo: deque[int], work: Work) -> None:
        self._sock = sock
        self._todo = todo
        self._work = work
        self._pdu = bytearray(_STORE)

    def go(self, way: str) -> None:
        """Send, until it ends in this way."""
        if way == "no DICOM":
            self._sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            self._wait_for(0, 7)
            return
        if way == "refused":
            self._sock.sendall(request_pdu(application_context=b"1.2.3"))
            self._wait_for(ASSOCIATE_RJ)
            return
        self._sock.sendall(request_pdu(abstract=CT_STORAGE.encode()))
        self._wait_for(ASSOCIATE_AC)
        middle = len(self._todo) // 2 if way != "released" else 0
        while len(self._todo) > middle:
            self._store()
        {
            "released": self._release,
            "released, one instance refused": partial(self._release, refused=True),
            "aborted in the middle of an instance": partial(self._break_off, ABORT),
            "reset in the middle of an instance": partial(self._break_off, b""),
            "gone before the answer": partial(self._break_off, None),
        }[way]()

    def _put(self, serial: int, places: Sequence[int] = _PLACES) -> None:
        uid = uid_of(serial).encode()
        for at in places:
            self._pdu[at : at + len(uid)] = uid

    def _store(self) -> None:
        serial = self._todo[0]
        self._put(serial)
        self._sock.sendall(self._pdu)
        status = _status_of(self._wait_for(P_DATA))
        if status != SUCCESS:
            raise Failed(f"instance {serial} was answered 0x{status:04X}")
        self._todo.popleft()
        self._work.acknowledged.append(serial)

    def _release(self, *, refused: bool = False) -> None:
        if refused and self._todo:
            self._put(self._todo[0])
            self._put(self._todo[0] + 1, _PLACES[:1])  # what the command says only
            self._sock.sendall(self._pdu)
            if _status_of(self._wait_for(P_DATA)) == SUCCESS:
                raise Failed("an instance with two UIDs was kept")
        self._sock.sendall(RELEASE_RQ)
        self._wait_for(RELEASE_RP)

    def _break_off(self, last_word: bytes | None) -> None:
        """Send half an instance and `last_word`, nothing for a reset; None sends it whole."""
        if self._todo:
            self._put(self._todo[0])
            self._sock.sendall(self._pdu if last_word is None else self._pdu[: len(_STORE) // 2])
        if last_word:
            self._sock.sendall(last_word)
        elif not isinstance(self._sock, ssl.SSLSocket):
            linger = struct.pack("ii", 1, 0)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _wait_for(self, *kinds: int) -> bytes:
        """Return the body of the next PDU, which is of one of these types; 0: the end."""
        header = self._exactly(6)
        kind = header[0] if header else 0
        if kind not in kinds:
            raise Failed(f"PDU of type {kind}, wanted {kinds}")
        return self._exactly(int.from_bytes(header[2:], "big")) if header else b""

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._sock.recv(count - len(data))
            if not piece:
                return b""
            data += piece
        return data


def connects(plain: int, tls: int, context: ssl.SSLContext) -> Iterator[Connect]:
    """Yield ways to connect: seven times plain, once by TLS."""

    def plainly() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", plain), timeout=60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def securely() -> socket.socket:
        return context.wrap_socket(socket.create_connection(("127.0.0.1", tls), timeout=60))

    yield from [plainly] * 7
    yield securely
