"""A repository that is killed, filled up, flooded and lied to: what it says it has, it has."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import resource
import signal
import socket
import ssl
import struct
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_secure_node.audit.trail import AuditTrail
from dicom_secure_node.audit.transport import Repository as Target
from tests import parts
from tests.audit.collected import syslog
from tests.audit.samples import SOURCE, every_kind, octets
from tests.system.collecting import Repository, frame, memory_of
from tests.system.test_collect_senders import client_context

SAMPLES = [syslog(octets(message)) for message in every_kind().values()]


def numbered(number: int) -> bytes:
    return b"<85>1 - - - - - - message %06d " % number + b"x" * 400


def numbers(stored: list[bytes]) -> list[int]:
    return [int(one.split()[8]) for one in stored]


# --- Killed ---


def test_killed_under_load(home: Path, tmp_path: Path) -> None:
    """Our own sender, and five kills: everything arrives, in order, and the chain is whole."""
    repository = Repository(home, "segment_bytes = 65536", port=parts.free_port())
    target = Target(
        "site", "127.0.0.1", repository.port, context=client_context(home), back_off=(0.1,)
    )
    trail = AuditTrail(tmp_path / "trail", SOURCE, [target])
    trail.start()
    sent = list(every_kind().values()) * 15
    done = threading.Event()

    def emit() -> None:
        for message in sent:
            trail.emit(message)
        done.set()

    emitting = threading.Thread(target=emit)
    repository.start()
    emitting.start()
    try:
        for _ in range(5):
            before = len(repository.stored())
            repository.wait_for(
                lambda stored, before=before: len(stored) > before + 30 or done.is_set(), "more"
            )
            repository.kill()
            repository.start()
        emitting.join()
        parts.wait_until(
            lambda: (
                {x.partition(b"\xef\xbb\xbf")[2] for x in repository.stored()} >= in_trail(trail)
            ),
            "everything",
            60,
        )
    finally:
        emitting.join()
        trail.stop()
        code = repository.stop()
    assert code == 0
    seen = [x.partition(b"\xef\xbb\xbf")[2] for x in repository.stored()]
    first_seen = list(dict.fromkeys(seen))
    assert [x for x in first_seen if x in in_trail(trail)] == first_seen, "nothing made up"
    done_verifying = repository.verify("--no-index", "--expect-in", str(repository.log_file))
    assert (done_verifying.returncode, done_verifying.stdout) == (0, done_verifying.stdout)


def in_trail(trail: AuditTrail) -> set[bytes]:
    folder = trail.journal.folder
    return {
        json.loads(line)["xml"].encode()
        for path in sorted(folder.glob("audit-*.ndjson"))
        for line in path.read_bytes().splitlines()
    }


def test_what_was_confirmed_by_close_notify_survives_a_kill(home: Path) -> None:
    """The answer to close_notify is the nearest to a receipt there is in syslog."""
    with Repository(home) as repository:
        for number in range(20):
            with repository.connect() as secure:
                secure.sendall(frame(numbered(number)))
                secure.unwrap()
        repository.kill()
        assert numbers(repository.stored()) == list(range(20))
        repository.start()
        assert repository.verify().returncode == 0


def test_the_index_catches_up_after_a_kill(home: Path) -> None:
    with Repository(home) as repository:
        with repository.connect() as secure:
            secure.sendall(frame(*SAMPLES * 20))
            secure.unwrap()
        repository.kill()
        repository.start()
        found = repository.indexed(len(SAMPLES) * 20)
        assert [one.raw for one in reversed(found)] == SAMPLES * 20
        assert repository.verify().returncode == 0


def test_a_log_cut_off_while_nobody_looked(home: Path) -> None:
    """The start says so, in the log and in the record; heads logged before say it for ever."""
    repository = Repository(home)
    with repository:
        with repository.connect() as secure:
            secure.sendall(frame(*SAMPLES))
            secure.unwrap()
        repository.indexed(len(SAMPLES))
    path = max(repository.folder.glob("records-*.ndjson"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-5]))
    with repository:
        assert "verify-log" in repository.wait_for_log("ERROR", "missing or changed")
        repository.wait_for_log("head")
        found = repository.verify("--expect-in", str(repository.log_file))
        assert found.returncode == 1
        assert "lost: " in found.stdout
        assert "truncated: " in found.stdout or "replaced: " in found.stdout, "by its heads"
    assert repository.verify().returncode == 1


# --- The disk ---


def test_the_disk_is_full(home: Path) -> None:
    """Senders over TLS are not read from and keep their messages; then it goes on by itself.

    The limit of a file's size is a full disk one can lift again without being root.
    """
    with Repository(home, "buffer = 65536\nsegment_bytes = 1073741824", udp=True) as repository:
        pid = repository.pid
        limit = 400_000
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        count = 40_000
        with repository.connect() as secure:
            sending = threading.Thread(
                target=lambda: [
                    secure.sendall(frame(*(numbered(n + m) for m in range(100))))
                    for n in range(0, count, 100)
                ]
            )
            sending.start()
            repository.wait_for_log("ERROR", "nothing is received until it can be written")
            parts.wait_until(lambda: waits_for_room(secure), "a sender that waits")
            assert sending.is_alive(), "its queue is its own"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.sendto(b"<85>1 lost", ("127.0.0.1", repository.udp_port))
            repository.wait_for_log("WARNING", "datagrams are lost: no room")
            assert memory_of(pid) < 200 * 1024 * 1024
            resource.prlimit(
                pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            sending.join()
            secure.unwrap()
        repository.wait_for_log("written again; datagrams lost so far: 1")
        assert numbers(repository.stored()) == list(range(count))
        assert repository.verify("--no-index").returncode == 0


def waits_for_room(secure: ssl.SSLSocket) -> bool:
    """Tell whether the other side's window is shut, or about to be."""
    (octets,) = struct.unpack("i", fcntl.ioctl(secure.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    return bool(octets > 100_000)


def test_stopped_with_a_full_disk(home: Path) -> None:
    """It ends all the same, and the sender does not get a close_notify that would be a lie."""
    with Repository(home, "segment_bytes = 1073741824") as repository:
        resource.prlimit(repository.pid, resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        with repository.connect() as secure:
            secure.sendall(frame(*[numbered(n) for n in range(20)]))
            repository.wait_for_log("ERROR", "nothing is received")
            assert repository.stop() == 0
            with pytest.raises(OSError):  # noqa: PT011 - how it breaks off is TCP's matter
                secure.unwrap()
        assert "20 messages were received and could not be written" in repository.log
        assert repository.stored() == []


# --- Lies ---

BROKEN = {
    "garbage between frames": (frame(b"<85>1 a") + b"\x00\x01garbage" + frame(b"<85>1 b"), 1),
    "another protocol": (b"GET / HTTP/1.1\r\n\r\n", 0),
    "a length with a leading zero": (frame(b"<85>1 a") + b"09 <85>1 bbb", 1),
    "characters counted for octets": (b"7 <85>1 \xc3\xbc" + frame(b"<85>1 b"), 1),
}


@pytest.mark.parametrize(("sent", "kept"), BROKEN.values(), ids=BROKEN)
def test_out_of_step(sent: bytes, kept: int, home: Path) -> None:
    with Repository(home) as repository:
        with repository.connect() as secure:
            secure.sendall(sent)
            assert secure.recv(1) == b"", "closed in good order"
        repository.wait_for_log("WARNING", "out of step, closed: found")
        assert len(repository.stored()) == kept
        with repository.connect() as secure:  # others, and the same one again, are welcome
            secure.sendall(frame(b"<85>1 again"))
            secure.unwrap()
        assert repository.stored()[-1] == b"<85>1 again"


def test_messages_of_every_length(home: Path) -> None:
    limit = 65_536
    sizes = [1, 480, 2048, 8192, 32_768, limit, limit + 1, 1_000_000, 3, limit]
    with Repository(home, f"message_limit = {limit}") as repository:
        with repository.connect() as secure:
            for size in sizes:
                secure.sendall(frame(b"<" * size))
            secure.unwrap()
        assert [len(one) for one in repository.stored()] == [s for s in sizes if s <= limit]
        repository.wait_for_log("WARNING", f"refused a message of more than {limit} octets")
        assert repository.stop() == 0
        assert "oversized 2," in repository.log


def test_what_no_log_line_or_parser_should_trip_over(home: Path) -> None:
    hostile = [
        b"<85>1 - - - - - - \xef\xbb\xbf<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
        b"<85>1 \x1b[31m\r\nERROR dicom_secure_node: forged\x00\xff",
        b'{"seq": 1, "note": "deleted", "last": 99}',
        b"<" * 60_000,
        b"<85>1 - - - - - - " + b"<a>" * 15_000,
        b'<85>1 - - - - - - <AuditMessage a="' + b"&amp;" * 10_000 + b'"/>',
    ]
    with Repository(home) as repository:
        with repository.connect() as secure:
            secure.sendall(frame(*hostile))
            secure.unwrap()
        found = repository.indexed(len(hostile))
        assert [one.raw for one in reversed(found)] == hostile
        assert not any(one.valid for one in found)
        assert repository.verify().returncode == 0


def test_a_half_closed_connection(home: Path) -> None:
    """The sender has said all it will, and waits for our end."""
    with Repository(home) as repository:
        with repository.connect() as secure:
            secure.sendall(frame(*SAMPLES) + b"900 <85>1 broken off")
            socket.socket.shutdown(secure, socket.SHUT_WR)
            with contextlib.suppress(OSError):
                assert secure.recv(1) == b""
        repository.wait_for_log("within a message", f"{len(SAMPLES)} messages")
        assert repository.stored() == SAMPLES


def test_a_sender_that_vanishes(home: Path) -> None:
    with Repository(home) as repository:
        secure = repository.connect()
        secure.sendall(frame(*SAMPLES) + b"900 <85>1 broken off")
        repository.wait_for(lambda stored: len(stored) == len(SAMPLES), "what was whole")
        # A reset, as when the sender's machine starts anew.
        secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        socket.socket.close(secure)
        repository.wait_for_log("broken off", "within a message")


# --- Slow, many, much ---


@contextlib.contextmanager
def slow_connections(repository: Repository, number: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        found = []
        for place in range(number):
            peer = socket.create_connection(("127.0.0.1", repository.port), timeout=30)
            stack.enter_context(peer)
            if place % 2:
                peer.sendall(b"\x16\x03\x01")  # the beginning of a ClientHello
            found.append(peer)
        yield found


def test_a_hundred_slow_connections_hold_nobody(home: Path) -> None:
    settings = "connections_per_address = 200\nhandshake_seconds = 60"
    with Repository(home, settings) as repository, slow_connections(repository, 100) as slow:
        with repository.connect() as secure:
            # And one that is slow within a message.
            secure.sendall(b"900 <85>1 slow")
            with repository.connect() as other:
                other.sendall(frame(*SAMPLES))
                other.unwrap()
            assert repository.stored() == SAMPLES
        assert len(slow) == 100


def test_too_many_from_one_address(home: Path) -> None:
    with Repository(home, "connections_per_address = 3") as repository:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(repository.connect())
            with pytest.raises(OSError), repository.connect():  # noqa: PT011 - reset or end
                pass
            repository.wait_for_log("WARNING", "3 connections are open from this address")
        parts.wait_until(lambda: works(repository), "room again")


def works(repository: Repository) -> bool:
    try:
        with repository.connect() as secure:
            secure.sendall(frame(b"<85>1 hello"))
            secure.unwrap()
    except OSError:
        return False
    return True


def test_the_oldest_unfinished_handshake_makes_room(home: Path) -> None:
    settings = "connections = 20\nconnections_per_address = 20\nhandshake_seconds = 600"
    with Repository(home, settings) as repository, slow_connections(repository, 10) as slow:
        assert works(repository)
        assert slow[0].recv(100) == b"", "the oldest had to go"
        assert works(repository)


TIMES = {
    "a handshake that does not end": (
        "handshake_seconds = 0.5",
        b"",
        "the handshake took too long",
    ),
    "an idle connection": ("idle_seconds = 0.5", frame(b"<85>1 a"), "idle for too long"),
    "a message that does not end": (
        "frame_seconds = 0.5",
        b"90 <85>1 a",
        "a message took too long",
    ),
}


@pytest.mark.parametrize(("settings", "sent", "said"), TIMES.values(), ids=TIMES)
def test_time_is_bounded(settings: str, sent: bytes, said: str, home: Path) -> None:
    with Repository(home, settings) as repository:
        if sent:
            with repository.connect() as secure:
                secure.sendall(sent)
                assert secure.recv(1) == b"", "closed in good order"
        else:
            with socket.create_connection(("127.0.0.1", repository.port), timeout=30) as peer:
                peer.recv(100)
        repository.wait_for_log(said)


def test_a_message_in_drops_is_still_one(home: Path) -> None:
    with Repository(home) as repository:
        with repository.connect() as secure:
            for octet in frame(SAMPLES[0]):
                secure.sendall(bytes((octet,)))
            secure.unwrap()
        assert repository.stored() == [SAMPLES[0]]


def test_a_flood_from_many_at_once(home: Path) -> None:
    """Twenty connections as fast as they can: everything kept, memory bounded, in order each."""
    each, many = 1000, 20
    with Repository(home, "buffer = 1048576") as repository:

        def flood(sender: int) -> None:
            with repository.connect() as secure:
                for start in range(0, each, 50):
                    batch = [numbered(sender * each + start + n) for n in range(50)]
                    secure.sendall(frame(*batch))
                secure.unwrap()

        threads = [threading.Thread(target=flood, args=(n,)) for n in range(many)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert memory_of(repository.pid) < 300 * 1024 * 1024
        found = numbers(repository.stored())
        assert sorted(found) == list(range(each * many))
        for sender in range(many):
            mine = [n for n in found if n // each == sender]
            assert mine == sorted(mine)
        assert repository.verify("--no-index").returncode == 0


def test_datagrams_that_are_odd(home: Path) -> None:
    with Repository(home, "message_limit = 32768", udp=True) as repository:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for one in (b"", b"\xff" * 100, b"x" * 60_000, b"<85>1 good"):
                udp.sendto(one, ("127.0.0.1", repository.udp_port))
        repository.wait_for(lambda stored: stored == [b"\xff" * 100, b"<85>1 good"], "two")
        repository.wait_for_log("refused a message of more than 32768 octets")


def test_datagrams_the_system_drops_are_counted(home: Path) -> None:
    sent = 5000
    with Repository(home, udp=True) as repository:
        os.kill(repository.pid, signal.SIGSTOP)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for number in range(sent):
                udp.sendto(numbered(number) + b"x" * 3000, ("127.0.0.1", repository.udp_port))
            os.kill(repository.pid, signal.SIGCONT)
            # What was dropped is told with the next datagram that there is room for.
            ends = itertools.count(1)
            parts.wait_until(lambda: told(repository, udp, ends), "the last one stored")
            repository.wait_for_log("WARNING", "datagrams are lost: the system dropped them")
        assert repository.stop() == 0
        lost = int(repository.log.rpartition("lost ")[2].partition(",")[0])
        assert lost > 0
        assert lost + len(repository.stored()) == sent + next(ends) - 1


def told(repository: Repository, udp: socket.socket, ends: Iterator[int]) -> bool:
    udp.sendto(b"<85>1 end %d" % next(ends), ("127.0.0.1", repository.udp_port))
    return any(one.startswith(b"<85>1 end") for one in repository.stored())


# --- Stops ---


def test_a_stop_tells_the_senders_and_keeps_what_they_sent(home: Path) -> None:
    with Repository(home) as repository:
        with repository.connect() as secure:
            secure.sendall(frame(*SAMPLES))
            repository.wait_for_log("connected")
            stopping = threading.Thread(target=repository.stop)
            stopping.start()
            assert secure.recv(1) == b"", "close_notify"
            secure.sendall(frame(b"<85>1 was under way"))
            socket.socket.shutdown(secure, socket.SHUT_WR)
            stopping.join()
        assert repository.stored() == [*SAMPLES, b"<85>1 was under way"]


def children_of(pid: int) -> list[int]:
    """Return the processes a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def test_the_process_that_indexes_is_killed(home: Path) -> None:
    with Repository(home) as repository, repository.connect() as secure:
        secure.sendall(frame(*SAMPLES))
        repository.indexed(len(SAMPLES))
        for pid in children_of(repository.pid):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        repository.wait_for_log("ERROR", "the process that indexes ended (-9)")
        secure.sendall(frame(*SAMPLES))
        repository.indexed(2 * len(SAMPLES))


def test_postgresql_goes_away_and_comes_back(home: Path) -> None:
    """The index waits for it, nothing else does; its password is nowhere to be seen."""
    password = "correct-horse-9"
    with parts.postgres(password) as (server, url):
        url += "/postgres"
        with Repository(home, f'index = "{url}"') as repository:
            assert password not in Path(f"/proc/{repository.pid}/cmdline").read_text()
            for pid in children_of(repository.pid):
                assert password not in Path(f"/proc/{pid}/cmdline").read_text()
            with repository.connect() as secure:
                secure.sendall(frame(*SAMPLES))
                repository.indexed(len(SAMPLES), url=url)
                os.kill(server.pid, signal.SIGINT)  # at once, whoever is connected
                server.wait()
                secure.sendall(frame(*SAMPLES))
                secure.unwrap()
            assert len(repository.stored()) == 2 * len(SAMPLES)
            repository.wait_for_log("cannot index, trying again")
            server.stop()
            server.start()
            assert len(repository.indexed(2 * len(SAMPLES), url=url)) == 2 * len(SAMPLES)
            assert repository.verify().returncode == 0
        assert password not in repository.log


def test_several_judges(home: Path) -> None:
    with Repository(home, "judges = 3") as repository:
        with repository.connect() as secure:
            secure.sendall(frame(*SAMPLES * 10))
            secure.unwrap()
        found = repository.indexed(len(SAMPLES) * 10)
        assert [one.raw for one in reversed(found)] == SAMPLES * 10
        assert repository.verify().returncode == 0


@pytest.mark.parametrize("judges", [1, 3])
def test_no_process_is_left_behind_by_a_kill(judges: int, home: Path) -> None:
    with Repository(home, f"judges = {judges}") as repository:
        with repository.connect() as secure:
            secure.sendall(frame(*SAMPLES * 10))
            secure.unwrap()
        repository.indexed(1)
        children = children_of(repository.pid)
        children += [below for child in children for below in children_of(child)]
        assert len(children) > judges
        repository.kill()
        parts.wait_until(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "all gone"
        )
        repository.start()
