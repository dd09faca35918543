"""The node as its users run it: a process of its own, its log, its audit trail, its archive."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pydicom.filereader
from lxml import etree

from dicom_secure_node.audit.validate import validate
from tests import parts
from tests.system.served import Served

COMMAND = (sys.executable, "-m", "dicom_secure_node")

# Audit event IDs and types of PS3.16 CID 400, 401, 403.
APPLICATION = "110100"
TRANSFERRED = "110104"
ALERT = "110113"
AUTHENTICATION = "110114"
LOGIN = "110122"
NODE_AUTHENTICATION = "110126"
CONFIGURATION = "110129"
RESTRICTED_FUNCTION = "110132"

_LISTENING = re.compile(r"listening on \S+:(\d+) \(([^,]*),")
# asctime, level and logger begin each record; a traceback follows one without.
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [a-z_.]+: ")
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Record:
    """One audit message, read as a stranger would."""

    xml: str

    @cached_property
    def root(self) -> Any:
        """The message as a tree."""
        return etree.fromstring(self.xml.encode())

    @property
    def event(self) -> str:
        """Code value of EventID."""
        return str(self.root.find("EventIdentification/EventID").get("csd-code"))

    @property
    def kind(self) -> str:
        """Code value of the first EventTypeCode; empty without."""
        found = self.root.find("EventIdentification/EventTypeCode")
        return "" if found is None else str(found.get("csd-code"))

    @property
    def outcome(self) -> int:
        """EventOutcomeIndicator."""
        return int(self.root.find("EventIdentification").get("EventOutcomeIndicator"))

    @property
    def words(self) -> str:
        """EventOutcomeDescription: what happened, in words."""
        return str(self.root.findtext("EventIdentification/EventOutcomeDescription") or "")

    @property
    def users(self) -> tuple[str, ...]:
        """UserID of each participant."""
        return tuple(str(one.get("UserID")) for one in self.root.iter("ActiveParticipant"))

    @property
    def instances(self) -> int:
        """How many instances the message counts."""
        return sum(int(one.get("NumberOfInstances") or 0) for one in self.root.iter("SOPClass"))


class Node(Served):
    """``serve`` in a process of its own, while the ``with`` block runs.

    At the end of the block every audit message is validated and every line of the log looked
    at: a peer must not be able to forge or break one, and no traceback is acceptable.

    Parameters
    ----------
    home : Path
        Of the node; `conftest.home` makes one.
    settings : str
        TOML to append to ``node.toml``.
    change : mapping of str to str
        Lines of ``node.toml``, or parts of them, and what to put in their place.
    port : int
        Of the first listener; 0 takes a free one.
    env : mapping, optional
        Added to the environment.
    """

    def __init__(
        self,
        home: Path,
        settings: str = "",
        *,
        change: Mapping[str, str] | None = None,
        port: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(home / "log.txt")
        self.home = home
        self.ports: dict[str, int] = {}
        self._port = port
        self._env = {**os.environ, **(env or {})}
        self._validated: set[str] = set()
        configure(home, settings, change or {})

    # -- life ------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the node and return once its listeners are ready."""
        self.ports = {}
        listeners = (self.home / "node.toml").read_text().count("[[listener]]\n")
        argv = [*COMMAND, "serve", "--home", str(self.home), "--port", str(self._port)]
        self.launch(argv, lambda: self._ready(listeners), "the node listening", self._env)
        return self

    def _ready(self, listeners: int) -> bool:
        self.ports = {name: int(port) for port, name in _LISTENING.findall(self.log_now)}
        return len(self.ports) == listeners

    @property
    def port(self) -> int:
        """Port of the first listener."""
        return next(iter(self.ports.values()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        code = self.stop()
        if error is not None:
            print(f"--- log of the node\n{self.log[-8000:]}")
            print("--- audit\n" + "\n".join(one.xml for one in self._records())[-8000:])
            return
        assert code == 0, f"stopped with {code}\n{self.log[-4000:]}"
        self.records()
        self.check_log()

    # -- what it says ----------------------------------------------------------------------

    def wait_for_log(self, *words: str) -> str:
        """Return the first line of the log with all of `words` in it, once it is there."""
        found: list[str] = []

        def there() -> bool:
            lines = self.log.splitlines(keepends=True)
            found[:] = [s for s in lines if s.endswith("\n") and all(w in s for w in words)]
            return bool(found)

        parts.wait_until(there, f"{words} in the log")
        return found[0].rstrip("\n")

    def check_log(self) -> None:
        """Every line is one the node wrote, whatever peers sent."""
        for line in self.log.split("\n")[:-1]:
            assert _LOG_LINE.match(line), f"not the beginning of a log record: {line!r}"
            assert not _CONTROL.search(line), f"control character in the log: {line!r}"

    # -- audit -----------------------------------------------------------------------------

    def _records(self) -> list[Record]:
        found = []
        for segment in sorted((self.home / "audit").glob("*.ndjson")):
            lines = segment.read_bytes().split(b"\n")[:-1]  # the last one may be half written
            found += [Record(json.loads(line)["xml"]) for line in lines]
        return found

    def records(self, event: str = "", kind: str = "") -> list[Record]:
        """Return the audit messages so far, of one event and type if given; all are valid."""
        found = self._records()
        for one in found:
            if one.xml not in self._validated:
                report = validate(one.xml.encode())
                assert report.valid, f"{report.problems}\n{one.xml}"
                self._validated.add(one.xml)
        return [one for one in found if event in ("", one.event) and kind in ("", one.kind)]

    def wait_for_audit(self, met: Callable[[Record], object], what: str = "") -> Record:
        """Return the first audit message `met` agrees to, once it is there."""
        found: list[Record] = []

        def there() -> bool:
            found[:] = [one for one in self.records() if met(one)]
            return bool(found)

        parts.wait_until(there, f"audit message {what}")
        return found[0]

    def wait_for_alert(self, *words: str, kind: str = NODE_AUTHENTICATION) -> Record:
        """Return the first Security Alert of `kind` with all of `words` in it."""
        return self.wait_for_audit(
            lambda one: (
                one.event == ALERT and one.kind == kind and all(word in one.words for word in words)
            ),
            f"Security Alert {kind} with {words}",
        )

    # -- what it keeps ---------------------------------------------------------------------

    def kept(self) -> dict[str, Path]:
        """Return the SHA-256 of the data set of each file in the archive."""
        files = (self.home / "archive" / "instances").rglob("*.dcm")
        return {hashlib.sha256(data_set(path)).hexdigest(): path for path in files}

    def incoming(self) -> list[Path]:
        """Return what lies in the archive's waiting room: data sets not yet kept."""
        room = self.home / "archive" / "incoming"
        return [one for one in room.iterdir() if one.suffix != ".session" and one.name != ".lock"]

    # -- peers -----------------------------------------------------------------------------

    def credential(self, name: str = "client") -> list[str]:
        """Return DCMTK's TLS options for a credential of the home's own CA."""
        pki = self.home / "pki"
        return dcmtk_tls(pki / f"{name}.key", pki / f"{name}.crt", pki / "ca.crt")

    def echo(self, *options: str, port: int = 0, name: str = "client") -> bool:
        """Tell whether DCMTK's echoscu gets an answer."""
        tls = [] if "-tls" in options else self.credential(name)
        argv = ["echoscu", *tls, *options, "-to", "10", "-ta", "10"]
        return parts.run([*argv, "127.0.0.1", str(port or self.port)]).returncode == 0

    def tls_client(self, crt: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        """Return a context of Python's own for a peer; without certificate where none given."""
        context = ssl.create_default_context(cafile=str(self.home / "pki" / "ca.crt"))
        if crt is not None:
            context.load_cert_chain(crt, key)
        return context

    def connect(
        self, *, source: str = "127.0.0.1", context: ssl.SSLContext | None = None
    ) -> ssl.SSLSocket:
        """Return a TLS connection with the home's client certificate."""
        pki = self.home / "pki"
        context = context or self.tls_client(pki / "client.crt", pki / "client.key")
        plain = tcp(self.port, source)
        try:
            return context.wrap_socket(plain, server_hostname="127.0.0.1")
        except BaseException:
            plain.close()
            raise


def tcp(port: int, source: str = "127.0.0.1") -> socket.socket:
    """Return a TCP connection to a port on loopback; any 127.x.y.z may call."""
    return socket.create_connection(("127.0.0.1", port), 20, source_address=(source, 0))


def dcmtk_tls(key: Path, crt: Path, ca: Path) -> list[str]:
    """Return DCMTK's options for TLS with a certificate."""
    return ["+tls", str(key), str(crt), "+cf", str(ca)]


def configure(home: Path, settings: str, change: Mapping[str, str]) -> None:
    """Edit the ``node.toml`` of a home."""
    path = home / "node.toml"
    text = path.read_text()
    for old, new in change.items():
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in node.toml"
        text = text.replace(old, new)
    path.write_text(text + "\n" + settings)


def cli(
    *words: str | os.PathLike[str], stdin: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a verb of the command line to its end."""
    return parts.run([*COMMAND, *words], stdin=stdin, env={**os.environ, **(env or {})})


def data_set(path: Path) -> bytes:
    """Return the bytes of a Part 10 file after its File Meta Information."""
    with path.open("rb") as file:
        pydicom.filereader.read_preamble(file, force=False)
        pydicom.filereader._read_file_meta_info(file)
        return file.read()


def closed_by_peer(sock: socket.socket) -> bool:
    """Read until the peer closes; False when it is still silent after the socket's time-out."""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        try:
            while sock.recv(65536):
                pass
        except TimeoutError:
            return False
    return True
