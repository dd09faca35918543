"""A whole acceptor over a socket pair, one connection at a time, and what must hold of each.

Everything is the product's own, from the first byte after TCP accept on: server, upper layer,
messages, host. Only the socket is a seam: `Chopped` gives the bytes out in pieces of any size.

Of every connection must hold, whatever the bytes:

* it ends, and so do its threads; no exception reaches the top of one, nor the log as one that
  nobody expected;
* what the node answers is a sequence of PDUs that PS3.8 allows an acceptor;
* what a plug-in got to keep is a data set of the stream, whole and in order;
* what was acknowledged with 0000 was kept;
* memory that data sets waited in is given back.
"""

from __future__ import annotations

import io
import logging
import select
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA

from dicom_secure_node.errors import SecureNodeError
from dicom_secure_node.node.host import PluginHost
from dicom_secure_node.node.limits import Limits
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.node.server import Listener, SecureServer
from tests.loopback import CT_STORAGE, VERIFICATION, application_entity

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
COMMITMENT = "1.2.840.10008.1.20.1"
CONTEXTS = {1: CT_STORAGE, 3: VERIFICATION, 5: FIND, 7: COMMITMENT}

# Every time is longer than `SECONDS`: a connection that waits for one of them hangs.
SECONDS = 20.0
LIMITS = Limits(
    handshake_seconds=60,
    request_seconds=60,
    pdu_length=16_384,
    request_length=16_384,
    command_length=4_096,
    identifier_length=16_384,
    instance_length=32_768,
    outstanding=4,
)

# The rest of pynetdicom logs what it cannot decode and goes on to abort.
_LOGGERS = ("dicom_secure_node", "pynetdicom.dul", "pynetdicom.fsm", "pynetdicom.events")

_MOMENT = 0.004  # seconds a patient peer listens before it takes the node for done

_AC, _RJ, _P_DATA, _RELEASE_RP, _ABORT = 2, 3, 4, 6, 7
_STORE_RQ, _STORE_RSP = 0x0001, 0x8001


class Chopped:
    """A connected socket that gives out at most so many bytes at a time.

    Parameters
    ----------
    sock : socket
        The acceptor's end of a pair.
    sizes : sequence of int
        Of the pieces, over and over; empty: as they come.
    """

    def __init__(self, sock: socket.socket, sizes: Sequence[int]) -> None:
        self._sock = sock
        self._sizes = sizes
        self._turn = 0

    def _size(self, wanted: int) -> int:
        if not self._sizes:
            return wanted
        self._turn += 1
        return min(wanted, self._sizes[self._turn % len(self._sizes)])

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive as `socket.recv`, perhaps less."""
        return self._sock.recv(size if flags else self._size(size), flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive as `socket.recv_into`, perhaps less."""
        return self._sock.recv_into(buffer, self._size(nbytes or len(buffer)), flags)

    def getsockname(self) -> tuple[str, int]:
        """Return an address such as TCP has."""
        return ("127.0.0.1", 104)

    def setsockopt(self, *_args: Any) -> None:
        """Take TCP's options, which a pair has not."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Memory:
    """A body in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: memoryview, /) -> None:
        self.data += data

    def open(self) -> io.BytesIO:
        return io.BytesIO(self.data)

    def abandon(self) -> None:
        pass


class _Keeping(Plugin):
    """Keeps what comes, and notes what will be acknowledged."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, bytes]] = []

    def on_store(self, store: Any) -> None:
        with store.body.open() as body:
            self.kept.append((store.message_id, body.read()))


class _Server(SecureServer):
    """A server that nobody connects to: its connections are handed to it."""

    ended: threading.Event

    def association_ended(self, assoc: Any) -> None:
        super().association_ended(assoc)
        self.ended.set()


class _Unexpected(logging.Handler):
    """Collects exceptions that were logged and are none of ours."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, SecureNodeError):
            self.seen.append(f"{record.name}: {record.getMessage()}: {error!r}")


@dataclass
class Heard:
    """What came of one connection.

    Attributes
    ----------
    answers : list of (int, bytes)
        Type and body of each PDU of the node.
    kept : list of (int, bytes)
        Message ID and data set of each C-STORE the plug-in got to keep.
    """

    answers: list[tuple[int, bytes]] = field(default_factory=list)
    kept: list[tuple[int, bytes]] = field(default_factory=list)


class Acceptor:
    """An acceptor to feed with whole connections.

    Parameters
    ----------
    shows_pdus : bool
        A handler for received PDUs is bound, so that pynetdicom decodes all of them.
    in_memory : bool
        An application's own handler takes the instances, from memory.
    """

    def __init__(self, *, shows_pdus: bool = False, in_memory: bool = False) -> None:
        self._keeping = _Keeping()
        self._unexpected = _Unexpected()
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self._unexpected)
        application: dict[Any, Any] = {
            evt.EVT_C_FIND: (_found, ()),
            evt.EVT_N_ACTION: (_acted, ()),
        }
        if in_memory:
            application[evt.EVT_C_STORE] = (_taken, ())
        self._host = host = PluginHost(
            [self._keeping], None if in_memory else lambda _store: _Memory(), application
        )
        self._room = host.memory.left
        handlers: list[tuple[Any, ...]] = list(host.handlers())
        if shows_pdus:
            handlers.append((evt.EVT_PDU_RECV, _look))
        self._server: Any = application_entity(FIND, COMMITMENT).make_server(
            ("127.0.0.1", 0),
            evt_handlers=handlers,
            server_class=_Server,
            listener=Listener("fuzz", limits=LIMITS),
            host=host,
            quiet=True,
        )

    def close(self) -> None:
        """Give back the socket and the log."""
        self._server.server_close()
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self._unexpected)

    def talk(
        self, parts: Iterable[bytes], sizes: Sequence[int] = (), *, patient: bool = True
    ) -> Heard:
        """Have a peer send `parts`, then close its sending side, and return what it heard.

        Parameters
        ----------
        parts : iterable of bytes
            After each one but the last the peer waits for an answer.
        sizes : sequence of int
            Of the pieces the node gets to read.
        patient : bool
            Wait a moment for answers before closing.

        Raises
        ------
        AssertionError
            Something that must hold does not.
        """
        self._keeping.kept.clear()
        self._unexpected.seen.clear()
        died: list[str] = []
        hook, threading.excepthook = (
            threading.excepthook,
            lambda told: died.append(repr(told.exc_value)),
        )
        ours, theirs = socket.socketpair()
        try:
            heard = self._talk(ours, Chopped(theirs, sizes), list(parts), patient)
        finally:
            threading.excepthook = hook
            ours.close()
        assert died == [], died
        assert self._unexpected.seen == [], self._unexpected.seen
        assert self._host.memory.left == self._room, "memory is not given back"
        check_answers(heard.answers)
        heard.kept = list(self._keeping.kept)
        return heard

    def _talk(
        self, ours: socket.socket, theirs: Chopped, parts: list[bytes], patient: bool
    ) -> Heard:
        self._server.ended = threading.Event()
        peer = _Peer(ours)
        first, *rest = parts
        peer.send(first)
        if not rest and not patient:
            ours.shutdown(socket.SHUT_WR)
        self._server.process_request_thread(theirs, ("127.0.0.1", 11112))
        for part in rest:
            peer.wait(SECONDS)
            peer.send(part)
        running = self._server.associations() if patient else []
        while patient and (peer.wait(_MOMENT) or any(map(_is_serving, running))):
            pass
        peer.finish()
        assert self._server.ended.wait(SECONDS), "the association does not end"
        theirs.close()
        return Heard(list(pdus(bytes(peer.heard))))


class _Peer:
    """The other end: sends, and reads meanwhile, so that neither side waits for ever."""

    def __init__(self, sock: socket.socket) -> None:
        self.heard = bytearray()
        self.closed = False
        self._sock = sock
        sock.setblocking(False)

    def send(self, data: bytes) -> None:
        left = memoryview(data)
        while left and not self.closed:
            _, writable, _ = select.select((), (self._sock,), (), 0)
            if not writable:
                self.wait(SECONDS)
                continue
            try:
                left = left[self._sock.send(left) :]
            except BlockingIOError:
                self.wait(0.001)
            except OSError:
                return

    def wait(self, seconds: float) -> bool:
        """Read what there is within the time; return whether there was something."""
        if self.closed:
            return False
        readable, _, _ = select.select((self._sock,), (), (), seconds)
        if not readable:
            return False
        try:
            data = self._sock.recv(65_536)
        except OSError:
            data = b""
        self.heard += data
        self.closed = not data
        return bool(data)

    def finish(self) -> None:
        """Send no more, and read to the end."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return
        while self.wait(SECONDS):
            pass


def _is_serving(assoc: Any) -> bool:
    """Tell whether a request is being served, is about to be, or its answer to leave."""
    queues = (assoc.dimse.msg_queue, assoc.dul.to_provider_queue)
    waiting = assoc._at_work or not all(one.empty() for one in queues)
    return bool(assoc.is_alive() and assoc.is_established and waiting)


def _look(_event: evt.Event) -> None:
    """Be there: with such a handler bound, pynetdicom decodes every PDU."""


def _found(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
    """Answer a query with three matches, or fewer where it is cancelled."""
    match = Dataset()
    match.PatientID = "1"
    for _ in range(3):
        if event.is_cancelled:
            yield 0xFE00, None
            return
        yield 0xFF00, match


def _taken(event: evt.Event) -> int:
    """Take an instance as an application does, without a look at it."""
    event.encoded_dataset()
    return 0x0000


def _acted(_event: evt.Event) -> tuple[int, None]:
    return 0x0000, None


# -- what must hold ------------------------------------------------------------------------


def check_answers(answers: Sequence[tuple[int, bytes]]) -> None:
    """Fail where an acceptor may not have sent these PDUs in this order (PS3.8 9.2)."""
    kinds = [kind for kind, _ in answers]
    assert set(kinds) <= {_AC, _RJ, _P_DATA, _RELEASE_RP, _ABORT}, kinds
    if not kinds:
        return
    assert kinds[0] in (_AC, _RJ, _ABORT), kinds
    last = [place for place, kind in enumerate(kinds) if kind in (_RJ, _RELEASE_RP, _ABORT)]
    # A peer that goes on after the last word gets an A-ABORT (AA-7 of PS3.8 Table 9-9).
    assert not last or set(kinds[last[0] + 1 :]) <= {_ABORT}, kinds
    assert kinds.count(_AC) <= 1, kinds
    if _P_DATA in kinds or _RELEASE_RP in kinds:
        assert kinds[0] == _AC, kinds


def check_kept(heard: Heard, stream: bytes) -> None:
    """Fail where something was kept or acknowledged that `stream` does not hold whole."""
    sent = iter(data_sets(stream))
    for _, kept in heard.kept:
        assert any(kept == one for one in sent), "kept: what was not sent so"
    numbers = iter(number for number, _ in heard.kept)
    for acknowledged in acknowledgements(heard.answers):
        assert acknowledged in numbers, "acknowledged: what was not kept"


def pdus(stream: bytes, *, cut_off: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each PDU (PS3.8 9.3); one that is cut off only if asked."""
    position = 0
    while len(stream) - position >= 6:
        kind, length = struct.unpack_from(">BxL", stream, position)
        end = position + 6 + length
        if end > len(stream) and not cut_off:
            return
        yield kind, stream[position + 6 : end]
        position = end


def pdvs(stream: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield context, control header and fragment of each whole PDV, as far as they make sense.

    The node need not wait for the end of a P-DATA-TF to take a value that is complete.
    """
    for kind, body in pdus(stream, cut_off=True):
        if kind != _P_DATA:
            continue
        position = 0
        while position < len(body):
            if len(body) - position < 6:
                return
            length, context, control = struct.unpack_from(">LBB", body, position)
            end = position + 4 + length
            if length < 2 or end > len(body):
                return
            yield context, control, body[position + 6 : end]
            position = end


def data_sets(stream: bytes) -> list[bytes]:
    """Return every whole data set of a stream: a second, plain reading of PS3.8 Annex E."""
    found, data = [], b""
    for _, control, fragment in pdvs(stream):
        if control & 1:
            data = b""
            continue
        data += fragment
        if control & 2:
            found.append(data)
            data = b""
    return found


def acknowledgements(answers: Sequence[tuple[int, bytes]]) -> Iterator[int]:
    """Yield the message ID of each C-STORE that was answered 0000."""
    stream = b"".join(struct.pack(">BxL", kind, len(body)) + body for kind, body in answers)
    for _, control, fragment in pdvs(stream):
        if control & 3 != 3:
            continue
        command = by_pynetdicom(fragment)
        if command is None or command.command_set.CommandField != _STORE_RSP:
            continue
        if command.command_set.Status == 0x0000:
            yield int(command.command_set.MessageIDBeingRespondedTo)


def by_pynetdicom(command: bytes) -> Any:
    """Return the message pynetdicom decodes a command set to, None where it cannot."""
    message, data = DIMSEMessage(), P_DATA()
    data.presentation_data_value_list.append((1, b"\x03" + command))
    try:
        message.decode_msg(data)
    except Exception:  # whatever it is: there is no message then
        return None
    return message


@lru_cache(maxsize=4)
def acceptor(shows_pdus: bool, in_memory: bool) -> Acceptor:
    """Return the one acceptor of this process that takes PDUs and instances in this way."""
    return Acceptor(shows_pdus=shows_pdus, in_memory=in_memory)
