"""What a hostile or broken peer may do, and that it changes nothing for the others."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import parts
from tests.certs import Ca
from tests.loopback import request_pdu
from tests.system.raw import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ECHO,
    P_DATA,
    PLAIN_LISTENER,
    Peer,
    identity_item,
    small_ct,
    store_command,
)
from tests.system.running import (
    ALERT,
    NODE_AUTHENTICATION,
    RESTRICTED_FUNCTION,
    TRANSFERRED,
    Node,
    closed_by_peer,
    tcp,
)

STOP = "[limits]\nstop_seconds = 1.0\n"
SHORT = "[limits]\nhandshake_seconds = 1.0\nrequest_seconds = 1.0\nstop_seconds = 1.0\n"


def _echo_from(node: Node, source: str) -> bool:
    """Tell whether a peer at another address gets an association and a C-ECHO."""
    with Peer(node.connect(source=source)) as peer:
        return peer.associate(request_pdu())[0] == ASSOCIATE_AC and peer.echo() == 0


@contextlib.contextmanager
def _dripping(sock: socket.socket, data: bytes, seconds: float = 0.2) -> Iterator[None]:
    """Send `data` to the node byte by byte while the block runs."""
    done = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            for byte in data:
                sock.sendall(bytes((byte,)))
                if done.wait(seconds):
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        sock.close()


# -- before an association -----------------------------------------------------------------


def test_a_silent_peer_changes_nothing_for_others_and_is_audited(home: Path) -> None:
    with Node(home, SHORT) as node, parts.silent_peer(node.port) as silent:
        assert node.echo()
        assert closed_by_peer(silent)
        alert = node.wait_for_alert("refused: time-out")
        assert alert.outcome == 8
        node.wait_for_log("WARNING", "127.0.0.1", "refused: time-out")


def test_a_handshake_byte_by_byte_ends_at_one_deadline(home: Path) -> None:
    hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(*hello, server_hostname="node")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    with Node(home, SHORT) as node, _dripping(tcp(node.port), hello[1].read()):
        assert node.echo()
        node.wait_for_alert("refused: time-out")


def test_an_association_request_byte_by_byte_ends_at_one_deadline(home: Path) -> None:
    with Node(home, SHORT) as node, _dripping(node.connect(), request_pdu()):
        assert node.echo()
        node.wait_for_alert("refused: time-out", "A-ASSOCIATE-RQ")


def test_TLS_and_then_silence(home: Path) -> None:
    with Node(home, SHORT) as node, node.connect() as silent:
        assert closed_by_peer(silent)
        node.wait_for_alert("refused: time-out", "A-ASSOCIATE-RQ")
        assert node.echo()


def test_500_connections_at_once(home: Path) -> None:
    with Node(home, STOP) as node, contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(tcp(node.port))
        node.wait_for_alert("refused: limit reached")
        # 50 from one address is the default limit; everybody else comes in.
        assert _echo_from(node, "127.0.0.2")
        alerts = node.records(ALERT, NODE_AUTHENTICATION)
        assert len(alerts) < 10, "hundreds of refusals are few messages"
    assert "Too many open files" not in node.log


def test_500_connections_from_many_addresses(home: Path) -> None:
    settings = "[limits]\nhandshake_seconds = 3.0\nstop_seconds = 1.0\n"
    with Node(home, settings) as node, contextlib.ExitStack() as stack:
        peers = [
            stack.enter_context(tcp(node.port, f"127.0.{1 + number // 40}.{1 + number % 40}"))
            for number in range(500)
        ]
        node.wait_for_alert("refused: limit reached")
        for peer in peers:
            peer.settimeout(20)
            assert closed_by_peer(peer)
        assert node.echo(), "the flood is over"


NOT_TLS = {
    "garbage": (b"\xde\xad\xbe\xef" * 64, "not TLS"),
    "a plain A-ASSOCIATE-RQ": (request_pdu(), "not TLS: found a plain DICOM A-ASSOCIATE-RQ"),
    "an HTTP request": (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", "not TLS"),
    "an SSL 2 hello": (b"\x80\x2e\x01\x00\x02" + bytes(43), "protocol version"),
    "a TLS record of garbage": (b"\x16\x03\x01\x00\x10" + b"\xff" * 16, "tls failure"),
    "a record of the greatest length": (b"\x16\x03\x01\xff\xff" + bytes(70_000), "tls failure"),
}


@pytest.fixture(scope="module")
def node(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node for the tests that only knock."""
    home = shutil.copytree(template_home, tmp_path_factory.mktemp("knock") / "home")
    with Node(Path(home), STOP + PLAIN_LISTENER.format(identity="supports")) as running:
        yield running


@pytest.mark.parametrize("case", NOT_TLS)
def test_what_is_no_TLS(case: str, node: Node) -> None:
    data, words = NOT_TLS[case]
    # One address for each case: alerts are counted by address.
    source = f"127.0.10.{1 + list(NOT_TLS).index(case)}"
    with tcp(node.port, source) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        assert closed_by_peer(sock)
    node.wait_for_audit(lambda one: source in one.users and words in one.words, words)
    node.wait_for_log("WARNING", source, words)


def test_TLS_on_a_plain_listener(node: Node) -> None:
    assert not node.echo(port=node.ports["clear"])
    node.wait_for_alert("refused: unexpected TLS")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"\x01\x00\xff\xff\xff\xff", "4294967295"),
        (b"\x04\x00\x00\x00\x00\x10", ""),  # data before any association
        (b"\x63\x00\x00\x00\x00\x10", "unknown PDU type"),
    ],
)
def test_PS38_9_3_1_a_first_PDU_of_the_wrong_sort(header: bytes, words: str, node: Node) -> None:
    source = f"127.0.11.{header[0]}"
    with node.connect(source=source) as sock:
        sock.sendall(header + bytes(16))
        assert closed_by_peer(sock)
    node.wait_for_audit(
        lambda one: source in one.users and "not DICOM" in one.words and words in one.words,
        f"from {source}",
    )


# -- the association -----------------------------------------------------------------------


def test_PS38_9_3_1_a_PDU_of_4_GiB_in_the_association(node: Node) -> None:
    with Peer(node.connect()) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.sock.sendall(b"\x04\x00\xff\xff\xff\xff" + bytes(1000))
        assert peer.read()[0] in (ABORT, 0)
    node.wait_for_log("4294967295")
    assert node.echo()


def test_a_PDV_longer_than_its_PDU(node: Node) -> None:
    with Peer(node.connect()) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.sock.sendall(struct.pack(">BBLLBB", P_DATA, 0, 6, 0xFFFFFFFF, 1, 3))
        assert peer.read()[0] in (ABORT, 0)
    assert node.echo()


def test_an_abort_in_the_middle_of_a_C_STORE(node: Node) -> None:
    before = len(node.kept())
    with Peer(node.connect()) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.send(store_command(b"1.2.3.9.1"), 3)
        peer.send(small_ct(b"1.2.3.9.1")[:40], 0)
        parts.wait_until(node.incoming, "a data set coming in")
        peer.sock.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00")
        assert closed_by_peer(peer.sock)
    node.wait_for_log("aborted")
    parts.wait_until(lambda: not node.incoming(), "nothing left behind")
    assert len(node.kept()) == before


def test_a_peer_that_vanishes_in_the_middle_of_a_C_STORE(node: Node) -> None:
    before = len(node.kept())
    with Peer(node.connect()) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.send(store_command(b"1.2.3.9.2"), 3)
        peer.send(small_ct(b"1.2.3.9.2")[:40], 0)
        parts.wait_until(node.incoming, "a data set coming in")
        # RST, as a machine that was switched off would answer.
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    node.wait_for_log("lost")
    parts.wait_until(lambda: not node.incoming(), "nothing left behind")
    assert len(node.kept()) == before
    assert node.echo()


@pytest.mark.parametrize("how", ["abort", "vanish"])
def test_A537_what_came_before_the_end_is_audited(how: str, home: Path) -> None:
    with Node(home) as node:
        with Peer(node.connect()) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            assert peer.store(b"1.2.3.1", small_ct(b"1.2.3.1")) == 0
            peer.send(store_command(b"1.2.3.2"), 3)
            peer.send(small_ct(b"1.2.3.2")[:40], 0)
            parts.wait_until(node.incoming, "the second data set coming in")
            if how == "abort":
                peer.sock.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00")
        moved = node.wait_for_audit(lambda one: one.event == TRANSFERRED and one.outcome == 0)
        assert moved.instances == 1
        assert len(node.kept()) == 1


def test_a_C_STORE_that_broke_off_is_audited_as_failed(home: Path) -> None:
    with Node(home) as node:
        with Peer(node.connect()) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            peer.send(store_command(b"1.2.3.2"), 3)
            peer.send(small_ct(b"1.2.3.2")[:40], 0)
            parts.wait_until(node.incoming, "the data set coming in")
        node.wait_for_audit(
            lambda one: one.event == TRANSFERRED and one.outcome != 0, "of a broken transfer"
        )


def test_PS37_9_1_a_message_id_is_free_again_after_its_answer(node: Node) -> None:
    """And the answer may reach a fast peer before the node has put the request away."""
    with Peer(node.connect()) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        for count in range(300):
            uid = b"1.2.3.77.%d" % count
            assert peer.store(uid, small_ct(uid), message_id=1) == 0, f"at instance {count}"


def test_a_peer_that_never_reads(home: Path) -> None:
    with Node(home, STOP) as node:
        sock = tcp(node.port)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        pki = home / "pki"
        context = node.tls_client(pki / "client.crt", pki / "client.key")
        with Peer(context.wrap_socket(sock, server_hostname="127.0.0.1")) as deaf:
            assert deaf.associate(request_pdu())[0] == ASSOCIATE_AC
            # Requests whose answers fill every buffer on the way back.
            deaf.sock.settimeout(0.5)
            with contextlib.suppress(TimeoutError, OSError):
                for _ in range(200_000):
                    deaf.send(ECHO, 3)
            assert node.echo()
            assert node.stop() == 0


def test_a_flood_of_failed_handshakes_pushes_nothing_out(home: Path) -> None:
    """A repository that is away and a small spool: the flood must not fill it."""
    settings = f"""
[[audit.repository]]
name = "away"
host = "127.0.0.1"
port = {parts.free_port()}
trust = ["pki/ca.crt"]
"""
    change = {'when_full = "refuse"': 'when_full = "refuse"\nspool_limit = 20'}
    with Node(home, settings, change=change) as node:
        assert node.echo()
        for number in range(300):
            with tcp(node.port, f"127.0.20.{1 + number % 3}") as sock:
                sock.sendall(b"garbage %d" % number)
                closed_by_peer(sock)
        parts.wait_until(lambda: node.log.count("not TLS") >= 300, "every refusal in the log")
        assert len(node.records(ALERT)) < 15
        assert node.echo(), "the spool is not full"
        assert node.stop() == 0
        sums = [one.words for one in node.records(ALERT) if "more since" in one.words]
    assert sums, "and what was held back is summed up"
    counted = sum(int(found[1]) for words in sums if (found := re.search(r"\((\d+) more", words)))
    told = len(node.records(ALERT)) - len(sums)
    assert counted + told == 300


# -- what peers put into fields ------------------------------------------------------------

EVIL = b"\x1b[31m\r\n2026-01-01 00:00:00,000 INFO x: forged\x07\x7f\x00\xc2\x85\xe2\x80\xa8"


def _request(
    node: Node, request: bytes, instance: bytes | None = None, data_set: bytes = b""
) -> tuple[int, int]:
    """Associate, store one instance if given, and return the PDU type and the status."""
    with Peer(node.connect()) as peer:
        kind, _ = peer.associate(request)
        status = -1
        if kind == ASSOCIATE_AC and instance is not None:
            status = peer.store(instance, data_set)
        return kind, status


def test_control_characters_in_the_request(node: Node) -> None:
    """Refused or not, each line of the log stays one the node wrote."""
    titles = request_pdu(calling=EVIL[:16]).replace(b"NODE".ljust(16), EVIL[:16])
    for request in (
        titles,
        request_pdu(user_information=identity_item(1, EVIL)),
        request_pdu(user_information=identity_item(2, EVIL, EVIL)),
        request_pdu(user_information=identity_item(99, EVIL, EVIL)),
        request_pdu(user_information=b"\x55\0" + struct.pack(">H", 16) + EVIL[:16]),
        request_pdu(abstract=EVIL),
        request_pdu(application_context=EVIL),
    ):
        kind, _ = _request(node, request)
        assert kind in (ASSOCIATE_AC, ASSOCIATE_RJ, ABORT, 0)
    assert node.echo()
    node.check_log()
    node.records()


def test_control_characters_in_a_C_STORE(node: Node) -> None:
    request = request_pdu(abstract=b"1.2.840.10008.5.1.4.1.1.2")
    kind, status = _request(node, request, EVIL, small_ct(EVIL))
    assert kind == ASSOCIATE_AC
    assert status != 0
    assert node.echo()
    node.check_log()
    node.records()


def test_control_characters_in_the_name_of_a_certificate(home: Path) -> None:
    name = "evil\r\n2026-01-01 00:00:00,000 INFO x: forged\x1b[31m"
    leaf = Ca("Unknown\nCA").write(home.parent / "evil", "evil", common_name=name)
    with Node(home) as node:
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            sock = node.connect(context=node.tls_client(leaf.crt, leaf.key))
            closed_by_peer(sock)
            sock.close()
        alert = node.wait_for_alert("refused: unknown issuer")
        assert "\n" not in alert.words


PATHS = [
    b"../../../../tmp/escaped",
    b"/tmp/escaped",
    b"1.2.3/../../escaped",
    b"..",
    b"1.2.3\0.4",
    b"1." * 5000 + b"1",
    b"",
]


@pytest.mark.parametrize("instance", PATHS, ids=lambda uid: repr(uid[:24]))
def test_PS35_9_1_a_UID_that_is_none(instance: bytes, node: Node) -> None:
    files = {one for one in node.home.rglob("*") if "incoming" not in one.parts}
    request = request_pdu(abstract=b"1.2.840.10008.5.1.4.1.1.2")
    kind, status = _request(node, request, instance, small_ct(instance))
    assert kind == ASSOCIATE_AC
    assert status != 0
    new = {one for one in node.home.rglob("*") if "incoming" not in one.parts} - files
    assert not {one for one in new if one.suffix == ".dcm"}
    assert not Path("/tmp/escaped").exists()
    assert node.echo()


def test_10_000_characters_in_each_field(node: Node) -> None:
    long = b"A" * 10_000
    good = request_pdu()
    for request in (
        good[:10] + long + good[26:],  # the AE title; everything behind it moves
        request_pdu(user_information=identity_item(1, long)),
        request_pdu(user_information=identity_item(2, long, long)),
        request_pdu(user_information=b"\x55\0" + struct.pack(">H", len(long)) + long),
        request_pdu(user_information=b"\x52\0" + struct.pack(">H", len(long)) + long),
        request_pdu(abstract=b"1." * 5000 + b"1"),
        request_pdu(application_context=b"1." * 5000 + b"1"),
    ):
        fixed = request[:2] + (len(request) - 6).to_bytes(4, "big") + request[6:]
        kind, _ = _request(node, fixed)
        assert kind in (ASSOCIATE_AC, ASSOCIATE_RJ, ABORT, 0)
    assert node.echo()
    assert max(map(len, node.log.splitlines())) < 2000, "and the log stays readable"
    node.records()


def test_a_refusal_by_name_names_the_field(node: Node) -> None:
    with Peer(node.connect()) as peer:
        item = identity_item(2, b"A" * 10_000, b"x")
        assert peer.associate(request_pdu(user_information=item))[0] == ASSOCIATE_RJ
    assert not [one for one in node.records(ALERT, RESTRICTED_FUNCTION) if "AAAA" in one.words]


def test_many_peers_at_once_while_others_are_stuck(node: Node) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(tcp(node.port))
        answers: list[bool] = []
        threads = [
            threading.Thread(
                target=lambda n=n: answers.append(_echo_from(node, f"127.0.30.{1 + n}"))
            )
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 20


def test_no_descriptor_and_no_thread_is_left_behind(node: Node) -> None:
    def open_now() -> tuple[int, int]:
        process = Path(f"/proc/{node.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    assert node.echo()
    parts.wait_until(lambda: open_now()[1] < 8, "threads of earlier tests gone")
    before = open_now()
    for _ in range(10):
        assert node.echo()
        with tcp(node.port) as sock:
            sock.sendall(b"garbage")
            closed_by_peer(sock)
        with Peer(node.connect()) as peer:
            peer.associate()
    parts.wait_until(lambda: open_now() <= before, f"back to {before}")
