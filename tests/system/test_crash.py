"""Pulling the plug in the middle of the work: nothing acknowledged is lost or unreported."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest

from tests import parts
from tests.system.raw import ASSOCIATE_AC, Peer, small_ct, store_command
from tests.system.repository import Collector
from tests.system.running import TRANSFERRED, Node, cli, data_set

SENDERS = 4


class Load:
    """Peers that store instance after instance, until the node is gone."""

    def __init__(self, node: Node, run: int) -> None:
        self.acknowledged: dict[bytes, bytes] = {}
        self._threads = [
            threading.Thread(target=self._send, args=(node, run, number))
            for number in range(SENDERS)
        ]

    def _send(self, node: Node, run: int, number: int) -> None:
        with suppress(OSError), Peer(node.connect(source=f"127.0.0.{10 + number}")) as peer:
            if peer.associate()[0] != ASSOCIATE_AC:
                return
            for count in range(100_000):
                uid = b"1.2.3.%d.%d.%d" % (run, number, count)
                instance = small_ct(uid, pixels=20_000)
                if peer.store(uid, instance) != 0:
                    return
                self.acknowledged[uid] = instance

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()


@pytest.mark.timeout(120)
def test_kill_9_under_load_and_restart(home: Path) -> None:
    acknowledged: dict[bytes, bytes] = {}
    pki = home / "pki"
    with Collector(pki / "node", pki / "ca.crt") as collector:
        node = Node(
            home,
            f'[[audit.repository]]\nname = "site"\nhost = "127.0.0.1"\nport = {collector.port}\n'
            'trust = ["pki/ca.crt"]\ncredential = ["pki/node"]\n',
        )
        for run, enough in enumerate((3, 40, 100)):
            node.start()
            with Load(node, run) as load:
                parts.wait_until(lambda: len(load.acknowledged) >= enough, "some load")  # noqa: B023
                node.kill()
            acknowledged |= load.acknowledged
        durable = {one.xml for one in node.records()}
        with node:
            parts.wait_until(
                lambda: durable <= {one.xml for one in collector.records},
                "every audit message that was on the disk in the repository",
            )
            assert not node.incoming(), "what was half received is gone"
            kept = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in
                    node.kept().values()}  # fmt: skip
            for uid, instance in acknowledged.items():
                assert data_set(kept[uid.decode()]) == instance
            moved = [one for one in node.records(TRANSFERRED) if one.outcome == 0]
            assert sum(one.instances for one in moved) >= len(acknowledged)
            assert any("restart" in one.words for one in moved)
            assert node.echo()
    verified = cli("archive", "verify", "--home", home)
    assert verified.returncode == 0, verified.stdout
    good = re.search(r"(\d+) good", verified.stdout)
    assert good, verified.stdout
    assert int(good[1]) >= len(acknowledged)


def test_no_instance_is_reported_twice_after_an_orderly_stop(home: Path) -> None:
    with Node(home) as node, Peer(node.connect()) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        for count in range(5):
            uid = b"1.2.3.4.%d" % count
            assert peer.store(uid, small_ct(uid)) == 0
    with Node(home) as again:
        moved = [one for one in again.records(TRANSFERRED) if one.outcome == 0]
        assert sum(one.instances for one in moved) == 5


def test_stopping_in_the_middle_of_a_C_STORE_waits_for_it(home: Path) -> None:
    with Node(home) as node:
        uid = b"1.2.3.4.99"
        instance = small_ct(uid)
        with Peer(node.connect()) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            peer.send(store_command(uid), 3)
            peer.send(instance[:40], 0)
            parts.wait_until(node.incoming, "the data set coming in")
            stopped: list[int] = []
            stopping = threading.Thread(target=lambda: stopped.append(node.stop()))
            stopping.start()
            node.wait_for_log("stopping")
            parts.wait_until(lambda: not parts.listening(node.port), "nobody new comes in")
            peer.send(instance[40:], 2)
            kind, _ = peer.read()
            assert kind == 4, "the answer to the request that was under way"
            stopping.join()
        assert stopped == [0]
        assert len(node.kept()) == 1
        moved = [one for one in node.records(TRANSFERRED) if one.outcome == 0]
        assert sum(one.instances for one in moved) == 1


def test_the_index_can_be_made_anew_after_it_is_lost(home: Path) -> None:
    with Node(home) as node, Peer(node.connect()) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        for count in range(5):
            uid = b"1.2.3.4.%d" % count
            assert peer.store(uid, small_ct(uid)) == 0
    for file in (home / "archive").glob("index.sqlite*"):
        file.unlink()
    assert cli("archive", "rebuild", "--home", home).returncode == 0
    verified = cli("archive", "verify", "--home", home)
    assert "5 good" in verified.stdout
