"""README is true: its program runs, its commands and verbs are there."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from dicom_secure_node import commands
from dicom_secure_node.commands.home import make_home
from tests.parts import Part, free_port, run

ROOT = Path(__file__).parent.parent
OURS = (sys.executable, "-m", "dicom_secure_node")
CT = Path(str(get_testdata_file("CT_small.dcm")))


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def block(text: str, language: str, holding: str) -> str:
    """Return the one code block of a language that holds some text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (found,) = [code for code in blocks if holding in code]
    return str(found)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the home that the first `serve` makes in it."""
    folder = tmp_path_factory.mktemp("readme")
    make_home(folder / "secure-node", 0)
    return folder


@pytest.mark.parametrize(
    ("status", "code", "stored"),
    [("0x0000", 0, "stored"), ("0xA700", 1, "refused")],
    ids=["as it stands", "with a handler that says no"],
)
def test_ten_lines_put_every_gate_before_a_handler(
    readme: str, workplace: Path, tmp_path: Path, status: str, code: int, stored: str
) -> None:
    shown = block(readme, "python", "SecureNode")
    assert len([line for line in shown.splitlines() if line]) <= 10
    port = free_port()
    for old, new in (("2762", str(port)), ("0x0000", status)):
        assert shown.count(old) == 1
        shown = shown.replace(old, new)
    program = tmp_path / "program.py"
    program.write_text(shown)
    with Part([sys.executable, program], log=tmp_path / "log", port=port, cwd=workplace):
        peer = ["127.0.0.1", str(port)]
        assert run(["storescu", *peer, CT]).returncode, "let in without TLS"
        send = [*OURS, "send", *peer, "--credential", workplace / "secure-node" / "pki"]
        done = run([*send, "--json", CT])
        assert (done.returncode, json.loads(done.stdout)["outcome"]) == (code, stored)
    archive = workplace / "secure-node" / "archive"
    assert len(list(archive.glob("instances/*/*.dcm"))) == 1  # before the handler was asked


def test_the_verbs_are_those_there_are(readme: str) -> None:
    table = readme.partition("## The verbs")[2].partition("\n## ")[0]
    cells = "".join(re.findall(r"^\|(.*?)\|", table, re.MULTILINE))
    assert re.findall(r"`([a-z]+)`", cells) == list(commands.VERBS)


def test_the_two_commands_are_shell_and_start_what_is_there(readme: str) -> None:
    first, second = block(readme, "sh", "serve"), block(readme, "sh", ".ci/run")
    for command in (first, second):
        run(["/bin/sh", "-n"], stdin=command, check=True)
        assert len(command.splitlines()) == 1
    assert shlex.split(first)[-2:] == [".venv/bin/dicom-secure-node", "serve"]
    assert (ROOT / second.strip()).stat().st_mode & 0o111
