"""The frame around the verbs: help, exit codes, one line on stderr."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_secure_node import commands, errors
from tests.parts import run

COMMAND = [sys.executable, "-m", "dicom_secure_node"]


@pytest.mark.parametrize("verb", commands.VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = run([*COMMAND, verb, "--help"], check=True)
    assert f"usage: dicom-secure-node {verb}" in done.stdout
    assert "xample" in done.stdout
    assert f"dicom-secure-node {verb}" in done.stdout.partition("xample")[2]


def test_help_names_every_verb() -> None:
    done = run([*COMMAND, "--help"], check=True)
    assert [verb for verb in commands.VERBS if f"    {verb} " not in done.stdout] == []


def test_version() -> None:
    assert run([*COMMAND, "--version"], check=True).stdout == "dicom-secure-node 0.1.0\n"


USAGE_ERRORS = {
    "no verb": [],
    "an unknown verb": ["sevre"],
    "an unknown option": ["config", "check", "--nonsense"],
    "a missing file": ["config", "check", "no-such.toml"],
}


@pytest.mark.parametrize("words", USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_a_usage_error_ends_with_2(words: list[str]) -> None:
    done = run([*COMMAND, *words])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("dicom-secure-node")
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


CODES = {
    "a wrong setting": (errors.ConfigurationError("x"), 2),
    "a missing extra": (errors.MissingExtra("x", "progress"), 2),
    "bytes that are not what they should be": (errors.InvalidInput("a", "b"), 1),
    "the peer said no": (errors.PeerRefused("x"), 1),
    "we said no": (errors.Refused("x"), 1),
    "a service is away": (errors.ServiceUnavailable("disk", "full"), 3),
    "no such file": (FileNotFoundError(2, "No such file", "x"), 2),
    "a file we may not read": (PermissionError(13, "Permission denied", "x"), 2),
    "the disk is full": (OSError(28, "No space left on device"), 3),
    "a fault of ours": (ZeroDivisionError("secret"), 1),
    "ctrl-C": (KeyboardInterrupt(), 130),
}


@pytest.mark.parametrize(("error", "code"), CODES.values(), ids=CODES)
def test_each_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert commands.exit_code(error) == code


def test_an_error_is_one_line_whatever_a_peer_wrote() -> None:
    error = errors.PeerRefused("no\n\x1b[2Jdicom-secure-node: all good")
    assert commands.explain(error) == "no\\n\\x1b[2Jdicom-secure-node: all good"


def test_a_fault_of_ours_shows_its_kind_and_not_its_text() -> None:
    shown = commands.explain(ZeroDivisionError("the passcode is lovelace"))
    assert shown.startswith("ZeroDivisionError: ")
    assert "lovelace" not in shown
    assert "--debug" in shown


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    for words in (
        ["--debug", "config", "check", "no.toml"],
        ["config", "check", "no.toml", "--debug"],
    ):
        done = run([*COMMAND, *words])
        assert done.returncode == 2
        assert "Traceback" in done.stderr
        assert done.stderr.splitlines()[-1] == (
            "dicom-secure-node: error: no.toml: No such file or directory"
        )


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    # More output than a pipe holds.
    rules = '[[access.rule]]\neffect = "allow"\nname = "a rule with a long name"\n' * 2000
    path.write_text(f"[[listener]]\n{rules}")
    with subprocess.Popen(
        [*COMMAND, "config", "show", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 1


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    fifo = tmp_path / "node.toml"
    os.mkfifo(fifo)
    with subprocess.Popen(
        [*COMMAND, "config", "show", str(fifo)],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    ) as process:
        assert process.stderr is not None
        with fifo.open("wb"):  # opens once the command does; then it waits for words
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        assert b"Traceback" not in process.stderr.read()
