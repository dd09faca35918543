"""A stray OPENSSL_CONF changes nothing of what a profile lets through."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.parts import run
from tests.tls.conftest import Pki
from tests.tls.scan import Scan

STRANGER = Path(__file__).with_name("stranger.cnf")
ROOT = Path(__file__).parents[2]


# Settings we cannot set back: with them there is no context.
REFUSED = {
    "ClientSignatureAlgorithms = RSA+SHA1": "ClientSignatureAlgorithms is set",
    "Options = -ExtendedMasterSecret": "extended_master_secret is switched off",
    "Options = UnsafeLegacyRenegotiation": "unsafe renegotiation is allowed",
    "Options = UnsafeLegacyServerConnect": "without secure renegotiation",
    "Options = AllowNoDHEKEX": "without Diffie-Hellman",
    "Options = -EncryptThenMac": "encrypt_then_mac is switched off",
    "Protocol = ALL,-TLSv1.2": "TLS 1.2 is switched off",
    "Protocol = ALL,-TLSv1.3": "TLS 1.3 is switched off",
}


@contextmanager
def served(profile: str, pki: Pki, conf: Path | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the port of a server process, and the suites its OpenSSL is configured for."""
    env = {name: value for name, value in os.environ.items() if name != "OPENSSL_CONF"}
    if conf:
        env["OPENSSL_CONF"] = str(conf)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.tls.serve", profile, str(pki.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        cwd=ROOT,
    ) as process:
        assert process.stdout
        port, unset = process.stdout.readline().split()
        yield int(port), unset.split(",")
        process.communicate("", timeout=30)


def behaviour(profile: str, pki: Pki, conf: Path | None) -> dict[str, object]:
    with served(profile, pki, conf) as (port, unset):
        # The file must be seen to work where nothing is set, or this would prove nothing.
        assert ("TLS_AES_128_CCM_8_SHA256" in unset) == (conf is not None)
        scan = Scan(port, pki.anchor, pki.client_rsa)
        weak = ["-tls1_2", "-cipher", "ALL:@SECLEVEL=0", "-sigalgs", "RSA+SHA1:ECDSA+SHA1"]
        return {
            "versions": scan.versions(),
            "suites": scan.suites("TLSv1.2"),
            "TLS 1.3 suites": scan.suites("TLSv1.3"),
            "groups": scan.groups("TLSv1.2"),
            "TLS 1.3 groups": scan.groups("TLSv1.3"),
            "SHA-1": scan.chosen(*weak),
        }


@pytest.mark.parametrize("profile", ["8996", "8996-mod"])
def test_B12_B13_are_the_same_under_a_hostile_configuration(profile: str, pki: Pki) -> None:
    clean = behaviour(profile, pki, None)
    assert clean["versions"] == {"TLSv1.2", "TLSv1.3"}
    assert behaviour(profile, pki, STRANGER) == clean


@pytest.mark.parametrize(("setting", "words"), REFUSED.items(), ids=REFUSED)
@pytest.mark.parametrize("profile", ["8996", "8996-mod"])
def test_B12_B13_what_cannot_be_set_back_is_refused_plainly(
    setting: str, words: str, profile: str, pki: Pki, tmp_path: Path
) -> None:
    conf = tmp_path / "openssl.cnf"
    text = STRANGER.read_text()
    conf.write_text(text[: text.index("MinProtocol")] + setting + "\n")
    done = run(
        [sys.executable, "-m", "tests.tls.serve", profile, pki.folder],
        env={**os.environ, "OPENSSL_CONF": str(conf)},
        cwd=ROOT,
    )
    assert done.returncode != 0
    assert "ConfigurationError: " in done.stderr
    assert words in done.stderr
    assert "OPENSSL_CONF" in done.stderr
