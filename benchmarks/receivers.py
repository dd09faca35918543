"""The programs that are measured, each a process of its own, all with the same credential."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

from dicom_secure_node import config
from dicom_secure_node.commands.home import make_home
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.pki.authority import LocalAuthority, local_hosts
from tests import parts
from tests.parts import Part, free_port

# Debian's DCMTK leaves Nagle's algorithm on, which costs it 40 ms an instance or two; a
# comparison without this would flatter everybody else. Orthanc is built on the same library.
DCMTK_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}

# A plain installation: see what is in that folder.
_PLAIN = Path(__file__).parent / "plain"
PYTHON_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, (str(_PLAIN), os.environ.get("PYTHONPATH")))),
}

ACCESS_RULE = """
[[access.rule]]
effect = "allow"
operation = ["C-ECHO", "C-STORE"]
"""
_MOST_PDU = 131_072  # bytes; the most DCMTK sends and takes
_SECONDS = 60  # for one answer


@dataclass(frozen=True)
class Pki:
    """The folder of a local CA, and which of its credentials the two sides show.

    Attributes
    ----------
    folder : Path
    server, client : str
        ``NAME.crt`` and ``NAME.key``; ``node`` and ``client`` are RSA 2048, ``node-ec`` and
        ``client-ec`` P-256.
    """

    folder: Path
    server: str = "node-ec"
    client: str = "client"

    @classmethod
    def make(cls, folder: Path) -> Pki:
        """Make what a fresh home has, and a client's credential with P-256."""
        authority = LocalAuthority(folder)
        authority.equip(local_hosts())
        authority.issue("client-ec", key="ec", hosts=local_hosts(), usage="client")
        return cls(folder)

    @property
    def authority(self) -> Path:
        """The certificate of the CA."""
        return self.folder / "ca.crt"

    def halves(self, name: str) -> tuple[str, str]:
        """Return key and certificate of a credential."""
        return f"{self.folder / name}.key", f"{self.folder / name}.crt"

    def options(self, name: str) -> list[str]:
        """Return DCMTK's TLS options for the credential `name`."""
        return ["+tls", *self.halves(name), "+cf", str(self.authority)]


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

    def forks(self, associations: int) -> bool:
        """Return whether each association has a process that ends with it."""
        return "--fork" in self.process(associations).argv

    def take_received(self) -> int:
        """Remove the received files and return how many there were."""
        count = 0
        for folder, _, names in os.walk(self.received):
            for name in names:
                Path(folder, name).unlink()
                count += 1
        return count


@dataclass(frozen=True)
class Orthanc(Receiver):
    """Orthanc, which keeps more than one file of an instance: it is asked instead.

    Attributes
    ----------
    web : int
        The port of its REST interface.
    """

    web: int

    def take_received(self) -> int:
        """Have the received instances deleted and return how many there were."""
        count = int(json.loads(self._ask("GET", "/statistics"))["CountInstances"])
        for patient in json.loads(self._ask("GET", "/patients")):
            self._ask("DELETE", f"/patients/{patient}")
        return count

    def _ask(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=_SECONDS)
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        finally:
            connection.close()


def storescp(folder: Path, pki: Pki) -> Receiver:
    """Return DCMTK's storescp, bit-preserving; it forks where there are several associations."""
    received = _folder(folder)
    single, forking = _storescp(folder, pki), _storescp(folder, pki, "--fork")
    return Receiver("storescp +B", single, forking, received)


def forking_storescp(folder: Path, pki: Pki) -> Receiver:
    """Return DCMTK's storescp, which forks for each association."""
    received = _folder(folder)
    part = _storescp(folder, pki, "--fork")
    return Receiver("storescp --fork", part, part, received)


def _storescp(folder: Path, pki: Pki, *options: str) -> Part:
    port = free_port()
    argv = ["storescp", "+B", "-pdu", str(_MOST_PDU), *options, *pki.options(pki.server)]
    argv += ["-od", str(folder / "received"), str(port)]
    log = folder / f"storescp{''.join(options)}.log"
    return Part(argv, log=log, port=port, env=DCMTK_ENVIRONMENT)


def orthanc(folder: Path, pki: Pki) -> Receiver:
    """Return Orthanc with TLS and client certificates, and nothing else of its choice."""
    web = free_port()
    key, certificate = pki.halves(pki.server)
    part = parts.orthanc(
        folder,
        HttpPort=web,
        DicomTlsEnabled=True,
        DicomTlsCertificate=certificate,
        DicomTlsPrivateKey=key,
        DicomTlsTrustedCertificates=str(pki.authority),
        MaximumPduLength=_MOST_PDU,
        DicomThreadsCount=8,  # for 8 associations at once; older ones have 4, and no such key
    )
    part.env = DCMTK_ENVIRONMENT
    return Orthanc("Orthanc", part, part, folder / "storage", web)


def bare(folder: Path, pki: Pki) -> Receiver:
    """Return the least an SCP on pynetdicom can be, see `benchmarks.bare_scp`."""
    received = _folder(folder)
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.bare_scp", str(port), str(received)]
    argv += [*pki.halves(pki.server), str(pki.authority)]
    part = Part(argv, log=folder / "bare.log", port=port, env=PYTHON_ENVIRONMENT)
    return Receiver("bare pynetdicom", part, part, received)


def plug_in(folder: Path, name: str, pki: Pki, *, shows_pdus: bool) -> Receiver:
    """Return the bare SCP under our rules, see `benchmarks.embedded_scp`.

    With `shows_pdus` its program looks at each PDU, and takes pynetdicom's way.
    """
    received = _folder(folder)
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.embedded_scp", str(port), str(received)]
    argv += [str(pki.folder / pki.server), str(pki.authority), str(folder)]
    argv += ["--show-pdus"] * shows_pdus
    part = Part(argv, log=folder / "embedded.log", port=port, env=PYTHON_ENVIRONMENT)
    return Receiver(name, part, part, received)


def node(
    folder: Path,
    name: str = "node",
    pki: Pki | None = None,
    settings: str = ACCESS_RULE,
    *,
    workers: int = 1,
    credential: str = "",
) -> Receiver:
    """Return our node with every gate on: identity, an access rule, archive and audit.

    Parameters
    ----------
    folder : Path
        Its home.
    name : str
    pki : Pki, optional
        Whose credentials to take over; the home makes its own without.
    settings : str
        Added to ``node.toml``.
    workers : int
        Processes that share the port.
    credential : str
        The one to show; without, RSA and P-256 by the peer's wish, as in a fresh home.
    """
    port = free_port()
    if pki is not None:
        shutil.copytree(pki.folder, folder / "pki")
    make_home(folder, port)
    path = folder / "node.toml"
    text = path.read_text() + settings
    if workers != 1:
        text = text.replace("[node]\n", f"[node]\nworkers = {workers}\n", 1)
    if credential:
        text = text.replace('["pki/node", "pki/node-ec"]', f'["pki/{credential}"]', 1)
    path.write_text(text)
    argv = [sys.executable, "-m", "dicom_secure_node", "serve", "--home", str(folder)]
    part = Part(argv, log=folder / "serve.log", port=port, env=PYTHON_ENVIRONMENT)
    return Receiver(name, part, part, folder / "archive" / "instances")


def workers_refused(number: int) -> str:
    """Return why a configuration does not take so many worker processes, or nothing."""
    try:
        config.Node(workers=number)
    except ConfigurationError as exc:
        return str(exc)
    return ""


def tls_facts(receiver: Receiver, pki: Pki) -> str:
    """Return TLS version and suite a receiver agrees on with OpenSSL's default offer."""
    context = ssl.create_default_context(cafile=str(pki.authority))
    context.check_hostname = False
    key, certificate = pki.halves(pki.client)
    context.load_cert_chain(certificate, key)
    with (
        socket.create_connection(("127.0.0.1", receiver.parallel.port), timeout=10) as plain,
        context.wrap_socket(plain) as secure,
    ):
        suite = secure.cipher()
        return f"{secure.version()} {suite[0] if suite else ''}"


def _folder(home: Path) -> Path:
    """Make a receiver's home, and return the folder in it for what is received."""
    received = home / "received"
    received.mkdir(parents=True)
    return received
