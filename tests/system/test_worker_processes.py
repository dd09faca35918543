"""One node of several processes: its peers notice nothing of them, and neither does an auditor."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from dicom_secure_node import SecureNode
from tests import parts
from tests.identity import tokens
from tests.loopback import CT_SMALL
from tests.system.raw import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    PLAIN_LISTENER,
    Peer,
    small_ct,
    store_command,
)
from tests.system.running import (
    ALERT,
    APPLICATION,
    COMMAND,
    CONFIGURATION,
    LOGIN,
    RESTRICTED_FUNCTION,
    TRANSFERRED,
    Node,
    cli,
    closed_by_peer,
    configure,
    data_set,
    tcp,
)

TWO = {"[node]\n": "[node]\nworkers = 2\n"}
BEGUN = "110102"
START, STOP = "110120", "110121"


def children(pid: int) -> set[int]:
    """Return the process ids of a process's children."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def workers(node: Node) -> set[int]:
    """Return the process ids of a node's workers, also of those that are not ready."""
    return children(node.pid)


def alive(pid: int) -> bool:
    """Tell whether a process is there, and not only its exit code."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def by_process(node: Node, kind: str = "", event: str = "") -> Counter[str]:
    """Return how many audit messages each worker wrote."""
    pids = {str(pid) for pid in workers(node)}
    return Counter(pid for one in node.records(event, kind) for pid in one.users if pid in pids)


@pytest.fixture(scope="module")
def shared(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of two workers for the tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("workers")
    home = Path(shutil.copytree(template_home, folder / "home"))
    added = cli("user", "add", "--home", home, "ada", stdin="right-passcode\n")
    assert added.returncode == 0, added.stderr
    keys = tokens.write_keys(folder / "keys.json")
    settings = (
        f'[identity]\ntypes = ["passcode", "jwt"]\n[identity.lockout]\nfailures = 4\n'
        f'[identity.jwt]\nissuer = "{tokens.ISSUER}"\naudience = "{tokens.AUDIENCE}"\n'
        f'jwks = "{keys}"\none_time = true\n'
    )
    change = {**TWO, '[identity]\ntypes = ["passcode"]\n': ""}
    with Node(home, settings, change=change) as node:
        yield node


# -- what peers see ------------------------------------------------------------------------


def test_associations_are_spread_and_what_they_bring_is_kept_bit_by_bit(shared: Node) -> None:
    before = by_process(shared, event=BEGUN)
    instances = {b"1.2.3.7.%d" % n: small_ct(b"1.2.3.7.%d" % n, pixels=5_000 + n) for n in range(4)}
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(shared.connect())) for _ in instances]
        for peer in peers:
            assert peer.associate()[0] == ASSOCIATE_AC
        for peer, (uid, instance) in zip(peers, instances.items(), strict=True):
            assert peer.store(uid, instance) == 0
    kept = {data_set(path) for path in shared.kept().values()}
    assert kept >= set(instances.values())
    assert sorted((by_process(shared, event=BEGUN) - before).values()) == [2, 2]


def test_what_a_worker_starts_inherits_none_of_its_descriptors(shared: Node) -> None:
    for pid in workers(shared):
        for path in Path(f"/proc/{pid}/fdinfo").iterdir():
            if int(path.name) > 2:
                (flags,) = re.findall(r"^flags:\s*(\d+)$", path.read_text(), re.MULTILINE)
                assert int(flags, 8) & os.O_CLOEXEC, path.name


def test_storescu_is_served_by_whichever_worker(shared: Node) -> None:
    argv = ["storescu", *shared.credential(), "127.0.0.1", str(shared.port), str(CT_SMALL)]
    for _ in range(2):
        assert parts.run(argv).returncode == 0


def test_a_token_used_once_is_refused_by_the_other_worker(shared: Node, tmp_path: Path) -> None:
    now = int(time.time())
    token = tmp_path / "token"
    token.write_bytes(tokens.signed(tokens.but(iat=now - 10, exp=now + 300, jti="once")))
    where = ["127.0.0.1", str(shared.port), str(CT_SMALL)]
    argv = ["storescu", "-v", *shared.credential(), "--jwt", str(token), "-rsp", *where]
    first = parts.run(argv)
    assert first.returncode == 0, first.stdout + first.stderr
    again = parts.run(argv)
    assert "Rejected Permanent" in again.stdout + again.stderr
    refused = shared.wait_for_audit(lambda one: one.kind == LOGIN and "used" in one.words)
    taken = next(one for one in shared.records(kind=LOGIN) if one.outcome == 0)
    pids = {str(pid) for pid in workers(shared)}
    assert pids & set(refused.users) != pids & set(taken.users), "not the same process"


def test_failures_with_any_worker_count_for_the_lock_out(shared: Node) -> None:
    def send(passcode: str) -> int:
        argv = ["storescu", *shared.credential(), "-usr", "ada", "-pwd", passcode]
        return parts.run([*argv, "127.0.0.1", str(shared.port), str(CT_SMALL)]).returncode

    for _ in range(4):
        assert send("wrong") != 0
    assert send("right-passcode") != 0
    shared.wait_for_audit(
        lambda one: one.event == ALERT and "locked after too many" in one.words, "the alert"
    )
    shared.wait_for_audit(lambda one: "locked after 4 failures" in one.words, "the reason")


def test_a_renewed_certificate_is_served_by_all(home: Path) -> None:
    def certificates(node: Node) -> list[bytes]:
        with ExitStack() as stack:
            peers = [stack.enter_context(node.connect()) for _ in range(4)]
            return [peer.getpeercert(binary_form=True) or b"" for peer in peers]

    change = {**TWO, '["pki/node", "pki/node-ec"]': '["pki/node"]'}
    with Node(home, change=change) as node:
        (old,) = set(certificates(node))
        renewed = cli("pki", "issue", "node", "--renew", "--home", home)
        assert renewed.returncode == 0, renewed.stderr
        (new,) = set(certificates(node))
        assert new != old


def figures(node: Node) -> Any:
    """Return what the ``status`` verb says."""
    done = cli("status", "--home", node.home, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_figures_are_those_of_all_processes_also_of_one_that_was_killed(home: Path) -> None:
    with Node(home, change=TWO) as node, ExitStack() as stack:
        peers = [stack.enter_context(Peer(node.connect())) for _ in range(4)]
        for number, peer in enumerate(peers):
            assert peer.associate()[0] == ASSOCIATE_AC
            assert peer.store(b"1.2.3.6.%d" % number, small_ct(b"1.2.3.6.%d" % number)) == 0
        shown = figures(node)
        assert shown["pid"] == node.pid
        assert shown["associations"]["accepted"] == shown["associations"]["open"] == 4
        assert shown["connections"]["open"] == 4
        assert shown["stores"]["kept"] == 4
        os.kill(min(workers(node)), signal.SIGKILL)
        node.wait_for_alert("worker process", kind=CONFIGURATION)
        shown = figures(node)
        assert shown["associations"]["accepted"] == 4
        assert shown["associations"]["open"] == shown["connections"]["open"] == 2
        assert shown["stores"]["kept"] == 4


# -- limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, TWO], ids=["one process", "two workers"])
def test_connections_of_an_address_are_counted_over_listeners_and_workers(
    home: Path, change: Mapping[str, str]
) -> None:
    settings = "[limits]\nconnections_per_address = 3\nstop_seconds = 1.0\n"
    settings += PLAIN_LISTENER.format(identity="not-supported")
    with Node(home, settings, change=change) as node:
        with ExitStack() as stack:
            peers = [Peer(node.connect()), Peer(node.connect()), Peer(tcp(node.ports["clear"]))]
            for peer in map(stack.enter_context, peers):
                assert peer.associate()[0] == ASSOCIATE_AC
            assert closed_by_peer(stack.enter_context(tcp(node.port)))
            node.wait_for_alert("3 connections are open from this address")
            node.connect(source="127.0.0.2").close()
        parts.wait_until(node.echo, "a place, when those are gone")


def test_the_oldest_that_waits_is_ended_whichever_worker_has_it(home: Path) -> None:
    settings = "[limits]\nconnections = 4\nstop_seconds = 1.0\n"
    with Node(home, settings, change=TWO) as node, ExitStack() as stack:
        silent = [stack.enter_context(tcp(node.port, f"127.0.0.{n}")) for n in (11, 12, 13)]
        silent[0].settimeout(20)
        assert closed_by_peer(silent[0])
        node.wait_for_alert("too many connections without an association")
        silent[2].setblocking(False)
        with pytest.raises(BlockingIOError):
            silent[2].recv(1)


@pytest.mark.parametrize("change", [{}, TWO], ids=["one process", "two workers"])
def test_PS38_9_21_associations_are_counted_over_workers(
    home: Path, change: Mapping[str, str]
) -> None:
    settings = "[limits]\nassociations = 2\nstop_seconds = 1.0\n"
    with Node(home, settings, change=change) as node:
        with ExitStack() as stack:
            for _ in range(2):
                peer = stack.enter_context(Peer(node.connect()))
                assert peer.associate()[0] == ASSOCIATE_AC
            kind, body = stack.enter_context(Peer(node.connect())).associate()
            assert (kind, *body[1:4]) == (ASSOCIATE_RJ, 2, 3, 2)
            node.wait_for_alert("too many associations are open", kind=RESTRICTED_FUNCTION)
        parts.wait_until(node.echo, "a place, when those are gone")


# -- start and stop ------------------------------------------------------------------------


def test_one_trail_one_start_one_stop_and_nothing_stays_behind(home: Path) -> None:
    with Node(home, change=TWO) as node:
        pids = workers(node)
        assert len(pids) == 2
        for _ in range(4):
            assert node.echo()
        with Peer(node.connect()) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            uid = b"1.2.3.4.99"
            instance = small_ct(uid)
            peer.send(store_command(uid), 3)
            peer.send(instance[:40], 0)
            parts.wait_until(node.incoming, "the data set coming in")
            stopped: list[int] = []
            stopping = threading.Thread(target=lambda: stopped.append(node.stop()))
            port = node.port
            stopping.start()
            node.wait_for_log("stopping")
            parts.wait_until(lambda: not parts.listening(port), "nobody new comes in")
            peer.send(instance[40:], 2)
            assert peer.read()[0] == 4, "the answer to the request that was under way"
            stopping.join()
    assert stopped == [0]
    assert not [pid for pid in pids if alive(pid)]
    assert sorted(one.name for one in (home / "archive" / "incoming").iterdir()) == [".lock"]
    assert [one.kind for one in node.records(APPLICATION)] == [START, STOP]
    assert sum(one.instances for one in node.records(TRANSFERRED) if one.outcome == 0) == 1
    lines = [
        line
        for segment in sorted((home / "audit").glob("*.ndjson"))
        for line in segment.read_text().splitlines()
    ]
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert node.log.count("listening on") == 1


def test_a_port_in_use_is_told_before_any_worker_starts(home: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as busy:
        Node(home, change=TWO)
        done = cli("serve", "--home", home, "--port", str(busy.getsockname()[1]))
    assert done.returncode == 3
    assert "error: listener" in done.stderr


def test_what_keeps_a_worker_from_starting_is_one_line(home: Path) -> None:
    (home / "pki" / "node.key").write_bytes((home / "pki" / "client.key").read_bytes())
    Node(home, change=TWO)
    done = cli("serve", "--home", home, "--port", "0")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if "dicom-secure-node: error: " in line]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_the_second_signal_ends_everything_at_once(home: Path) -> None:
    with Node(home, change=TWO) as node, Peer(node.connect()) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.send(store_command(b"1.2.3.9"), 3)
        pids = workers(node)
        os.kill(node.pid, signal.SIGTERM)
        node.wait_for_log("stopping")
        assert node.stop() == -signal.SIGTERM
        parts.wait_until(lambda: not [pid for pid in pids if alive(pid)], "the workers' end")


def test_in_a_program_all_is_done_in_one_process(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configure(home, "", TWO)
    caplog.set_level("INFO")
    with SecureNode(home / "node.toml") as node:
        node.start()
        assert "workers: all is done in this process" in caplog.text


def test_a_passphrase_is_asked_once_for_all_and_their_successors(home: Path) -> None:
    path = home / "pki" / "node.key"
    key = load_pem_private_key(path.read_bytes(), None)
    secret = BestAvailableEncryption(b"swordfish")
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    node = Node(home, change={**TWO, '["pki/node", "pki/node-ec"]': '["pki/node"]'})
    terminal, theirs = os.openpty()
    argv = [*COMMAND, "serve", "--home", str(home), "--port", "0"]
    with node.log_file.open("ab") as log:
        serve = subprocess.Popen(
            argv, stdin=theirs, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
    try:
        parts.wait_until(lambda: "Passphrase of the keys of listener tls" in node.log, "asking")
        os.write(terminal, b"swordfish\n")
        parts.wait_until(lambda: "listening on" in node.log, "the node listening", 60)
        before = children(serve.pid)
        os.kill(min(before), signal.SIGKILL)
        parts.wait_until(lambda: children(serve.pid) - before, "a successor", 60)
        serve.terminate()
        assert serve.wait(60) == 0
    finally:
        serve.kill()
        serve.wait()
        os.close(terminal)
        os.close(theirs)
    assert node.log.count("Passphrase of") == 1
    assert "swordfish" not in node.log


# -- workers that end ----------------------------------------------------------------------


class Load:
    """Peers that store instance after instance, until they are told to stop or cut off."""

    def __init__(self, node: Node) -> None:
        self.acknowledged: dict[bytes, bytes] = {}
        self.stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(node, n)) for n in range(4)]

    def _send(self, node: Node, number: int) -> None:
        with suppress(OSError), Peer(node.connect()) as peer:
            if peer.associate()[0] != ASSOCIATE_AC:
                return
            for count in range(100_000):
                uid = b"1.2.8.%d.%d" % (number, count)
                instance = small_ct(uid, pixels=20_000)
                if self.stop.is_set() or peer.store(uid, instance) != 0:
                    return
                self.acknowledged[uid] = instance

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def check(self, node: Node) -> None:
        """Nothing acknowledged is lost."""
        paths = node.kept().values()
        kept = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in paths}
        for uid, instance in self.acknowledged.items():
            assert data_set(kept[uid.decode()]) == instance


def test_a_worker_killed_loses_nothing_acknowledged_and_is_replaced(home: Path) -> None:
    with Node(home, change=TWO) as node:
        pids = workers(node)
        victim = min(pids)
        with Load(node) as load:
            parts.wait_until(lambda: len(load.acknowledged) > 40, "some load")
            os.kill(victim, signal.SIGKILL)
            node.wait_for_alert("worker process", "signal 9", kind=CONFIGURATION)
            more = len(load.acknowledged)
            parts.wait_until(lambda: len(load.acknowledged) > more, "the other one going on")
        parts.wait_until(lambda: len(workers(node) - pids) == 1, "a successor")
        successor = str((workers(node) - pids).pop())

        def served_by_it() -> bool:
            return parts.run(storing).returncode == 0 and any(
                successor in one.users for one in node.records(BEGUN)
            )

        storing = ["storescu", *node.credential(), "127.0.0.1", str(node.port), str(CT_SMALL)]
        parts.wait_until(served_by_it, "the successor at work", 60)
        load.check(node)

        def reported() -> int:
            moved = [one for one in node.records(TRANSFERRED) if one.outcome == 0]
            created = [one for one in moved if 'EventActionCode="C"' in one.xml]
            return sum(one.instances for one in created)

        parts.wait_until(lambda: reported() == len(node.kept()), "each instance reported once")
        assert any("worker process ended" in one.words for one in node.records(TRANSFERRED))
        assert not node.incoming(), "what was half received is gone"


def test_a_worker_told_to_end_finishes_and_is_replaced_without_an_alarm(home: Path) -> None:
    with Node(home, change=TWO) as node:
        pids = workers(node)
        os.kill(min(pids), signal.SIGTERM)
        parts.wait_until(lambda: workers(node) - pids, "a successor")
        assert not alive(min(pids))
        assert node.echo()
        assert not node.records(ALERT)


def test_workers_end_with_their_supervisor(home: Path) -> None:
    node = Node(home, change=TWO).start()
    pids = workers(node)
    with Load(node) as load:
        parts.wait_until(lambda: len(load.acknowledged) > 20, "some load")
        node.kill()
        parts.wait_until(lambda: not [pid for pid in pids if alive(pid)], "the workers' end")
    with node:
        load.check(node)
        assert not node.incoming()
        moved = [one for one in node.records(TRANSFERRED) if one.outcome == 0]
        assert sum(one.instances for one in moved) >= len(load.acknowledged)
