"""The verb ``archive``, as a person or a script uses it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_secure_node.archive import Archive
from tests import parts
from tests.archive.instances import data_set, files, provenance, store


def configure(home: Path) -> None:
    home.mkdir()
    listener = '[[listener]]\nport = 11112\nprofile = "plain"\n'
    (home / "node.toml").write_text(listener + '[archive]\npath = "archive"\n')


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with three instances of two studies."""
    configure(tmp_path / "home")
    with Archive(tmp_path / "home" / "archive") as archive:
        for number in range(3):
            uid = f"1.2.3.4.{number}"
            data = data_set(uid, study=f"1.2.{number % 2}", patient="Doe^Jane\x1b[2J")
            store(archive, data, provenance(uid))
    return tmp_path / "home"


def verb(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return parts.run([sys.executable, "-m", "dicom_secure_node", "archive", *words])


def objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_list_is_a_table_of_studies(home: Path) -> None:
    done = verb("list", "--home", home)
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert re.split(r"\s{2,}", head)[:2] == ["PATIENT ID", "PATIENT"]
    assert len(lines) == 2
    assert all("\x1b" not in line and "Thorax" in line for line in lines)


def test_list_as_json(home: Path) -> None:
    done = verb("list", "--home", home, "--json")
    assert {o["study"]: o["instances"] for o in objects(done)} == {"1.2.0": 2, "1.2.1": 1}


def test_verify_finds_all_good(home: Path) -> None:
    done = verb("verify", "--home", home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 good, 0 bad\n", "")


DAMAGE = {
    "one bit": lambda path: path.write_bytes(
        path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])
    ),
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "emptied": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "another file": lambda path: path.write_bytes(files(path.parent.parent.parent)[1].read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_verify_finds_damage(home: Path, damage: object) -> None:
    path = files(home / "archive")[0]
    assert callable(damage)
    damage(path)
    done = verb("verify", "--home", home, "--json")
    assert done.returncode == 1
    verdicts = objects(done)
    assert sorted(v["valid"] for v in verdicts) == [False, True, True]
    (bad,) = (v for v in verdicts if not v["valid"])
    assert bad["path"] == str(path.relative_to(home / "archive"))
    assert verb("verify", "--home", home).stdout.endswith("2 good, 1 bad\n")


def test_rebuild_makes_a_lost_index(home: Path) -> None:
    (home / "archive" / "index.sqlite").unlink()
    done = verb("rebuild", "--home", home)
    assert done.stdout == "3 instances indexed, 0 rows removed, 0 files left out\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert len(objects(verb("list", "--home", home, "--json"))) == 2


def test_rebuild_makes_a_damaged_index(home: Path) -> None:
    (home / "archive" / "index.sqlite").write_bytes(b"\xff" * 5000)
    assert verb("list", "--home", home).returncode == 3
    assert verb("rebuild", "--home", home, "--json").returncode == 0
    assert verb("list", "--home", home).returncode == 0


def test_rebuild_names_what_it_leaves_out(home: Path) -> None:
    path = files(home / "archive")[0]
    path.write_bytes(b"")
    done = verb("rebuild", "--home", home)
    assert done.returncode == 1
    assert f"{path.relative_to(home / 'archive')}: cannot be read, left out" in done.stdout


@pytest.mark.parametrize("action", ["list", "verify", "rebuild"])
def test_no_home_and_no_archive_are_usage_errors(tmp_path: Path, action: str) -> None:
    done = verb(action, "--home", tmp_path / "nowhere")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    configure(tmp_path / "home")
    done = verb(action, "--home", tmp_path / "home")
    assert done.returncode == 2
    assert "found no archive" in done.stderr
    assert not (tmp_path / "home" / "archive").exists()


@pytest.mark.parametrize("action", ["list", "verify", "rebuild"])
def test_help_shows_an_example(action: str) -> None:
    assert f"dicom-secure-node archive {action} --home" in verb(action, "--help").stdout
