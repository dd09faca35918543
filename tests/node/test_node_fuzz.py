"""Streams of a real sender, damaged at random, against a server that has to outlive them all."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicom_secure_node.archive import Archive
from dicom_secure_node.node import server
from dicom_secure_node.node.limits import Limits
from dicom_secure_node.node.plugins.storage import StoragePlugin
from tests.loopback import CT_SMALL, application_entity, associate, port_of, serving
from tests.parts import wait_until

ROUNDS = 400
LIMITS = Limits(handshake_seconds=1, request_seconds=1, pdu_seconds=1, idle_seconds=2)
FOREIGN = b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00", b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"


@contextlib.contextmanager
def _archiving(folder: Path) -> Iterator[server.SecureServer]:
    ae = application_entity("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.20.1")
    with Archive(folder) as archive:
        storage = StoragePlugin(archive)
        listener = server.Listener("fuzz", limits=LIMITS)
        with serving([storage], receive=storage.receive, ae=ae, listener=listener) as node:
            yield node


def _pump(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            seen += data
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _recorded(port: int) -> list[bytes]:
    """Return the PDUs DCMTK's storescu sends the server at `port`."""
    sent = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as relay:
        command = ["/usr/bin/storescu", "127.0.0.1", str(relay.getsockname()[1]), str(CT_SMALL)]
        program = subprocess.Popen(command)
        peer, _ = relay.accept()
        with peer, socket.create_connection(("127.0.0.1", port)) as node:
            back = threading.Thread(target=_pump, args=(node, peer, bytearray()))
            back.start()
            _pump(peer, node, sent)
            back.join()
        assert program.wait(20) == 0
    pdus = []
    while sent:
        end = 6 + int.from_bytes(sent[2:6], "big")
        pdus.append(bytes(sent[:end]))
        del sent[:end]
    return pdus


# -- damage --------------------------------------------------------------------------------


def _flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 8))):
        data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))


def _flip_early(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(min(len(data), 160))] = dice.randrange(256)


def _cut(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    del data[start : start + dice.choice((1, 2, 4, 100))]


def _double(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    data[start:start] = data[start : start + dice.choice((1, 2, 8, 300))]


def _wrong_length(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at : at + 4] = dice.choice((b"\xff\xff\xff\xff", bytes(4), b"\0\0\xff\xff"))


DAMAGE: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip_early, _cut, _double, _wrong_length,
)  # fmt: skip


def damaged(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    """Return the PDUs with damage inside some, in the outer lengths, or in their order."""
    out = [bytearray(pdu) for pdu in pdus]
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        kind = dice.randrange(8)
        at = dice.randrange(len(out))
        if kind == 0:
            out.insert(at, bytearray(dice.choice((*FOREIGN, *pdus))))
        elif kind == 1 and len(out) > 1:
            del out[at]
        else:
            at = 0 if dice.random() < 0.3 else at
            content = out[at][6:] or bytearray(1)
            dice.choice(DAMAGE)(content, dice)
            length = len(content) if dice.random() < 0.8 else dice.choice((0, 1, 5, len(pdus[0])))
            out[at][2:] = length.to_bytes(4, "big") + content
    return [bytes(pdu) for pdu in out]


def play(port: int, pdus: list[bytes], dice: random.Random) -> None:
    """Send the first PDU, hear the answer, send the rest, and go in some way or other."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=5) as peer,
    ):
        peer.sendall(pdus[0])
        peer.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            peer.recv(65536)
        for pdu in pdus[1:]:
            peer.sendall(pdu)
        if dice.random() < 0.5:
            peer.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            peer.recv(65536)


def test_no_damaged_stream_ends_a_thread_or_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: died.append(repr(told.exc_value)))
    with _archiving(tmp_path) as node:
        pdus = _recorded(port_of(node))

        def one(seed: int) -> None:
            dice = random.Random(seed)
            play(port_of(node), damaged(pdus, dice), dice)

        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(one, range(ROUNDS)):
                pass
        wait_until(lambda: not node.associations(), "every association to end")
        wait_until(lambda: len(node._slots) == 0, "every slot to be free")
        peer = associate(port_of(node))
        assert peer.send_c_echo().Status == 0
        peer.release()
    assert died == []
    assert not list((tmp_path / "incoming").glob("*.part"))
