"""What keeps the node from starting: one line that says what, where and what was wanted."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests import parts
from tests.certs import Ca
from tests.system.running import COMMAND, Node, cli, configure


def refused(home: Path, *options: str) -> tuple[int, str]:
    """Return exit code and the error line of a node that does not start."""
    done = cli("serve", "--home", home, "--port", "0", *options)
    assert "listening on" not in done.stderr
    lines = [s for s in done.stderr.splitlines() if s.startswith("dicom-secure-node: error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, lines[0]


CONFIGURATION = {
    "a misspelt key": ('plugins = ["c', 'plugin = ["c', ["node.toml", "plugin", "plugins"]),
    "a misspelt table": ("[archive]", "[archiv]", ["node.toml", "archiv", "archive"]),
    "a value of the wrong type": ("port = 0", 'port = "x"', ["node.toml", "port"]),
    "a profile nobody knows": ('profile = "8996"', 'profile = "ssl3"', ["profile", "ssl3"]),
    "a port out of range": ("port = 0", "port = 70000", ["port", "70000"]),
    "no TOML at all": ("[node]", "[node", ["node.toml"]),
    "a credential that is not there": ('["pki/node", ', '["pki/gone", ', ["gone.crt"]),
    "trust that is not there": ('trust = ["pki/ca.crt"]', 'trust = ["pki/gone.crt"]', ["gone.crt"]),
    "a crl that is not there": ('crl = ["pki/ca.crl"]', 'crl = ["pki/gone.crl"]', ["gone.crl"]),
    "a plug-in nobody knows": ('"storage"', '"storrage"', ["storrage"]),
    "a value that is none of the choices": ('mode = "enforce"', 'mode = "off"', ["mode", "off"]),
}


@pytest.mark.parametrize("case", CONFIGURATION)
def test_a_configuration_error_names_file_and_key(case: str, home: Path) -> None:
    old, new, words = CONFIGURATION[case]
    configure(home, "", {old: new})
    code, line = refused(home)
    assert code == 2
    for word in words:
        assert word in line


def test_a_key_that_is_not_its_certificates(home: Path) -> None:
    shutil.copy(home / "pki" / "client.key", home / "pki" / "node.key")
    code, line = refused(home)
    assert code in (1, 2)
    assert "node.key" in line or "node.crt" in line


def test_an_expired_certificate_of_our_own_is_told(home: Path) -> None:
    """Every client will refuse it; who starts the node should hear of it first."""
    Ca("Site").write(home / "pki", "node", key="rsa", expired=True)
    done = cli("config", "check", home / "node.toml")
    assert "expired" in done.stdout + done.stderr


def test_a_port_in_use(home: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("serve", "--home", home, "--port", str(port))
    assert done.returncode == 3
    assert "listening on" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("dicom-secure-node: error: ")
    assert str(port) in line, "which address, when there are several listeners"
    assert "in use" in line


def test_a_home_in_use(home: Path) -> None:
    with Node(home) as node:
        code, line = refused(home)
        assert code == 3
        assert "another" in line or "lock" in line or "in use" in line
        assert node.echo(), "the first one goes on"


def test_an_address_that_is_not_ours(home: Path) -> None:
    configure(home, "", {'host = "0.0.0.0"': 'host = "192.0.2.1"'})
    code, line = refused(home)
    assert code == 3
    assert "192.0.2.1" in line


def test_an_audit_store_that_cannot_be_made(home: Path) -> None:
    (home / "audit").write_text("a file where the folder should be")
    code, line = refused(home)
    assert code in (2, 3)
    assert "audit" in line


def test_a_damaged_archive_index(home: Path) -> None:
    (home / "archive").mkdir()
    (home / "archive" / "index.sqlite").write_bytes(b"this is no database" * 1000)
    code, line = refused(home)
    assert code in (2, 3)
    assert "index" in line


def test_a_damaged_users_file(home: Path) -> None:
    (home / "users.toml").write_text("not toml [")
    code, line = refused(home)
    assert code == 2
    assert "users.toml" in line


def test_config_check_agrees_with_serve(home: Path) -> None:
    assert cli("config", "check", home / "node.toml").returncode == 0
    configure(home, "", {"[archive]": "[archiv]"})
    assert cli("config", "check", home / "node.toml").returncode == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_how_it_ends(number: int, code: int, home: Path) -> None:
    with Node(home) as node:
        assert node.echo()
        assert node.stop(number) == code
    assert "stopped" in node.log


def test_a_first_start_makes_a_home_nobody_else_can_read(tmp_path: Path) -> None:
    home = tmp_path / "new"
    argv = [*COMMAND, "serve", "--home", str(home), "--port", "0"]
    log = tmp_path / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        parts.wait_until(lambda: "listening on" in log.read_text(), "the node listening")
        for key in (home / "pki").glob("*.key"):
            assert key.stat().st_mode & 0o777 == 0o600, key
        assert (home / "users.toml").stat().st_mode & 0o077 == 0
        for path in (home / "audit", home / "archive"):
            mode = path.stat().st_mode & 0o777
            assert mode & 0o007 == 0, f"{path} {mode:o}: patients' names for everybody"
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_arguments_out_of_range(home: Path) -> None:
    for options in (["--port", "70000"], ["--port", "-1"], ["--port", "x"], ["--colour"]):
        done = cli("serve", "--home", home, *options)
        assert done.returncode == 2, options
        assert "Traceback" not in done.stderr
    title = "A" * 10_000
    for option in ("--calling", "--called"):
        argv = ["echo", "127.0.0.1", "1", "--plain", option, title]
        done = cli(*argv)
        assert done.returncode == 2, done.stderr[:500]
        assert "16" in done.stderr
