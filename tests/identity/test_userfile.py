"""The users file: written exactly, read strictly, read again when it changes."""

from __future__ import annotations

import logging
import os
import stat
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.userfile import (
    User,
    UserFile,
    add_user,
    format_users,
    hash_passcode,
    parse_users,
    passcode_line,
    passcode_matches,
    read_users,
    remove_user,
)

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
PHC = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"

BAD_FILES = {
    "not TOML": ("users = [", "not TOML"),
    "another table": ("[groups]", "key 'groups'"),
    "users is a value": ("users = 1", r"wanted \[users.NAME\]"),
    "a user is a value": ("[users]\nada = 'x'", "wanted a table"),
    "unknown key": (f"[users.ada]\nhash = '{PHC}'\npassword = 'tiger'", "key 'password'"),
    "no hash": ("[users.ada]", "no Argon2id PHC"),
    "hash is a number": ("[users.ada]\nhash = 1", "no Argon2id PHC"),
    "plain passcode": ("[users.ada]\nhash = 'tiger'", "no Argon2id PHC"),
    "another algorithm": ("[users.ada]\nhash = '$2b$12$abcdefghijklmnopqrstuv'", "no Argon2id"),
    "Argon2i": (f"[users.ada]\nhash = '{PHC.replace('2id', '2i')}'", "no Argon2id"),
    "trailing line feed": (f'[users.ada]\nhash = "{PHC}\\n"', "no Argon2id"),
    "absurd memory": (
        f"[users.ada]\nhash = '{PHC.replace('m=64', 'm=9999999')}'",
        "Argon2id cost",
    ),
    "no iterations": (f"[users.ada]\nhash = '{PHC.replace('t=1', 't=0')}'", "Argon2id cost"),
    "memory below 8p": (f"[users.ada]\nhash = '{PHC.replace('m=64', 'm=7')}'", "Argon2id cost"),
    "disabled is a text": (f"[users.ada]\nhash = '{PHC}'\ndisabled = 'no'", "neither true nor"),
    "added is a text": (f"[users.ada]\nhash = '{PHC}'\nadded = 'today'", "no date and time"),
    "empty name": (f"[users.'']\nhash = '{PHC}'", "name is empty"),
    "control character": (f"[users.\"a\\u0007\"]\nhash = '{PHC}'", "control character"),
    "twice": (f"[users.ada]\nhash='{PHC}'\n[users.ada]\nhash='{PHC}'", "not TOML"),
}


@pytest.mark.parametrize(("text", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as wrong:
        parse_users(text, "users.toml")
    assert str(wrong.value).startswith("users.toml")
    assert PHC not in str(wrong.value)
    assert "tiger" not in str(wrong.value)


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.isprintable)


@given(st.lists(NAMES, unique=True, max_size=5), st.booleans())
def test_what_is_written_is_read(names: list[str], disabled: bool) -> None:
    rows = {name: User(name, PHC, NOW, disabled) for name in names}
    assert dict(parse_users(format_users(rows), "x").rows) == rows


def test_add_list_remove(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    assert add_user(file, "ada", b"tiger", NOW)
    assert add_user(file, 'we"ird\\[x]', b"lion", NOW)
    assert not add_user(file, "ada", b"panther", NOW.replace(year=2030)), "known already"
    users = read_users(file)
    assert list(users.rows) == ["ada", 'we"ird\\[x]']
    assert users.rows["ada"].added == NOW
    assert passcode_matches(b"panther", users.rows["ada"].hash)
    assert not passcode_matches(b"tiger", users.rows["ada"].hash)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert remove_user(file, "ada")
    assert not remove_user(file, "ada")
    assert list(tomllib.loads(file.read_text())["users"]) == ['we"ird\\[x]']


def test_adding_again_enables(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    file.write_text(f"[users.ada]\nhash = '{PHC}'\ndisabled = true\n")
    add_user(file, "ada", b"tiger", NOW)
    assert not read_users(file).rows["ada"].disabled


@pytest.mark.parametrize("passcode", [b"", b"x" * 1025])
def test_passcode_refused_before_hashing(passcode: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="passcode is"):
        add_user(tmp_path / "users.toml", "ada", passcode, NOW)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "a\n", "x" * 257, os.fsdecode(b"\xff")])
def test_name_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="user name"):
        add_user(tmp_path / "users.toml", name, b"tiger", NOW)


def test_hashes_differ_and_hold_no_passcode() -> None:
    one, two = hash_passcode(b"tiger"), hash_passcode(b"tiger")
    assert one != two
    assert one.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert "tiger" not in repr(User("ada", one))
    assert one not in repr(User("ada", one))
    assert one not in repr(parse_users(f"[users.ada]\nhash='{one}'", "x"))


def test_hash_of_the_reference_implementation() -> None:
    # Argon2's own test.c (phc-winner-argon2, 20190702): t=2, m=2^16, p=1, version 19.
    made = "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
    phc = f"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ${made}"
    assert list(parse_users(f"[users.ada]\nhash = '{phc}'", "x").rows) == ["ada"]
    assert passcode_matches(b"password", phc)
    assert not passcode_matches(b"passwore", phc)


def test_nobody_costs_what_most_users_cost() -> None:
    def cost(text: str) -> str:
        return parse_users(text, "x").nobody.split("$")[3]

    assert cost("") == "m=65536,t=3,p=1"
    dear = PHC.replace("t=1", "t=2")
    rows = [f"[users.u{n}]\nhash = '{PHC if n else dear}'\n" for n in range(3)]
    assert cost("".join(rows)) == "m=64,t=1,p=1"
    assert not passcode_matches(b"tiger", parse_users("".join(rows), "x").nobody)


LINES = {
    "line feed": (b"tiger\n", b"tiger"),
    "carriage return": (b"tiger\r\n", b"tiger"),
    "none": (b"tiger", b"tiger"),
    "more lines": (b"tiger\nlion\n", b"tiger"),
    "blanks are the passcode's": (b" tiger \n", b" tiger "),
}


@pytest.mark.parametrize(("source", "want"), LINES.values(), ids=LINES)
def test_passcode_line(source: bytes, want: bytes) -> None:
    assert passcode_line(source, "x") == want


@pytest.mark.parametrize("source", [b"", b"\n", b"\r\n", b"\ntiger"])
def test_empty_passcode_line(source: bytes) -> None:
    with pytest.raises(ConfigurationError, match="passcode is empty"):
        passcode_line(source, "x")


def test_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "users.toml"
    add_user(path, "ada", b"tiger", NOW)
    file = UserFile(path)
    add_user(path, "eve", b"lion", NOW)
    assert set(file.users.rows) == {"ada", "eve"}
    remove_user(path, "ada")
    assert set(file.users.rows) == {"eve"}, "who is removed is out at once"

    path.write_text("[users")
    for _ in range(3):
        assert set(file.users.rows) == {"eve"}, "the last good one stays"
    path.unlink()
    assert set(file.users.rows) == {"eve"}
    problems = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(problems) == 2, "each problem is told once"
    assert "not TOML" in problems[0]
    assert "cannot read" in problems[1]

    add_user(path, "bob", b"puma", NOW)
    assert set(file.users.rows) == {"bob"}


@pytest.mark.parametrize("content", [None, b"[users", b"\xff\xfe"])
def test_unusable_at_the_start(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "users.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"users\.toml"):
        UserFile(path)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot write"):
        add_user(tmp_path / "absent" / "users.toml", "ada", b"tiger", NOW)
