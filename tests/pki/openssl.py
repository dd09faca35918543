"""The openssl program, as the second opinion on everything `pki` makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

OPENSSL = "/usr/bin/openssl"


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
