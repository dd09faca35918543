"""``audit collect`` and ``audit verify-log`` as words: settings, answers, exit codes."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_secure_node import commands
from dicom_secure_node.audit.collecting.records import Head
from dicom_secure_node.audit.collecting.settings import Collect
from dicom_secure_node.commands import audit_collect
from dicom_secure_node.config import load_as
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.secure_node.collecting import CollectFile
from tests.audit.collected import every_message, fill, log_files

DOCUMENT = Path(__file__).parents[2] / "docs/audit-repository.md"


@pytest.fixture
def log(tmp_path: Path) -> tuple[Path, Head]:
    head = fill(tmp_path / "collected", every_message()[:12])
    return tmp_path / "collected", head


def test_the_documented_file_has_every_key_with_its_default(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(# collect\.toml.*?)```", DOCUMENT.read_text(), re.DOTALL)
    path = tmp_path / "collect.toml"
    path.write_text(block)
    found = load_as(CollectFile, path).collect
    for field in dataclasses.fields(Collect):
        value = getattr(found, field.name)
        if isinstance(value, Path):
            value = value.relative_to(tmp_path)
        elif field.name in ("credential", "trust"):
            value = tuple(one.relative_to(tmp_path) for one in value)
        assert value == getattr(Collect(), field.name), field.name
        assert re.search(rf"^(# )?{field.name} =", block, re.MULTILINE), field.name


WRONG = {
    "an unknown key": ("prot = 6514", "collect.prot: unknown key; did you mean 'port'"),
    "a message limit below A.6's": ("message_limit = 8192", "collect.message_limit: found 8192"),
    "a port that is none": ("udp_port = 70000", "collect.udp_port: found 70000"),
    "another word": ('client_certificate = "maybe"', "collect.client_certificate"),
}


@pytest.mark.parametrize(("line", "said"), WRONG.values(), ids=WRONG)
def test_wrong_settings(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "collect.toml"
    path.write_text(f"[collect]\n{line}\n")
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load_as(CollectFile, path)


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "collect.toml"
    path.write_text('[collect]\nport = 1\nkeep_days = 30\nindex = "postgresql://h/a"\n')
    words = ["audit", "collect", "--config", str(path), "--port", "2", "--trust", "x.crt"]
    parser, _ = commands.build_parser(words)
    found = audit_collect.settings_of(parser.parse_args(words))
    assert (found.port, found.keep_days, found.trust) == (2, 30, (Path("x.crt"),))
    assert found.folder == tmp_path / "collected"
    assert "postgresql" not in repr(found)


def edit(folder: Path) -> None:
    path = log_files(folder)[1]
    path.write_bytes(path.read_bytes().replace(b"ct1", b"ct2", 1))


def nothing(_: Path) -> None:
    """Leave it as it is."""


ANSWERS: dict[str, tuple[Callable[[Path], None], list[str], int, str]] = {
    "good": (
        nothing,
        [],
        0,
        "records 1 to 13, head 13:{chain}: nothing was changed before its end",
    ),
    "good, by its head": (nothing, ["--expect", "13:{chain}"], 0, ": nothing was changed\n"),
    "good, the index not asked": (nothing, ["--no-index"], 0, "nothing was changed"),
    "edited": (edit, [], 1, "edited: records-"),
    "of a later head": (nothing, ["--expect", f"14:{'0' * 64}"], 1, "truncated: the log ends"),
    "of another head": (nothing, ["--expect", f"7:{'0' * 64}"], 1, "replaced: "),
}


@pytest.mark.parametrize(("tamper", "options", "code", "said"), ANSWERS.values(), ids=ANSWERS)
def test_answers(
    tamper: Callable[[Path], None],
    options: list[str],
    code: int,
    said: str,
    log: tuple[Path, Head],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, head = log
    tamper(folder)
    words = [word.format(chain=head.chain) for word in options]
    assert commands.main(["audit", "verify-log", "--folder", str(folder), *words]) == code
    assert said.format(chain=head.chain) in capsys.readouterr().out


def test_answers_for_machines(log: tuple[Path, Head], capsys: pytest.CaptureFixture[str]) -> None:
    folder, head = log
    edit(folder)
    assert commands.main(["audit", "verify-log", "--folder", str(folder), "--json"]) == 1
    *found, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert [one["kind"] for one in found] == ["edited", "index"], "its terms are others now"
    assert (end["first"], end["findings"], str(head)) == (1, 2, end["head"])


def test_heads_in_a_text(
    log: tuple[Path, Head], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, head = log
    text = f"Nov 22 09:31:03 host collect[7]: INFO head {head}\nhead 99:{'a' * 64} of a joker\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    words = ["audit", "verify-log", "--folder", str(folder), "--expect-in", "-"]
    assert commands.main(words) == 1
    assert "truncated: the log ends with record 13, head 99:" in capsys.readouterr().out


USAGE = {
    "no head": ["--expect", "nonsense"],
    "no such folder": ["--folder", "nosuch"],
    "no such text": ["--expect-in", "nosuch"],
    "an index of another kind": ["--index", "mysql://x"],
}


@pytest.mark.parametrize("options", USAGE.values(), ids=USAGE)
def test_usage(options: list[str], log: tuple[Path, Head]) -> None:
    folder, _ = log
    assert commands.main(["audit", "verify-log", "--folder", str(folder), *options]) == 2


def test_no_credential_is_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "collect", "--credential", str(tmp_path / "nosuch"), "--trust", "x"]
    assert commands.main([*words, "--folder", str(tmp_path / "c"), "--port", "0"]) == 2
    assert "nosuch" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
