"""Files sent by C-STORE: straight from a buffer, or by pynetdicom where somebody watches it."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from pynetdicom import AE, build_context, evt

from dicom_secure_node.errors import PeerRefused
from dicom_secure_node.node.requestor import Patience, RequestorAssociation
from dicom_secure_node.node.requestor_layers import SHOWS_MESSAGES
from dicom_secure_node.node.scu import associate
from dicom_secure_node.node.sending import read_instance, send_files
from dicom_secure_node.node.store_codec import StoreRequest, command_pdu
from tests.commands.test_send import CT, EXPLICIT, body_digest, write_instance
from tests.parts import free_port, orthanc, run, storescp, wait_until

SHORT = Patience(connect=5, association=2, response=1, pdu=2, abort=0.3)
ROOT = Path(__file__).parents[2]
WATCHED = {"buffer": [], "pynetdicom": [(evt.EVT_FSM_TRANSITION, lambda event: None)]}


@pytest.fixture(params=WATCHED.values(), ids=WATCHED)
def handlers(request: pytest.FixtureRequest) -> list[Any]:
    """Return event handlers that make the files go one way or the other."""
    return list(request.param)


def opener(port: int, handlers: list[Any], patience: Patience | None = None) -> Any:
    call = partial(associate, "127.0.0.1", port, calling="US", called="THEM")
    return lambda contexts: call(contexts=contexts, evt_handlers=handlers, patience=patience)


def with_pixels(path: Path, uid: str, size: int) -> Path:
    """Write an instance with so many bytes of pixels; many are a hole in the file."""
    write_instance(path, uid)
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\0OW\0\0" + size.to_bytes(4, "little"))
        start = file.tell()
        file.write(os.urandom(min(size, 1_000_000)))
        file.truncate(start + size)
    return path


def instances(folder: Path) -> list[Path]:
    sizes = (0, 10, 4_000, 4_090, 16_376, 131_066, 500_000, 900_000)
    return [with_pixels(folder / f"{n}.dcm", f"1.2.{n}", size) for n, size in enumerate(sizes)]


# -- the bytes, at real peers


@pytest.mark.parametrize("limit", [4_096, 16_384, 131_072])
def test_E2_dcmtk_gets_every_byte(tmp_path: Path, handlers: list[Any], limit: int) -> None:
    files = instances(tmp_path)
    with storescp(tmp_path, "+B", "-pdu", str(limit)) as peer:
        told = list(send_files(opener(peer.port, handlers), files))
    assert [one.outcome for one in told] == ["stored"] * len(files)
    arrived = Counter(map(body_digest, (tmp_path / "received").iterdir()))
    assert arrived == Counter(map(body_digest, files))


@pytest.mark.parametrize("limit", [4_096, 131_072])
def test_E2_orthanc_gets_every_byte(tmp_path: Path, handlers: list[Any], limit: int) -> None:
    web = free_port()
    path = with_pixels(tmp_path / "a.dcm", "1.2.3", 300_000)
    whole = path.read_bytes()
    at = whole.index(b"\xe0\x7f\x10\0OW")
    # Orthanc wants to know whose image it is.
    elements = ((0x10, 0x20, b"LO", b"12"), (0x20, 0x0D, b"UI", b"1.2.3.40"))
    elements += ((0x20, 0x0E, b"UI", b"1.2.3.50"),)
    ids = b"".join(
        bytes((group, 0, number, 0)) + vr + len(value).to_bytes(2, "little") + value
        for group, number, vr, value in elements
    )
    path.write_bytes(whole[:at] + ids + whole[at:])
    with orthanc(tmp_path / "o", HttpPort=web, MaximumPduLength=limit) as peer:
        told = list(send_files(opener(peer.port, handlers), [path]))
        assert [one.outcome for one in told] == ["stored"]
        with urlopen(f"http://127.0.0.1:{web}/instances") as answer:
            (known,) = json.load(answer)
        with urlopen(f"http://127.0.0.1:{web}/instances/{known}/file") as answer:
            (tmp_path / "back.dcm").write_bytes(answer.read())
    assert body_digest(tmp_path / "back.dcm") == body_digest(path)


@pytest.mark.parametrize("limit", [0, 40, 200, 65_536, 1 << 20])
def test_D1_any_maximum_length(tmp_path: Path, handlers: list[Any], limit: int) -> None:
    got: list[bytes] = []
    longest: list[int] = []

    def keep(event: evt.Event) -> int:
        got.append(event.request.DataSet.getvalue())
        return 0

    def measure(event: evt.Event) -> None:
        if event.data[0] == 4:
            longest.append(len(event.data) - 6)

    ae = AE()
    ae.maximum_pdu_size = limit
    ae.add_supported_context(CT, EXPLICIT)
    bound = [(evt.EVT_C_STORE, keep), (evt.EVT_DATA_RECV, measure)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=bound)
    assert server is not None
    size = 500_000 if limit != 40 else 2_000
    path = with_pixels(tmp_path / "a.dcm", "1.2.3", size)
    try:
        told = list(send_files(opener(server.server_address[1], handlers), [path]))
    finally:
        ae.shutdown()
    assert [one.outcome for one in told] == ["stored"]
    assert path.read_bytes().endswith(got[0])
    assert len(got[0]) > size
    assert max(longest) <= (limit or 262_144)


# -- peers no product would be


def associated(conn: socket.socket, limit: int) -> None:
    """Accept the first presentation context in explicit little endian (PS3.8 9.3.3)."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(content)) + content

    read_pdu(conn)
    body = b"\0\1\0\0" + b"THEM".ljust(16) + b"US".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    body += item(0x21, b"\1\0\0\0" + item(0x40, EXPLICIT.encode()))
    body += item(0x50, item(0x51, struct.pack(">L", limit)) + item(0x52, b"1.2"))
    conn.sendall(struct.pack(">BxL", 2, len(body)) + body)


def read_pdu(conn: socket.socket) -> tuple[int, bytes]:
    head = conn.recv(6, socket.MSG_WAITALL)
    if len(head) < 6:
        return 0, b""
    kind, length = struct.unpack(">BxL", head)
    body = b""
    while len(body) < length:
        piece = conn.recv(length - len(body))
        if not piece:
            return 0, b""
        body += piece
    return kind, body


def read_request(conn: socket.socket) -> None:
    """Read on until a data set ends."""
    while True:
        kind, body = read_pdu(conn)
        if kind != 4 or body[5] == 2:
            return


def until_end(conn: socket.socket) -> list[int]:
    """Return the types of the PDUs that still come."""
    kinds: list[int] = []
    with suppress(OSError):
        while kind := read_pdu(conn)[0]:
            kinds.append(kind)
    return kinds


def response(status: int = 0, message_id: int = 1, kind: int = 0x8001) -> bytes:
    rest = struct.pack("<HHLH", 0, 0x0100, 2, kind) + struct.pack("<HHLH", 0, 0x0120, 2, message_id)
    rest += struct.pack("<HHLH", 0, 0x0800, 2, 0x0101) + struct.pack("<HHLH", 0, 0x0900, 2, status)
    return struct.pack("<HHLL", 0, 0, 4, len(rest)) + rest


ABORT = bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, 0))
RELEASE = bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0))
Act = Callable[[socket.socket], Any]


@contextmanager
def raw_peer(*acts: Act, limit: int = 16_384) -> Iterator[int]:
    """Yield the port of a peer that takes one association after the other, for each act."""

    def serve() -> None:
        for act in acts:
            conn, _ = server.accept()
            with conn:
                conn.settimeout(30)
                associated(conn, limit)
                act(conn)

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(30)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join(40)
            assert not thread.is_alive()


def answering(*pdus: bytes) -> Act:
    def act(conn: socket.socket) -> None:
        read_request(conn)
        conn.sendall(b"".join(pdus))
        until_end(conn)

    return act


def early(pdu: bytes, reads: bool = True) -> Act:
    """Answer in the middle of the request, and read the rest of it or close."""

    def act(conn: socket.socket) -> None:
        read_pdu(conn)
        read_pdu(conn)
        conn.sendall(pdu)
        if reads:
            until_end(conn)

    return act


def in_two(command: bytes) -> bytes:
    first = struct.pack(">BxLLBB", 4, 26, 22, 1, 1) + command[:20]
    rest = command[20:]
    return first + struct.pack(">BxLLBB", 4, len(rest) + 6, len(rest) + 2, 1, 3) + rest


PEERS: dict[str, tuple[Act, str, str]] = {
    # what the peer does, outcome, words
    "answers": (answering(command_pdu(1, response())), "stored", ""),
    "answers in two fragments": (answering(in_two(response())), "stored", ""),
    "answers with a warning": (
        answering(command_pdu(1, response(0xB000))), "warning", "Coercion of Data Elements",
    ),
    "answers early": (early(command_pdu(1, response(0xA700))), "refused", "0xA700"),
    "another message's response": (
        answering(command_pdu(1, response(message_id=9))), "lost", "no response to the request",
    ),
    "a response of another kind": (
        answering(command_pdu(1, response(kind=0x8030))), "lost", "peer 127.0.0.1",
    ),
    "aborts instead": (answering(ABORT), "lost", "aborted the association"),
    "aborts in the middle": (early(ABORT), "lost", "aborted the association"),
    "closes in the middle": (early(b"", reads=False), "lost", "peer 127.0.0.1"),
    "closes half an answer": (
        lambda conn: (read_request(conn), conn.sendall(b"\4\0\0\0")), "lost", "closed",
    ),
    "is silent": (lambda conn: (read_request(conn), until_end(conn)), "lost", "no answer in time"),
    "garbage": (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "lost", "no DICOM PDU"),
    "garbage in the middle": (early(b"\x16\3\1\2\3\4\5"), "lost", "no DICOM PDU but TLS"),
    "announces 4 GiB": (answering(b"\4\0\xff\xff\xff\xff"), "lost", "PDU of 4294967295"),
    "a PDU that cannot be decoded": (answering(b"\4\0\0\0\0\3abc"), "lost", "peer 127.0.0.1"),
    "asks for release instead": (answering(RELEASE), "lost", "no answer in time"),
}  # fmt: skip


@pytest.mark.parametrize("case", PEERS.values(), ids=PEERS)
def test_peers_that_do_not_behave(
    tmp_path: Path, handlers: list[Any], case: tuple[Act, str, str]
) -> None:
    act, outcome, words = case
    path = with_pixels(tmp_path / "a.dcm", "1.2.3", 900_000)
    before = threading.active_count()
    with raw_peer(act) as port:
        (told,) = send_files(opener(port, handlers, SHORT), [path])
    assert told.outcome == outcome, told
    assert words in told.text
    wait_until(lambda: threading.active_count() <= before, "no thread is left behind")


def test_a_success_before_the_end_of_what_could_be_sent_is_none(
    tmp_path: Path,
) -> None:
    path = with_pixels(tmp_path / "a.dcm", "1.2.3", 200 << 20)
    with raw_peer(early(command_pdu(1, response()), reads=False)) as port:
        (told,) = send_files(opener(port, [], SHORT), [path])
    assert told.outcome == "lost"


def test_a_peer_that_never_reads_is_given_up(tmp_path: Path, handlers: list[Any]) -> None:
    path = with_pixels(tmp_path / "a.dcm", "1.2.3", 100 << 20)
    gone = threading.Event()
    with raw_peer(lambda conn: gone.wait(60)) as port:
        (told,) = send_files(opener(port, handlers, SHORT), [path])
        gone.set()
    assert told.outcome == "lost"
    assert "timed out" in told.text


def test_the_next_file_goes_over_a_new_association(tmp_path: Path, handlers: list[Any]) -> None:
    files = [with_pixels(tmp_path / f"{n}.dcm", f"1.2.{n}", 100_000) for n in range(2)]
    second = answering(command_pdu(1, response(message_id=2)))
    with raw_peer(early(ABORT), second) as port:
        told = list(send_files(opener(port, handlers, SHORT), files))
    assert [one.outcome for one in told] == ["lost", "stored"]


def test_an_abort_comes_after_a_whole_pdu(tmp_path: Path, handlers: list[Any]) -> None:
    """As when somebody stops ``send`` in the middle of a large file."""
    path = with_pixels(tmp_path / "a.dcm", "1.2.3", 100 << 20)
    full, stopped = threading.Event(), threading.Event()
    kinds: list[int] = []

    def act(conn: socket.socket) -> None:
        read_pdu(conn)
        full.set()
        assert stopped.wait(30)
        kinds.extend(until_end(conn))

    patience = Patience(connect=5, association=5, response=5, pdu=20, abort=10)
    with raw_peer(act) as port:
        association = opener(port, handlers, patience)([build_context(CT, EXPLICIT)])
        thread = threading.Thread(target=partial(outcome_of, association, path))
        thread.start()
        assert full.wait(30)
        # While a handler runs, pynetdicom has another method in the place of this one.
        end = threading.Thread(target=RequestorAssociation.abort, args=(association,))
        end.start()
        wait_until(lambda: association.dul.aborting, "the abort is under way")
        stopped.set()
        end.join(30)
        thread.join(30)
        assert not thread.is_alive()
    assert kinds[-1] == 7
    assert set(kinds[:-1]) <= {4}


def outcome_of(association: RequestorAssociation, path: Path) -> None:
    with suppress(PeerRefused):
        association.send_file(StoreRequest(1, CT, "1.2.3", 0), 1, path, 300)


# -- the file


def test_a_file_that_becomes_shorter_while_it_is_sent(tmp_path: Path) -> None:
    path = with_pixels(tmp_path / "a.dcm", "1.2.3", 100 << 20)
    second = with_pixels(tmp_path / "b.dcm", "1.2.4", 1000)
    kinds: list[int] = []

    def act(conn: socket.socket) -> None:
        read_pdu(conn)
        os.truncate(path, 2_000_000)
        kinds.extend(until_end(conn))

    with raw_peer(act, answering(command_pdu(1, response(message_id=2)))) as port:
        told = list(send_files(opener(port, [], SHORT), [path, second]))
    assert [one.outcome for one in told] == ["unsendable", "stored"]
    assert "became shorter" in told[0].text
    assert kinds[-1] == 7, "an A-ABORT, and no end of the data set"


def test_a_file_that_cannot_be_opened_costs_no_association(tmp_path: Path) -> None:
    files = [write_instance(tmp_path / f"{n}.dcm", f"1.2.{n}") for n in range(3)]
    with storescp(tmp_path, "-v") as peer:
        told = list(send_files(opener(peer.port, []), files, lambda count: files[1].unlink()))
    assert [one.outcome for one in told] == ["stored", "unsendable", "stored"]
    assert peer.output.count("Association Received") == 1


def test_memory_stays_flat_with_2_gib(tmp_path: Path) -> None:
    script = """
import resource, sys
from functools import partial
from pathlib import Path
from dicom_secure_node.node.scu import associate
from dicom_secure_node.node.sending import read_instance, send_files
call = partial(associate, "127.0.0.1", int(sys.argv[1]), calling="US", called="THEM")
def peak(path):
    (told,) = send_files(lambda contexts: call(contexts=contexts), [Path(path)])
    assert told.outcome == "stored", told
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
small = peak(sys.argv[2])
print(peak(sys.argv[3]) - small)
"""
    small = with_pixels(tmp_path / "small.dcm", "1.2.3", 2 << 20)
    large = with_pixels(tmp_path / "large.dcm", "1.2.4", 2 << 30)
    with storescp(tmp_path, "--ignore", "-pdu", "131072") as peer:
        argv = [sys.executable, "-c", script, str(peer.port), str(small), str(large)]
        done = run(argv, timeout=200, cwd=ROOT, check=True)
    assert int(done.stdout) < 8 << 10, "KiB of growth"


# -- what pynetdicom promises


@pytest.mark.parametrize("event", SHOWS_MESSAGES, ids=lambda event: event.name)
def test_events_fire_for_who_has_bound_them(tmp_path: Path, event: Any) -> None:
    seen: list[Any] = []
    path = write_instance(tmp_path / "a.dcm", "1.2.3")
    with raw_peer(answering(command_pdu(1, response()))) as port:
        association = opener(port, [(event, seen.append)], SHORT)([build_context(CT, EXPLICIT)])
        seen.clear()
        assert association.send_file(StoreRequest(1, CT, "1.2.3", 0), 1, path, 300) == 0
        association.abort()
    assert seen


def test_the_reactor_sees_the_peer_abort_between_two_files(
    tmp_path: Path, handlers: list[Any]
) -> None:
    path = write_instance(tmp_path / "a.dcm", "1.2.3")
    go = threading.Event()

    def act(conn: socket.socket) -> None:
        read_request(conn)
        conn.sendall(command_pdu(1, response()))
        assert go.wait(30)
        conn.sendall(ABORT)
        until_end(conn)

    with raw_peer(act) as port:
        association = opener(port, handlers)([build_context(CT, EXPLICIT)])
        assert association.send_file(StoreRequest(1, CT, "1.2.3", 0), 1, path, 300) == 0
        assert association.is_established
        go.set()
        wait_until(lambda: not association.is_established, "the abort")
        assert association.is_aborted
        with pytest.raises(PeerRefused, match="aborted the association"):
            association.send_file(StoreRequest(2, CT, "1.2.3", 0), 1, path, 300)


def test_the_reactor_answers_the_peer_between_two_files(
    tmp_path: Path, handlers: list[Any]
) -> None:
    path = write_instance(tmp_path / "a.dcm", "1.2.3")
    go = threading.Event()
    kinds: list[int] = []

    def act(conn: socket.socket) -> None:
        read_request(conn)
        conn.sendall(command_pdu(1, response()))
        assert go.wait(30)
        conn.sendall(RELEASE)
        kinds.extend(until_end(conn)[:1])

    with raw_peer(act) as port:
        association = opener(port, handlers)([build_context(CT, EXPLICIT)])
        assert association.send_file(StoreRequest(1, CT, "1.2.3", 0), 1, path, 300) == 0
        go.set()
        wait_until(lambda: association.is_released, "the release")
    assert kinds == [6], "an A-RELEASE-RP"


def test_pynetdicoms_own_methods_work_between_files(tmp_path: Path) -> None:
    path = write_instance(tmp_path / "a.dcm", "1.2.3")
    offset = read_instance(path).offset
    with storescp(tmp_path, "+B") as peer:
        contexts = [build_context(CT, EXPLICIT), build_context("1.2.840.10008.1.1")]
        association = opener(peer.port, [])(contexts)
        for number in range(20):
            request = StoreRequest(number + 1, CT, f"1.2.{number}", 0)
            assert association.send_file(request, 1, path, offset) == 0
            assert association.send_c_echo().Status == 0
        association.end()
        assert association.is_released
