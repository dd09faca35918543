"""A listener that only observes: everybody comes in, and the audit says who would not have."""

from __future__ import annotations

from pathlib import Path

import pydicom.data
import pytest

from tests import parts
from tests.certs import Ca
from tests.system.running import ALERT, Node, dcmtk_tls

CT = Path(str(pydicom.data.get_testdata_file("CT_small.dcm")))
OBSERVE = {'mode = "enforce"': 'mode = "observe"'}


def _credential(folder: Path, ca: Ca, **odd: bool) -> list[str]:
    leaf = ca.write(folder, "odd", **odd)
    return ["+tls", str(leaf.key), str(leaf.crt)]


CERTIFICATES = {
    "expired": lambda folder, ca: _credential(folder, ca, expired=True),
    "unknown issuer": lambda folder, ca: _credential(folder, Ca("Unknown CA")),
    "self-signed": lambda folder, ca: _credential(folder, ca, self_signed=True),
    "no certificate": lambda folder, ca: ["+tla"],
}


@pytest.mark.parametrize("word", CERTIFICATES)
def test_a_certificate_that_would_be_refused(word: str, home: Path, tmp_path: Path) -> None:
    ca = Ca("Site CA")
    ca.anchor(home / "pki" / "site.crt")
    ca.crl(home / "pki" / "site.crl")
    change = OBSERVE | {
        'trust = ["pki/ca.crt"]': 'trust = ["pki/ca.crt", "pki/site.crt"]',
        'crl = ["pki/ca.crl"]': 'crl = ["pki/ca.crl", "pki/site.crl"]',
    }
    with Node(home, change=change) as node:
        tls = [*CERTIFICATES[word](tmp_path, ca), "+cf", str(home / "pki" / "ca.crt")]
        done = parts.run(["storescu", *tls, "127.0.0.1", str(node.port), CT])
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(node.kept()) == 1
        observed = node.wait_for_audit(
            lambda one: one.event == ALERT and word in one.words, f"of {word}"
        )
        assert observed.outcome == 0
        assert "would be refused" in observed.words


def test_an_access_rule_that_would_refuse(home: Path) -> None:
    rule = '[[access.rule]]\neffect = "allow"\ncalling_ae = ["CT1"]\noperation = ["C-ECHO"]\n'
    with Node(home, rule, change=OBSERVE) as node:
        assert node.echo("-aet", "MR1")
        observed = node.wait_for_audit(lambda one: "would be refused" in one.words)
        assert observed.outcome == 0
        assert "MR1" in observed.words


def test_an_identity_that_would_be_refused(home: Path) -> None:
    change = OBSERVE | {'identity = "supports"': 'identity = "required"'}
    with Node(home, change=change) as node:
        argv = ["storescu", *node.credential(), "-usr", "eve", "-pwd", "wrong"]
        assert parts.run([*argv, "127.0.0.1", str(node.port), CT]).returncode == 0
        observed = node.wait_for_audit(lambda one: "would be refused" in one.words)
        assert observed.outcome == 0
        assert not [one for one in node.records() if one.outcome == 8]


def test_what_is_no_TLS_stays_outside(home: Path) -> None:
    with Node(home, change=OBSERVE) as node:
        assert not node.echo("-tls")
        node.wait_for_alert("refused: not TLS")


def test_enforce_beside_observe(home: Path) -> None:
    """One listener's mode is no other's."""
    strict = """
[[listener]]
name = "strict"
host = "127.0.0.1"
port = 0
"""
    stranger = Ca("Unknown CA").write(home.parent / "stranger", "stranger")
    with Node(home, strict, change=OBSERVE) as node:
        tls = dcmtk_tls(stranger.key, stranger.crt, home / "pki" / "ca.crt")
        for name, code in (("tls", True), ("strict", False)):
            done = parts.run(["echoscu", *tls, "127.0.0.1", str(node.ports[name])])
            assert (done.returncode == 0) is code, name
