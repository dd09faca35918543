"""An audit record repository that is away, falls over or says no costs nobody a message."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom.data
import pytest

from tests import parts
from tests.certs import Ca
from tests.system.repository import Collector
from tests.system.running import TRANSFERRED, Node, Record

CT = Path(str(pydicom.data.get_testdata_file("CT_small.dcm")))


def to_repository(port: int, transport: str = "tls") -> str:
    """Return the table of a repository on this machine."""
    tls = 'trust = ["pki/ca.crt"]\ncredential = ["pki/node"]\n' if transport == "tls" else ""
    return (
        f'[[audit.repository]]\nname = "site"\nhost = "127.0.0.1"\nport = {port}\n'
        f'transport = "{transport}"\n{tls}'
    )


def send(node: Node, times: int = 1) -> None:
    """Send an instance in associations of their own."""
    for _ in range(times):
        argv = ["storescu", *node.credential(), "127.0.0.1", str(node.port), CT]
        parts.run(argv, check=True)


def in_rsyslog(folder: Path) -> set[str]:
    """Return the XML of the messages rsyslog has."""
    log = folder / "arrived.log"
    lines = log.read_bytes().splitlines() if log.exists() else []
    return {line.partition(b"\xef\xbb\xbf")[2].decode() for line in lines}


def in_store(node: Node) -> set[str]:
    """Return the XML of the messages in the node's own trail."""
    return {one.xml for one in node.records()}


def rsyslog(home: Path, folder: Path, port: int, **options: bool) -> parts.Part:
    """Return rsyslogd with the home's own CA."""
    pki = home / "pki"
    credential = {"ca": pki / "ca.crt", "crt": pki / "node.crt", "key": pki / "node.key"}
    return parts.rsyslog(folder, port=port, **credential, **options)


def test_away_at_the_start(home: Path, tmp_path: Path) -> None:
    port, folder = parts.free_port(), tmp_path / "rsyslog"
    with Node(home, to_repository(port)) as node:
        send(node, 2)
        node.wait_for_log("WARNING", "audit repository")
        with rsyslog(home, folder, port):
            parts.wait_until(
                lambda: in_store(node) <= in_rsyslog(folder), "everything in the repository"
            )
    assert node.log.count("audit repository") < 10, "not a line for each attempt"


def test_going_down_under_load(home: Path, tmp_path: Path) -> None:
    port, folder = parts.free_port(), tmp_path / "rsyslog"
    with Node(home, to_repository(port)) as node:
        with rsyslog(home, folder, port):
            send(node, 3)
            parts.wait_until(lambda: in_rsyslog(folder), "a first message")
        send(node, 3)  # it is away, and nobody who sends images notices
        with rsyslog(home, folder, port) as part:
            send(node, 3)
            part.kill()
        send(node, 3)
        with rsyslog(home, folder, port):
            parts.wait_until(
                lambda: in_store(node) <= in_rsyslog(folder), "everything in the repository"
            )
        assert len(node.records(TRANSFERRED)) == 12


@pytest.mark.parametrize("each", [1, 3])
def test_closing_after_a_few_messages(each: int, home: Path) -> None:
    """It reads what it wants to, closes in good order, and still gets everything in the end."""
    pki = home / "pki"
    with (
        Collector(pki / "node", pki / "ca.crt", each=each) as collector,
        Node(home, to_repository(collector.port)) as node,
    ):
        send(node, 2)
        parts.wait_until(
            lambda: in_store(node) <= {one.xml for one in collector.records},
            "everything in the repository",
            seconds=40,
        )
    assert collector.connections > 1


def test_closing_idle_connections(home: Path) -> None:
    pki = home / "pki"
    with (
        Collector(pki / "node", pki / "ca.crt", idle=0.5) as collector,
        Node(home, to_repository(collector.port)) as node,
    ):
        for _ in range(2):
            send(node)
            parts.wait_until(
                lambda: in_store(node) <= {one.xml for one in collector.records},
                "everything in the repository",
            )
        # Each end of a connection may bring what is uncertain once more, but not for ever.
        parts.wait_until(lambda: collector.quiet(4), "nothing sent where nothing happens", 40)
        assert len(collector.messages) < 6 * len(in_store(node))


def test_refusing_our_certificate(home: Path, tmp_path: Path) -> None:
    other = Ca("Other CA").anchor(tmp_path / "other.crt")
    pki = home / "pki"
    with Collector(pki / "node", other) as collector:
        with Node(home, to_repository(collector.port)) as node:
            send(node)
            line = node.wait_for_log("WARNING", "audit repository", "site")
            assert "alert" in line or "refused" in line
            assert not collector.messages
            assert node.stop() == 0
        moved = [one for one in node.records(TRANSFERRED) if one.outcome == 0]
        assert moved, "the trail has it, for later"
    with Collector(pki / "node", pki / "ca.crt") as good:
        change = {f"port = {collector.port}": f"port = {good.port}"}
        with Node(home, change=change) as again:
            parts.wait_until(
                lambda: in_store(again) <= {one.xml for one in good.records},
                "what waited, the refused times included",
            )


def test_a_repository_with_a_certificate_we_do_not_trust(home: Path, tmp_path: Path) -> None:
    leaf = Ca("Other CA").write(tmp_path, "other")
    with Collector(leaf.base, home / "pki" / "ca.crt") as collector:
        with Node(home, to_repository(collector.port)) as node:
            send(node)
            node.wait_for_log("WARNING", "audit repository", "unknown issuer")
        assert not collector.messages


def test_two_repositories_one_of_them_away(home: Path, tmp_path: Path) -> None:
    port, folder = parts.free_port(), tmp_path / "rsyslog"
    away = to_repository(parts.free_port()).replace('"site"', '"away"')
    with rsyslog(home, folder, port), Node(home, away + to_repository(port)) as node:
        send(node, 2)
        parts.wait_until(
            lambda: in_store(node) <= in_rsyslog(folder), "everything in the one that is there"
        )


def test_A7_over_UDP(home: Path, tmp_path: Path) -> None:
    port, folder = parts.free_port(), tmp_path / "rsyslog"
    with (
        parts.rsyslog(folder, port=port, udp=True),
        Node(home, to_repository(port, "udp")) as node,
    ):
        send(node, 2)
        parts.wait_until(
            lambda: in_store(node) <= in_rsyslog(folder), "everything in the repository"
        )


def test_a_full_spool_refuses_new_work_and_says_why(home: Path) -> None:
    change = {'when_full = "refuse"': 'when_full = "refuse"\nspool_limit = 5'}
    with Node(home, to_repository(parts.free_port()), change=change) as node:
        sent = 0
        argv = ["storescu", "-v", *node.credential(), "127.0.0.1", str(node.port), CT]
        while (done := parts.run(argv)).returncode == 0:
            sent += 1
            assert sent < 20, "the spool never fills"
        # PS3.8 Table 9-21: rejected-transient, presentation, temporary congestion.
        assert "Rejected Transient" in done.stdout + done.stderr
        node.wait_for_log("WARNING", "audit spool is full")
        assert len(node.kept()) == 1


def test_a_damaged_line_in_the_trail_stops_nothing(home: Path, tmp_path: Path) -> None:
    port, folder = parts.free_port(), tmp_path / "rsyslog"
    with Node(home) as node:
        send(node, 2)
    segment = next((home / "audit").glob("*.ndjson"))
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines) + b'{"seq": 99, "ti')  # torn by a power cut
    with rsyslog(home, folder, port), Node(home, to_repository(port)) as again:
        send(again)
        latest: list[Record] = again.records()[len(lines) :]
        parts.wait_until(lambda: {one.xml for one in latest} <= in_rsyslog(folder), "what is new")
        for line in segment.read_bytes().splitlines():
            json.loads(line)
