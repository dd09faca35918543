"""Kill it anywhere, fill the disk, break the disk: what was acknowledged is there, whole."""

from __future__ import annotations

import itertools
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_secure_node.archive import Archive
from tests import parts
from tests.archive.instances import files, stored_bytes
from tests.archive.storing import instance, uid

PROGRAM = Path(__file__).with_name("storing.py")
STRACE = ("-f", "-y", "-s", "200")


def storing(folder: Path, first: int, count: int, *more: int) -> list[str]:
    return [sys.executable, str(PROGRAM), str(folder), str(first), str(count), *map(str, more)]


def traced(
    tmp_path: Path, inject: str, folder: Path, first: int, count: int, *more: int
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the program with faults made by the kernel; return its end and the trace."""
    call = inject.partition(":")[0]
    trace = tmp_path / "trace"
    argv = ["strace", *STRACE, "-o", str(trace), "-e", f"trace={call}", "-e", f"inject={inject}"]
    done = parts.run(argv + storing(folder, first, count, *more))
    return done, trace.read_text()


def said(output: str, word: str) -> list[int]:
    return [int(line.split()[1]) for line in output.splitlines() if line.startswith(f"{word} ")]


def check_whole(folder: Path, acknowledged: list[int]) -> None:
    """Open the archive as after a restart; everything acknowledged is there, nothing is half."""
    with Archive(folder) as archive:
        assert list((folder / "incoming").glob("*.part")) == []
        assert len(list((folder / "incoming").glob("*.session"))) == 1  # ours
        for number in acknowledged:
            (entry,) = archive.find(uid(number))
            assert stored_bytes(folder / entry.path) == instance(number)
        assert all(not verdict.problem for verdict in archive.check())
        assert archive.counts().instances == len(files(folder))
        unaudited = [first.association_id for first in archive.unaudited()]
        assert set(map(str, acknowledged)) <= set(unaudited)


def test_kill_9_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    acknowledged: list[int] = []
    first = 0
    for lines in (1, 2, 3, 6, 9, 12):  # after how many lines it dies: also in mid-write
        with subprocess.Popen(
            storing(folder, first, 1000), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            output = "".join(itertools.islice(process.stdout, lines))
            process.kill()
            output += process.stdout.read()
        acknowledged += said(output, "kept")
        first += 1000
        check_whole(folder, acknowledged)
    assert len(acknowledged) >= 12


def test_another_process_puts_in_order_what_a_dead_one_left_and_leaves_the_living_alone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "archive"
    incoming = folder / "incoming"
    with Archive(folder) as archive:
        with subprocess.Popen(
            storing(folder, 0, 1000), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            output = "".join(itertools.islice(process.stdout, 8))
            archive.recover()
            assert len(list(incoming.glob("*.session"))) == 2, "it lives"
            process.kill()
            output += process.stdout.read()
        archive.recover()
        assert len(list(incoming.glob("*.session"))) == 1
        assert not list(incoming.glob("*.part"))
        acknowledged = said(output, "kept")
        assert archive.counts().instances == len(files(folder)) >= len(acknowledged) > 0
        archive.recover()  # nothing to do is nothing wrong
    check_whole(folder, acknowledged)


@pytest.mark.parametrize(
    ("call", "step"),
    [
        ("fsync", 1),
        ("renameat2", 1),
        ("write", 1),
        ("unlink", 1),
        ("flock", 1),
        ("pwrite64", 5),  # mostly SQLite's
    ],
)
def test_killed_at_each_system_call_it_is_whole_after_a_restart(
    tmp_path: Path, call: str, step: int
) -> None:
    """The kernel kills the program as it enters the Nth call, for every N until it survives."""
    folder = tmp_path / "archive"
    acknowledged: list[int] = []
    check_whole(folder, [])  # schema and folders are there: their calls are not what we look for
    for when in range(1, 100, step):
        done, _ = traced(tmp_path, f"{call}:signal=SIGKILL:when={when}", folder, when * 10, 2)
        acknowledged += said(done.stdout, "kept")
        check_whole(folder, acknowledged)
        if "closed" in done.stdout:
            break
    else:
        pytest.fail(f"more than {when} calls of {call}")
    assert when > 1
    assert acknowledged[-2:] == [when * 10, when * 10 + 1]  # it survived this once


def test_the_disk_has_it_before_the_peer_hears_of_it(tmp_path: Path) -> None:
    """write, fsync of the file, rename, fsync of the folder, the acknowledgement; a row later."""
    folder = tmp_path / "archive"
    trace = tmp_path / "trace"
    calls = "trace=write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat"
    done = parts.run(["strace", *STRACE, "-o", trace, "-e", calls, *storing(folder, 7, 1)])
    assert said(done.stdout, "kept") == [7]
    steps = {
        "write": rf"write\(\d+<{folder}/incoming/[^>]*\.part>",
        "header": rf"pwrite64\(\d+<{folder}/incoming/[^>]*\.part>",
        "fsync": rf"fsync\(\d+<{folder}/incoming/[^>]*\.part>\) += 0",
        "rename": rf'renameat2\(.*"{folder}/incoming/[^"]*\.part".*"{folder}/instances/..',
        "fsync folder": rf"fsync\(\d+<{folder}/instances/../?>\) += 0",
        "acknowledged": r'writev\(1<.*"kept',
        "index": rf"pwrite64\(\d+<{folder}/index\.sqlite-wal>",
    }
    order = [
        name
        for line in trace.read_text().splitlines()
        for name, pattern in steps.items()
        if re.search(pattern, line)
    ]
    order = [name for name, _ in itertools.groupby(order[order.index("write") :])]
    assert order[: len(steps)] == list(steps)


def calls_before_open(tmp_path: Path, call: str) -> int:
    """Return how many such calls the program makes until the archive is open."""
    trace = tmp_path / "trace"
    argv = ["strace", *STRACE, "-o", str(trace), "-e", f"trace={call},writev"]
    parts.run(argv + storing(tmp_path / "archive", 0, 0), check=True)
    lines = trace.read_text().splitlines()
    before = itertools.takewhile(lambda line: '"open' not in line, lines)
    return sum(f" {call}(" in line for line in before)


FAULTS = {
    "the data set finds no space": ("write", "ENOSPC", 4),
    "the data set is over quota": ("write", "EDQUOT", 4),
    "the header finds no space": ("pwrite64", "ENOSPC", 1),
    "a sync of file or folder fails": ("fsync", "EIO", 4),
    "the disk has turned read-only at the rename": ("renameat2", "EROFS", 2),
    "the disk has turned read-only at the start": ("openat", "EROFS", 4),
}


@pytest.mark.parametrize(("call", "error", "calls"), FAULTS.values(), ids=FAULTS)
def test_P4_B2_1_a_disk_that_fails_is_A700_and_loses_nothing(
    tmp_path: Path, call: str, error: str, calls: int
) -> None:
    """The kernel makes one call fail, then the next, and so on."""
    folder = tmp_path / "archive"
    check_whole(folder, [])
    start = calls_before_open(tmp_path, call)
    acknowledged: list[int] = []
    refusals = 0
    for when in range(start + 1, start + 1 + calls):
        done, trace = traced(tmp_path, f"{call}:error={error}:when={when}", folder, when * 10, 2)
        assert "(INJECTED)" in trace
        assert "closed" in done.stdout, done.stderr
        kept, refused = said(done.stdout, "kept"), said(done.stdout, "refused")
        assert sorted(kept + refused) == [when * 10, when * 10 + 1], done.stdout
        assert done.stdout.count(" 0xA700 ") == len(refused)
        refusals += len(refused)
        acknowledged += kept
        check_whole(folder, acknowledged)
    assert refusals == calls


def test_what_the_index_could_not_take_is_added_by_the_next_start(tmp_path: Path) -> None:
    """The file is in its place and acknowledged, the row is not there yet."""
    folder = tmp_path / "archive"
    check_whole(folder, [])
    start = calls_before_open(tmp_path, "pwrite64")
    # The first is the header's.
    done, _ = traced(tmp_path, f"pwrite64:error=ENOSPC:when={start + 2}", folder, 5, 1)
    assert said(done.stdout, "kept") == [5]
    assert "the next start adds what the index lacks: archive index: " in done.stderr
    check_whole(folder, [5])
    done = parts.run(storing(folder, 5, 1))  # the same again
    assert said(done.stdout, "kept") == [5]
    check_whole(folder, [5])


def test_a_file_larger_than_allowed_is_A700(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: what a real write says when it may not go on."""
    folder = tmp_path / "archive"
    check_whole(folder, [])
    done = subprocess.run(
        storing(folder, 1, 1, 4_000_000),
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert "refused 1 0xA700 the archive's disk: File too large" in done.stdout
    assert "closed" in done.stdout
    check_whole(folder, [])
    assert files(folder) == []
