"""``user``: add, list, remove."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.identity.userfile import passcode_matches, read_users
from tests.parts import run

COMMAND = [sys.executable, "-m", "dicom_secure_node", "user"]


def user(action: str, home: Path, *words: str, stdin: str | None = None) -> Any:
    return run([*COMMAND, action, "--home", home, *words], stdin=stdin)


def test_add_list_remove(tmp_path: Path) -> None:
    assert user("list", tmp_path).stdout == "user  added\n"
    added = user("add", tmp_path, "ada", stdin="tiger\n")
    assert (added.returncode, added.stdout, added.stderr) == (0, "'ada' added\n", "")
    assert "new passcode" in user("add", tmp_path, "ada", stdin="lion\n").stdout
    file = tmp_path / "users.toml"
    assert passcode_matches(b"lion", read_users(file).rows["ada"].hash)
    assert file.stat().st_mode & 0o777 == 0o600
    assert "argon2" not in user("list", tmp_path).stdout
    row = json.loads(user("list", tmp_path, "--json").stdout)
    assert row["user"] == "ada"
    assert not row["disabled"]
    assert user("remove", tmp_path, "ada").returncode == 0
    again = user("remove", tmp_path, "ada")
    assert again.returncode == 1
    assert "no user 'ada'" in again.stderr


BAD: dict[str, tuple[list[str], str, str]] = {
    "empty passcode": (["ada"], "\n", "passcode is empty"),
    "no passcode": (["ada"], "", "passcode is empty"),
    "empty name": ([""], "tiger\n", "user name is empty"),
    "control character": (["a\x07"], "tiger\n", "control character"),
}


@pytest.mark.parametrize(("words", "stdin", "reason"), BAD.values(), ids=BAD)
def test_refused(tmp_path: Path, words: list[str], stdin: str, reason: str) -> None:
    done = user("add", tmp_path, *words, stdin=stdin)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "tiger" not in done.stderr
    assert not (tmp_path / "users.toml").exists()


def test_no_home(tmp_path: Path) -> None:
    done = user("add", tmp_path / "nowhere", "ada", stdin="tiger\n")
    assert done.returncode == 2
    assert "nowhere: no such folder" in done.stderr


def test_a_broken_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "users.toml").write_text("[users")
    assert user("add", tmp_path, "ada", stdin="tiger\n").returncode == 2
    assert (tmp_path / "users.toml").read_text() == "[users"


@pytest.mark.parametrize(("second", "code"), [("tiger", 0), ("lion", 2)])
def test_asked_twice_on_a_terminal_without_echo(tmp_path: Path, second: str, code: int) -> None:
    child, terminal = pty.fork()
    if not child:
        os.execv(COMMAND[0], [*COMMAND, "add", "--home", str(tmp_path), "ada"])  # noqa: S606
    shown = b""
    for prompt, answer in ((b"passcode: ", "tiger"), (b"once more: ", second)):
        while prompt not in shown:
            shown += os.read(terminal, 1024)
        os.write(terminal, f"{answer}\n".encode())
    while True:
        try:
            more = os.read(terminal, 1024)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        shown += more
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    assert b"tiger" not in shown
    assert b"lion" not in shown
