"""``dicom-secure-node pki`` as its user meets it: files, words, JSON, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.commands import main
from tests.certs import Ca

Pki = Callable[..., int]


@pytest.fixture
def pki(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pki:
    """Return a caller of ``dicom-secure-node pki ACTION ...`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str | Path) -> int:
        return main(["pki", *map(str, words)])

    return call


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the JSON objects printed since the last call."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_init_makes_the_default_home(pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    assert pki("init") == 0
    made = {path.name for path in Path("secure-node/pki").iterdir()}
    pairs = {f"{n}.{s}" for n in ("ca", "node", "node-ec", "client") for s in ("crt", "key")}
    assert made == pairs | {"ca.crl", "issued.json"}
    assert "made secure-node/pki/node.crt and node.key" in capsys.readouterr().out
    assert pki("init") == 2
    assert "ca.crt: exists already; nothing was changed" in capsys.readouterr().err


def test_issue_revoke_show(pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    assert pki("init", "--home", "h", "--organisation", "Lab 7") == 0
    assert pki("issue", "ct1", "--home", "h", "--key", "ec", "--host", "ct1.example") == 0
    assert pki("issue", "ct1", "--home", "h", "--key", "ec") == 2
    assert pki("issue", "ct1", "--home", "h", "--key", "ec", "--renew", "--days", "9") == 0
    assert pki("revoke", "ct1", "--home", "h") == 0
    capsys.readouterr()
    assert pki("show", "--home", "h", "--json") == 0
    shown = {Path(one["path"]).stem: one for one in lines(capsys)}
    assert shown["ct1"]["status"].startswith("revoked on ")
    assert shown["ct1"]["days_left"] in (8, 9)  # 9 within the second it was made
    assert shown["node"]["status"] == "in date"
    assert shown["node"]["subject"] == "CN=node,O=Lab 7"
    assert shown["node"]["usable_for"] == ["server", "client"]
    assert shown["node"]["private_key"] == "fits"
    assert shown["ca"]["usable_for"] == ["CA"]
    assert len(shown["node"]["fingerprint"]) == 64


def test_revoke_takes_a_file_too(pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    pki("init", "--home", "h")
    capsys.readouterr()
    assert pki("revoke", "--home", "h", "--json", "h/pki/client.crt") == 0
    (answer,) = lines(capsys)
    assert (answer["name"], answer["crl"]) == ("client", "h/pki/ca.crl")


def test_request_leaves_key_and_csr(pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    assert pki("request", "node", "--home", "h", "--host", "pacs.example", "--json") == 0
    (answer,) = lines(capsys)
    assert answer == {"name": "node", "request": "h/pki/node.csr", "key": "h/pki/node.key"}
    assert Path("h/pki/node.csr").read_text().startswith("-----BEGIN CERTIFICATE REQUEST-----")


STATES = {
    "good": ({}, "in date", "fits"),
    "expired": ({"expired": True}, "expired", "fits"),
    "early": ({"not_yet_valid": True}, "not yet valid", "fits"),
    "locked": (
        {"passphrase": b"correct horse"},
        "in date",
        "an encrypted key and no passphrase given",
    ),
    "foreign": ({"wrong_key": True}, "in date", "a key that does not belong to the certificate"),
}


@pytest.mark.parametrize("name", STATES)
def test_show_tells_the_state_of(name: str, pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    odd, status, key = STATES[name]
    leaf = Ca().write(Path("c"), name, **odd)
    assert pki("show", leaf.crt) == 0
    text = capsys.readouterr().out
    assert f"  status       {status}\n" in text
    assert f"  private key  {key}\n" in text


def test_show_numbers_the_certificates_of_a_bundle(
    pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    leaf = Ca().intermediate().write(Path("c"), "node")
    leaf.key.unlink()
    assert pki("show", leaf.crt, "--json") == 0
    shown = lines(capsys)
    assert [one["position"] for one in shown] == [1, 2]
    assert [one["private_key"] for one in shown] == ["none beside it", None]


def test_show_escapes_what_a_stranger_wrote(pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    leaf = Ca().write(Path("c"), "node", common_name="\x1b[2Jnode\nSHA-256 0")
    assert pki("show", leaf.crt) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_one_bad_file_ends_with_1_and_the_others_are_done(
    pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    leaf = Ca().write(Path("c"), "node")
    assert pki("show", leaf.key, leaf.crt, "--json") == 1
    bad, good = lines(capsys)
    assert (bad["status"], good["status"]) == ("unreadable", "in date")
    assert pki("show", leaf.key, leaf.crt) == 1
    printed = capsys.readouterr()
    assert "found PEM of kind private key, wanted a certificate" in printed.err
    assert "in date" in printed.out


REFUSED = {
    "a missing file": ("show", "absent.crt"),
    "an empty home": ("show",),
    "a hostile name": ("issue", "../x"),
    "a bad host": ("request", "node", "--host", "10.0.0.256"),
    "no authority": ("revoke", "node"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_exit_2_in_one_line_for(case: str, pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    assert pki(*REFUSED[case]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("fly",), ("issue",), ("issue", "x", "--key", "dsa")])
def test_wrong_usage_is_argparses_2(words: tuple[str, ...], pki: Pki) -> None:
    with pytest.raises(SystemExit) as caught:
        pki(*words)
    assert caught.value.code == 2


def test_help_shows_examples(pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        pki("--help")
    assert caught.value.code == 0
    assert "dicom-secure-node pki issue ct1 --host ct1.example.org" in capsys.readouterr().out


def test_renewal_keeps_names_usage_and_kind_of_key(
    pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pki("init") == 0
    given = ("--host", "ct1.example.org", "--host", "10.0.0.7")
    assert pki("issue", "ct1", "--key", "ec", "--usage", "client", *given) == 0
    assert pki("issue", "ct1", "--renew") == 0
    capsys.readouterr()
    assert pki("show", Path("secure-node/pki/ct1.crt"), "--json") == 0
    (shown,) = lines(capsys)
    assert shown["usable_for"] == ["client"]
    assert "EC" in shown["key"]
    assert {"ct1.example.org", "10.0.0.7"} <= set(shown["names"])
