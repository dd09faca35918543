"""What a TLS server really offers, found out from outside with openssl."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.certs import Leaf
from tests.parts import run
from tests.tls.listener import s_client

VERSIONS = {"TLSv1": "-tls1", "TLSv1.1": "-tls1_1", "TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}
GROUPS = ("X25519", "X448", "P-256", "P-384", "P-521", "secp256k1", "brainpoolP256r1")
_CLIENT_LEVEL = "@SECLEVEL=0"


class Scan:
    """Handshakes with one server.

    Parameters
    ----------
    port : int
        On loopback.
    anchor : Path
        The authority the server's certificate has to come from.
    client : Leaf
        What to present.
    """

    def __init__(self, port: int, anchor: Path, client: Leaf) -> None:
        self._port = port
        self._options: list[str | Path] = [
            "-CAfile",
            anchor,
            "-cert",
            client.crt,
            "-key",
            client.key,
        ]

    def chosen(self, *options: str) -> str | None:
        """Return the suite a handshake with `options` ends in, None if it fails."""
        done = s_client(self._port, "-brief", *self._options, *options)
        found = re.search(r"^Ciphersuite: (\S+)$", done.stdout + done.stderr, re.MULTILINE)
        return found[1] if found and "alert" not in done.stderr else None

    def suites(self, version: str) -> list[str]:
        """Return every suite of `version` offered, in the server's order of preference.

        Everything openssl can speak is proposed, and what is chosen left out of the next
        proposal, until nothing is chosen.
        """
        left = _known(version)
        found: list[str] = []
        while left:
            if version == "TLSv1.3":
                proposal = ["-ciphersuites", ":".join(left), "-cipher", f"ALL:{_CLIENT_LEVEL}"]
            else:
                proposal = ["-cipher", ":".join([*left, _CLIENT_LEVEL])]
            suite = self.chosen(VERSIONS[version], *proposal)
            if suite is None:
                break
            found.append(suite)
            left.remove(suite)
        return found

    def versions(self) -> set[str]:
        """Return the protocol versions offered."""
        level = ["-cipher", f"ALL:{_CLIENT_LEVEL}"]
        return {name for name, flag in VERSIONS.items() if self.chosen(flag, *level)}

    def groups(self, version: str, candidates: Iterable[str] = GROUPS) -> set[str]:
        """Return which key-exchange groups are taken."""
        flag = VERSIONS[version]
        return {g for g in candidates if self.chosen(flag, "-groups", g)}


def _known(version: str) -> list[str]:
    flag = "-tls1_3" if version == "TLSv1.3" else "-tls1_2"
    listed = run(["openssl", "ciphers", flag, "-s", f"ALL:COMPLEMENTOFALL:{_CLIENT_LEVEL}"])
    names = listed.stdout.strip().split(":")
    if version == "TLSv1.3":
        names = [*names, "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"]
    return [n for n in dict.fromkeys(names) if n.startswith("TLS_") == (version == "TLSv1.3")]
