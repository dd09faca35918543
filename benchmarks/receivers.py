"""The programs that are measured, each a process of its own, all with the same credential."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

from dicom_secure_node.commands.home import make_home
from tests.parts import Part, free_port

# Debian's DCMTK leaves Nagle's algorithm on, which costs it 40 ms an instance or two; a
# comparison without this would flatter everybody else.
DCMTK_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}

ACCESS_RULE = """
[[access.rule]]
effect = "allow"
operation = ["C-ECHO", "C-STORE"]
"""


@dataclass(frozen=True)
class Pki:
    """The folder of a local CA, as a fresh home has it."""

    folder: Path

    def options(self, name: str) -> list[str]:
        """Return DCMTK's TLS options for the credential `name`."""
        base = self.folder / name
        return ["+tls", f"{base}.key", f"{base}.crt", "+cf", str(self.folder / "ca.crt")]


@dataclass(frozen=True)
class Receiver:
    """A program that takes C-STOREs.

    Attributes
    ----------
    name : str
    part : Part
        The process that serves one association.
    parallel : Part
        The process that serves several at once; the same one, but for DCMTK.
    received : Path
        The folder below which every received instance is one file.
    """

    name: str
    part: Part
    parallel: Part
    received: Path

    def start(self) -> None:
        """Start, and return once it listens."""
        self.part.start()
        if self.parallel is not self.part:
            self.parallel.start()

    def stop(self) -> None:
        """Stop; harmless where it has not been started."""
        self.parallel.stop()
        self.part.stop()

    def process(self, associations: int) -> Part:
        """Return the process to send to."""
        return self.part if associations == 1 else self.parallel

    def take_received(self) -> int:
        """Remove the received files and return how many there were."""
        count = 0
        for folder, _, names in os.walk(self.received):
            for name in names:
                Path(folder, name).unlink()
                count += 1
        return count


def storescp(folder: Path, pki: Pki) -> Receiver:
    """Return DCMTK's storescp, bit-preserving; it forks where there are several associations."""
    received = folder / "received"
    received.mkdir(parents=True)

    def part(*options: str) -> Part:
        port = free_port()
        argv = ["storescp", "+B", "-pdu", "131072", *options, *pki.options("node-ec")]
        argv += ["-od", str(received), str(port)]
        log = folder / f"storescp{''.join(options)}.log"
        return Part(argv, log=log, port=port, env=DCMTK_ENVIRONMENT)

    return Receiver("storescp +B", part(), part("--fork"), received)


def bare(folder: Path, pki: Pki) -> Receiver:
    """Return the least an SCP on pynetdicom can be, see `benchmarks.bare_scp`."""
    received = folder / "received"
    received.mkdir(parents=True)
    port = free_port()
    base = pki.folder / "node-ec"
    argv = [sys.executable, "-m", "benchmarks.bare_scp", str(port), str(received)]
    argv += [f"{base}.key", f"{base}.crt", str(pki.folder / "ca.crt")]
    part = Part(argv, log=folder / "bare.log", port=port)
    return Receiver("bare pynetdicom", part, part, received)


def node(
    folder: Path, name: str = "node", pki: Pki | None = None, settings: str = ACCESS_RULE
) -> Receiver:
    """Return our node with every gate on: identity, an access rule, archive and audit.

    With `pki` it takes over the credentials of another home. `settings` is added to its
    ``node.toml``.
    """
    port = free_port()
    if pki is not None:
        shutil.copytree(pki.folder, folder / "pki")
    make_home(folder, port)
    config = folder / "node.toml"
    config.write_text(config.read_text() + settings)
    argv = [sys.executable, "-m", "dicom_secure_node", "serve", "--home", str(folder)]
    part = Part(argv, log=folder / "serve.log", port=port)
    return Receiver(name, part, part, folder / "archive" / "instances")


def reset_peak(part: Part) -> None:
    """Let the kernel count the peak of resident memory anew (proc(5), clear_refs)."""
    Path(f"/proc/{part.pid}/clear_refs").write_text("5")


def peak(part: Part) -> int:
    """Return the peak of resident memory since `reset_peak`, in bytes (VmHWM)."""
    status = Path(f"/proc/{part.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, "no VmHWM in /proc: not Linux?"
    return int(found[1]) * 1024


def cpu(part: Part) -> float:
    """Return the processor time a process has used so far, in seconds, system calls included."""
    after_name = Path(f"/proc/{part.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def tls_facts(receiver: Receiver, pki: Pki) -> str:
    """Return TLS version and suite a receiver agrees on with OpenSSL's default offer."""
    context = ssl.create_default_context(cafile=str(pki.folder / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(pki.folder / "client.crt", pki.folder / "client.key")
    with (
        socket.create_connection(("127.0.0.1", receiver.parallel.port), timeout=10) as plain,
        context.wrap_socket(plain) as secure,
    ):
        suite = secure.cipher()
        return f"{secure.version()} {suite[0] if suite else ''}"
