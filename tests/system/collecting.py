"""``audit collect`` as its users run it: a process of its own, its log, its folder."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from dicom_secure_node.audit.collecting.files import Follower
from dicom_secure_node.audit.collecting.records import Record
from dicom_secure_node.audit.collecting.store import RecordStore
from dicom_secure_node.errors import ServiceUnavailable
from tests import parts
from tests.system.running import COMMAND
from tests.system.served import Served

_LISTENING = re.compile(r"listening on \S+:(\d+) \(TLS[^)]*\)(?:, UDP on (\d+))?")


class Repository(Served):
    """A repository while the ``with`` block runs.

    Parameters
    ----------
    home : Path
        With ``pki``; `conftest.home` makes one.
    settings : str
        TOML to append to the table ``[collect]``.
    udp : bool
        Listen on UDP as well.
    """

    def __init__(self, home: Path, settings: str = "", *, udp: bool = False, port: int = 0) -> None:
        super().__init__(home / "collect-log.txt")
        self.home = home
        self.folder = home / "collected"
        self.config = home / "collect.toml"
        self.port = port
        self.udp_port = 0
        lines = ['host = "127.0.0.1"', f"port = {port}", *(["udp_port = 0"] if udp else [])]
        self.config.write_text("\n".join(["[collect]", *lines, settings, ""]))

    # -- life ------------------------------------------------------------------------------

    def start(self, wrap: Sequence[str] = ()) -> Self:
        """Start it, by another program if `wrap` names one, and return once it listens."""
        argv = [*wrap, *COMMAND, "audit", "collect", "--config", str(self.config)]
        self.launch(argv, self._ready, "the repository listening")
        return self

    def _ready(self) -> bool:
        found = _LISTENING.search(self.log_now)
        if found:
            self.port, self.udp_port = int(found[1]), int(found[2] or 0)
        return found is not None

    # -- what it has -----------------------------------------------------------------------

    def wait_for_log(self, *words: str, seconds: float = 30) -> str:
        """Return the first line of the log that has all `words`, once there is one."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [x for x in self.log_now.splitlines() if all(word in x for word in words)]
            return bool(found)

        parts.wait_until(look, f"{words} in the log", seconds)
        return found[0]

    def stored(self) -> list[bytes]:
        """Return every message in the log's files, indexed or not, oldest first."""
        follower = Follower(self.folder, 1)
        found: list[bytes] = []
        while lines := follower.read(2**62):
            found += [line.arrival().raw for line, _ in lines if not line.note]
        return found

    def wait_for(
        self, met: Callable[[list[bytes]], object], what: str, seconds: float = 30
    ) -> None:
        """Return once the stored messages are as wanted."""
        parts.wait_until(lambda: met(self.stored()), what, seconds)

    def indexed(self, wanted: int, seconds: float = 60, url: str = "") -> list[Record]:
        """Return the records, newest first, once the index has so many."""
        found: list[Record] = []

        def look() -> bool:
            with (
                RecordStore(self.folder, url) as store,
                contextlib.suppress(ServiceUnavailable),  # not there yet
            ):
                if sum(one.total for one in store.counts()) >= wanted:
                    found[:] = list(store.query())
            return len(found) >= wanted

        parts.wait_until(look, f"{wanted} records in the index", seconds)
        return found

    def verify(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run ``audit verify-log``."""
        argv = [*COMMAND, "audit", "verify-log", "--config", str(self.config), *options]
        return parts.run(argv, timeout=100)

    # -- senders ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def connected(self, *, certificate: bool = True) -> Iterator[ssl.SSLSocket]:
        """Yield a TLS connection of Python's own ``ssl``, as the home's client."""
        with self.connect(certificate=certificate) as secure:
            yield secure

    def connect(self, *, certificate: bool = True) -> ssl.SSLSocket:
        """Return such a connection; the caller closes it."""
        pki = self.home / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        if certificate:
            context.load_cert_chain(pki / "client.crt", pki / "client.key")
        return self.dial(context)

    def dial(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Return a connection with a context of the test's own."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return context.wrap_socket(plain, server_hostname="localhost")


def frame(*messages: bytes) -> bytes:
    """Return messages with their octet counts (RFC 5425)."""
    return b"".join(b"%d %b" % (len(one), one) for one in messages)


def memory_of(pid: int) -> int:
    """Return the resident memory of a process in octets."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
