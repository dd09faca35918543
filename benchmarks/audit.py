"""``python -m benchmarks.audit``: how fast a backlog of audit messages reaches a repository's disk.

The trail delivers from its journal, with everything on: numbering, the window, the look at the
connection before each batch. Beside it stands a loop that sends frames made before over the same
TLS. The repository is rsyslog; the time ends when its file has the last message.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.measure import Failed, Row
from dicom_secure_node.audit.messages import AuditSource, Participant, user_authentication
from dicom_secure_node.audit.stored import record
from dicom_secure_node.audit.syslog import (
    SEQUENCE,
    Header,
    frame,
    identifier,
    opening,
    syslog_message,
)
from dicom_secure_node.audit.text import timestamp
from dicom_secure_node.audit.trail import AuditTrail, utc_now
from dicom_secure_node.audit.transport import Repository
from dicom_secure_node.durable.journal import Journal
from dicom_secure_node.pki.credential import load_credential
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.spec.audit import LOGIN
from dicom_secure_node.tls.context import ClientContext
from dicom_secure_node.tls.profiles import profile_named
from tests.certs import Ca, Leaf
from tests.parts import Part, rsyslog

SOURCE = AuditSource("benchmark", "4")
_PER_WRITE = 64 * 1024  # octets the bare loop gives to one write
_SECONDS = 300
_TRAIL, _BARE = "trail", "frames made before"


@dataclass(frozen=True)
class Tools:
    """Who sends to whom."""

    context: ClientContext
    ca: Path
    server: Leaf

    @classmethod
    def make(cls, folder: Path) -> Tools:
        """Make credentials below `folder`."""
        ca = Ca()
        anchor, client = ca.anchor(folder / "ca.crt"), ca.write(folder, "client")
        credential = load_credential(client.crt, client.key)
        context = ClientContext(profile_named("8996"), credential, load_trust([anchor]))
        return cls(context, anchor, ca.write(folder, "server"))

    def repository(self, folder: Path) -> Part:
        """Return rsyslog with an empty file."""
        return rsyslog(folder, ca=self.ca, crt=self.server.crt, key=self.server.key)


def main() -> int:
    """Measure, print, and return the exit code."""
    args = _arguments()
    count = 300 if args.quick else args.messages
    rates: dict[str, list[float]] = {_BARE: [], _TRAIL: []}
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=args.disk) as name:
        tools = Tools.make(Path(name))
        ways: dict[str, Callable[[Tools, Path, int], float]] = {_BARE: bare, _TRAIL: trail}
        try:
            for turn in range(args.rounds):
                for kind in list(ways)[:: -1 if turn % 2 else 1]:
                    with tempfile.TemporaryDirectory(dir=name) as own:
                        rates[kind].append(count / ways[kind](tools, Path(own), count))
        except Failed as exc:
            sys.stderr.write(f"{exc}\n")
            return 1
    sample = len(frame(_message(0)))
    row = Row(f"{count:,} messages of {sample} octets, TLS", "messages/s", rates)
    sys.stdout.write(report.rates([row]))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.audit", description="Measure delivery of the audit trail."
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--messages", type=int, default=200_000, metavar="N")
    parser.add_argument(
        "--quick", action="store_true", help="a few messages: the figures mean nothing"
    )
    parser.add_argument(
        "--disk",
        type=Path,
        default=Path("/var/tmp"),  # noqa: S108 - a folder of our own is made in it
        metavar="DIR",
        help="where the files are (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.rounds < 1 or args.messages < 1:
        parser.error("--rounds, --messages: at least 1")
    return args


def trail(tools: Tools, folder: Path, count: int) -> float:
    """Return the seconds from the start of the trail to the last message in the file."""
    store = folder / "trail"
    with Journal(store, "audit") as journal:
        journal.store_cursor("arr", 1)
        for first in range(0, count, 5000):
            numbers = range(first, min(first + 5000, count))
            journal.append_all([_record(number) for number in numbers])
    with tools.repository(folder / "arr") as arr:
        to = Repository(
            "arr", "127.0.0.1", arr.port, context=tools.context, server_name="localhost"
        )
        sender = AuditTrail(store, SOURCE, [to], hostname="node", spool_limit=count + 1)
        begin = time.perf_counter()
        sender.start()
        try:
            return _written(folder / "arr", count) - begin
        finally:
            sender.stop()


def bare(tools: Tools, folder: Path, count: int) -> float:
    """Return the seconds from the connection to the last message in the file."""
    pieces, piece = [], bytearray()
    for number in range(count):
        piece += frame(_message(number))
        if len(piece) > _PER_WRITE:
            pieces.append(bytes(piece))
            piece.clear()
    pieces.append(bytes(piece))
    with tools.repository(folder / "arr") as arr:
        begin = time.perf_counter()
        raw = socket.create_connection(("127.0.0.1", arr.port))
        with tools.context.wrap_socket(raw, server_hostname="localhost") as secure:
            for octets in pieces:
                secure.sendall(octets)
            return _written(folder / "arr", count) - begin


def _written(folder: Path, count: int) -> float:
    """Return when the last of `count` messages was in the repository's file."""
    last = b"number %d<" % (count - 1)
    path = folder / "arrived.log"
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if path.exists():
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 4096))
                if last in file.read():
                    return time.perf_counter()
        time.sleep(0.02)
    raise Failed(f"{path}: the last message did not come within {_SECONDS} s")


def _xml(number: int) -> str:
    who = Participant("ada", requestor=True, name="Ada", address="192.0.2.1")
    message = user_authentication(LOGIN, who, reason=f"number {number}")
    return message.to_xml(SOURCE, utc_now())


def _message(number: int) -> bytes:
    fields = Header("node", "dicom-secure-node", str(os.getpid())).fields()
    begin = opening(85, timestamp(utc_now()), fields)
    return syslog_message(begin, identifier(SEQUENCE, number + 1, ""), _xml(number).encode())


def _record(number: int) -> dict[str, object]:
    return record(timestamp(utc_now()), 85, _xml(number))


if __name__ == "__main__":
    sys.exit(main())
