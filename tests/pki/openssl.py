"""The openssl program, as the second opinion on everything `pki` makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.certs import Leaf

OPENSSL = "/usr/bin/openssl"
SECRET = b"planted horse"


def openssl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run openssl and return how it ended, with its output as text."""
    return subprocess.run(
        [OPENSSL, *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )


def verify(
    certificate: Path,
    anchor: Path,
    *more: str | Path,
    purpose: str = "sslserver",
) -> str:
    """Return ``OK``, or the first reason why ``openssl verify`` refuses the path."""
    done = openssl(
        *("verify", "-x509_strict", "-purpose", purpose, "-CAfile", anchor),
        *("-untrusted", certificate, *more, certificate),
    )
    if done.returncode == 0:
        return "OK"
    reasons = [line for line in done.stderr.splitlines() if " lookup: " in line]
    return reasons[0].split(" lookup: ")[1] if reasons else done.stderr


def export(leaf: Leaf, *words: str | Path, suffix: str = ".p12", secret: bytes = SECRET) -> Path:
    """Return a PKCS#12 file made of a leaf's files with ``openssl pkcs12 -export``."""
    out = leaf.key.with_suffix(suffix)
    done = openssl(
        *("pkcs12", "-export", "-in", leaf.crt, "-inkey", leaf.key, "-out", out),
        *("-passout", f"pass:{secret.decode()}", *words),
    )
    assert done.returncode == 0, done.stderr
    return out
