"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dicom_secure_node.durable.files import (
    fsync_folder,
    make_folder,
    rename_no_replace,
    replacing,
    write_all,
    write_atomically,
)
from tests import parts

ROOT = Path(__file__).parent.parent.parent


def python(
    code: str, *args: object, under: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    argv = [*under, sys.executable, "-c", code, *map(str, args)]
    return parts.run(argv, cwd=ROOT)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_has_the_bytes_and_the_mode(tmp_path: Path) -> None:
    write_atomically(tmp_path / "key", b"secret", mode=0o600)
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["key"]


def test_the_mode_is_not_narrowed_by_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "ca.crt", b"public")
    finally:
        os.umask(before)
    assert (tmp_path / "ca.crt").stat().st_mode & 0o777 == 0o644


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_nothing_changes_when_the_target_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "no" / "a", b"new")


def test_readers_see_the_old_or_the_new_bytes_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "a"
    whole = {bytes([n]) * 50_000 for n in range(2)}
    write_atomically(path, min(whole))
    ended = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not ended.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        for content in whole:
            write_atomically(path, content)
    ended.set()
    reader.join()
    assert seen <= whole


ORDER = """
import sys
from pathlib import Path
from dicom_secure_node.durable.files import write_atomically
write_atomically(Path(sys.argv[1]), b"x")
"""


def test_file_then_rename_then_folder_reach_the_disk(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "home").mkdir()
    strace: tuple[str, ...] = (
        parts.program("strace"),
        "-y",
        "-o",
        str(trace),
        "-e",
        "trace=fsync,rename,renameat,renameat2",
    )
    done = python(ORDER, tmp_path / "home" / "a", under=strace)
    assert done.returncode == 0, done.stderr
    calls = [line for line in trace.read_text().splitlines() if str(tmp_path) in line]
    assert [line.partition("(")[0] for line in calls] == ["fsync", "rename", "fsync"]
    assert ".tmp>" in calls[0]
    assert f"{tmp_path}/home>" in calls[2]


@pytest.mark.parametrize("call", ["write", "fsync", "fchmod", "rename"])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS"])
def test_a_failing_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, call: str, error: str
) -> None:
    path = tmp_path / "home" / "a"
    path.parent.mkdir()
    path.write_bytes(b"old")
    strace: tuple[str, ...] = (
        parts.program("strace"),
        "-o",
        str(tmp_path / "trace"),
        "-e",
        "trace=" + call,
    )
    # fsync: the first is the file's, the second the folder's
    strace += ("-e", f"inject={call}:error={error}:when=1")
    done = python(ORDER, path, under=strace)
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert path.read_bytes() == b"old"
    assert names(path.parent) == ["a"]


def test_rename_no_replace_renames(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    rename_no_replace(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["b"]


def test_rename_no_replace_never_replaces(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        rename_no_replace(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == b"a"
    assert (tmp_path / "b").read_bytes() == b"b"


def test_rename_no_replace_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        rename_no_replace(tmp_path / "a", tmp_path / "b")
    assert caught.value.filename == str(tmp_path / "a")


def test_of_many_that_rename_to_one_name_one_wins(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    won: list[int] = []

    def rename(number: int) -> None:
        source = tmp_path / f"source{number}"
        source.write_text(str(number))
        start.wait()
        try:
            rename_no_replace(source, tmp_path / "target")
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=rename, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "target").read_text() == str(won[0])
    assert len(won) == 1
    assert len(names(tmp_path)) == 8


NO_RENAMEAT2 = """
import sys
from pathlib import Path
from dicom_secure_node.durable.files import rename_no_replace
a, b, c = (Path(sys.argv[1]) / name for name in "abc")
a.write_text("a")
rename_no_replace(a, b)
c.write_text("c")
try:
    rename_no_replace(c, b)
except FileExistsError:
    print(a.exists(), b.read_text(), c.read_text())
"""


@pytest.mark.parametrize("error", ["EINVAL", "ENOSYS"])
def test_a_file_system_without_the_flag_gets_a_link(tmp_path: Path, error: str) -> None:
    strace: tuple[str, ...] = (
        parts.program("strace"),
        "-o",
        "/dev/null",
        "-e",
        "trace=renameat2,link",
    )
    strace += ("-e", f"inject=renameat2:error={error}")
    done = python(NO_RENAMEAT2, tmp_path, under=strace)
    assert done.stdout == "False a c\n", done.stderr


def test_make_folder_makes_parents_and_keeps_what_is_there(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "c").touch()
    make_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == ["c"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750


def test_make_folder_does_not_take_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "a" / "b")


def test_fsync_folder_wants_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError):
        fsync_folder(tmp_path / "a")


def test_write_all_goes_on_after_a_short_write(tmp_path: Path) -> None:
    """A pipe takes 64 KiB at a time; nothing of a megabyte may be lost."""
    reading, writing = os.pipe()
    data = os.urandom(1 << 20)
    writer = threading.Thread(target=lambda: (write_all(writing, data), os.close(writing)))
    os.set_blocking(writing, True)
    writer.start()
    with os.fdopen(reading, "rb") as file:
        assert file.read() == data
    writer.join()


def test_a_large_file_is_written_piece_by_piece(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with replacing(tmp_path / "a", mode=0o640) as file:
        for _ in range(3):
            file.write(b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a").read_bytes() == b"newnewnew"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["a"]


def test_nothing_changes_when_the_writer_gives_up(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with contextlib.suppress(KeyboardInterrupt), replacing(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]
