"""docs/signatures.md is true: its first commands and its program do what it says."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from dicom_secure_node import commands
from tests.certs import Ca
from tests.parts import run

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "signatures.md").read_text(encoding="utf-8")
CT, MR = (Path(str(get_testdata_file(f"{name}_small.dcm"))) for name in ("CT", "MR"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def as_module(command: str) -> list[str]:
    program, *words = shlex.split(command)
    assert program == commands.PROGRAM
    return [sys.executable, "-m", "dicom_secure_node", *words]


@pytest.mark.timeout(180)
def test_the_first_commands_say_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "ct.dcm").write_bytes(CT.read_bytes())
    (tmp_path / "study" / "mr.dcm").write_bytes(MR.read_bytes())
    env = {"PYTHONPATH": str(ROOT)}
    first, report = blocks("sh")[:2]
    said = ""
    for command in (*first.splitlines(), *report.splitlines()):
        done = run(as_module(command), cwd=tmp_path, env=env, check=True)
        if "--report" not in command:
            said = done.stdout
    assert said == blocks("text")[0]
    assert "not covered" in done.stdout
    covered = done.stdout.partition("not covered")[2]
    for name in ("ImagePositionPatient", "PixelSpacing"):
        assert name in covered, "the page says that C.2 leaves it out"


def test_the_program(tmp_path: Path) -> None:
    ca = Ca()
    ca.anchor(tmp_path / "ca.crt")
    ca.crl(tmp_path / "ca.crl")
    ca.write(tmp_path, "ct1", key="rsa")
    (tmp_path / "ct.dcm").write_bytes(CT.read_bytes())
    (code,) = blocks("python")
    done = run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert done.stdout == "True CN=ct1,O=Test Hospital 212 elements may be anything\n", done
    assert pydicom.dcmread(tmp_path / "signed.dcm").DigitalSignaturesSequence


def test_every_policy_and_profile_has_a_row() -> None:
    for verb, option in (("verify", "--policy"), ("sign", "--profile")):
        parser, _ = commands.build_parser([verb])
        (of_verb,) = [action for action in parser._actions if action.dest == "verb"]
        assert isinstance(of_verb.choices, dict)
        (action,) = [a for a in of_verb.choices[verb]._actions if option in a.option_strings]
        assert action.choices
        for name in action.choices:
            assert f"\n| `{name}`" in PAGE
