"""``config check`` and ``config show``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_secure_node.commands import main
from tests.certs import Ca

LISTENER = '[[listener]]\ncredential = "pki/node"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose configuration names files that exist."""
    (tmp_path / "pki").mkdir()
    ca = Ca()
    ca.write(tmp_path / "pki", "node")
    ca.anchor(tmp_path / "pki" / "ca.crt")
    (tmp_path / "node.toml").write_text(LISTENER)
    (tmp_path / "users.toml").touch()
    return tmp_path


def test_a_good_configuration(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--home", str(home)]) == 0
    assert capsys.readouterr() == (f"{home}/node.toml: good\n", "")
    assert main(["config", "check", str(home / "node.toml")]) == 0


def test_every_missing_file_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "node.toml"
    path.write_text(LISTENER + 'crl = "pki/ca.crl"\n[[audit.repository]]\nhost="a"\ntrust="a.crt"')
    (home / "pki" / "node.key").unlink()
    assert main(["config", "check", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{path}: listener[0].credential: {home}/pki/node.key: No such file or directory",
        f"{path}: listener[0].crl: {home}/pki/ca.crl: No such file or directory",
        f"{path}: audit.repository[0].trust: {home}/a.crt: No such file or directory",
    ]
    assert main(["config", "check", "--json", str(path)]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["valid"] is False
    assert [problem["key"] for problem in report["problems"]] == [
        "listener[0].credential",
        "listener[0].crl",
        "audit.repository[0].trust",
    ]


def test_a_plain_listener_needs_no_files(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('[[listener]]\nprofile = "plain"\nidentity = "not-supported"\n')
    assert main(["config", "check", str(path)]) == 0


SUPPRESS = """[[audit.suppress]]
event = "Query"
ae = ["MONITOR"]
reason = "asks every minute"
"""


def test_what_is_not_recorded_is_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "node.toml"
    path.write_text(LISTENER + SUPPRESS)
    line = (
        "audit.suppress[0]: Query (110112); outcome 0; AE title MONITOR; because: asks every minute"
    )
    assert main(["config", "show", str(path)]) == 0
    assert f"not recorded: {line}" in capsys.readouterr().out.splitlines()
    assert main(["config", "show", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["suppressed"] == [line]


def test_a_rule_that_could_hide_an_alert_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "node.toml"
    path.write_text(LISTENER + SUPPRESS.replace("Query", "Security Alert"))
    assert main(["config", "check", str(path)]) == 2
    assert f"{path}: audit.suppress[0]: it could suppress Security Alert" in capsys.readouterr().err
    path.write_text(LISTENER + SUPPRESS.replace("Query", "Querry"))
    assert main(["config", "check", str(path)]) == 2
    assert f"{path}: audit.suppress[0].event: found 'Querry'" in capsys.readouterr().err


def test_what_keeps_the_identity_gate_from_opening_is_a_problem(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "node.toml"
    (home / "users.toml").unlink()
    assert main(["config", "check", str(path)]) == 2
    assert "users.toml: cannot read: No such file" in capsys.readouterr().err
    path.write_text(LISTENER + '[identity]\ntypes = ["saml"]\n')
    assert main(["config", "check", str(path)]) == 2
    assert "no table [identity.saml]" in capsys.readouterr().err


def test_a_rule_that_never_matches_is_noted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "node.toml"
    path.write_text(LISTENER + '[[access.rule]]\neffect = "allow"\nlistener = ["nowhere"]\n')
    assert main(["config", "check", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}: good\n"
    assert err.startswith(f"{path}: note: access.rule[0].listener: an unnamed allow rule: ")
    assert main(["config", "check", "--json", str(path)]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["key"] == "access.rule[0].listener"


def test_a_type_of_a_table_that_nobody_verifies(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "node.toml"
    path.write_text(LISTENER + 'identity_for = { WS1 = { kerberos = "required" } }\n')
    assert main(["config", "check", str(path)]) == 2
    assert "found 'kerberos' among the identity types, but no table" in capsys.readouterr().err
    path.write_text(LISTENER + 'identity_for = { WS1 = { kerberos = "not-supported" } }\n')
    assert main(["config", "check", str(path)]) == 0


def test_a_type_supported_beside_one_required_is_noted(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "node.toml"
    demand = '{ passcode = "required", username = "supports" }'
    path.write_text(f"{LISTENER}identity = {demand}\nidentity_for = {{ CT1 = {demand} }}\n")
    assert main(["config", "check", str(path)]) == 0
    problem = "supported, but another type is required: by this one nobody comes in"
    assert capsys.readouterr().err.splitlines() == [
        f"{path}: note: listener[0].identity.username: {problem}",
        f"{path}: note: listener[0].identity_for.CT1.username: {problem}",
    ]


def test_a_wrong_key_ends_with_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "node.toml"
    path.write_text("[[listener]]\nprofil = 1\n")
    assert main(["config", "check", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"dicom-secure-node: error: {path}: listener[0].profil: unknown key; "
        "did you mean 'profile'?\n"
    )


def test_show_prints_what_is_in_force(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--home", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "node.ae_title = SECURENODE" in lines
    assert f"listener[0].credential = {home}/pki/node" in lines
    assert f"identity.passcode.file = {home}/users.toml" in lines
    assert "access.rule = (none)" in lines
    assert "listener[0].identity = supports" in lines
    assert "listener[0].identity_for = (none)" in lines


def test_show_prints_a_line_for_each_type(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "node.toml").write_text(
        LISTENER + 'identity = { passcode = "required" }\n'
        'identity_for = { CT1 = "not-supported", WS1 = { username = "supports" } }\n'
    )
    assert main(["config", "show", "--home", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "listener[0].identity.passcode = required" in lines
    assert "listener[0].identity_for.CT1 = not-supported" in lines
    assert "listener[0].identity_for.WS1.username = supports" in lines


def test_show_as_json_is_one_object(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--json", "--home", str(home)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    shown = json.loads(line)
    assert shown["listener"][0]["credential"] == [f"{home}/pki/node"]
    assert shown["limits"]["pdu_length"] == 1048576
