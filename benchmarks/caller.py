"""One caller of `benchmarks.callers`; its program, and nothing that takes long to import.

Usage: ``python -m benchmarks.caller PORT KEY CERTIFICATE CA COUNT [--resume]``. It says ``ready``,
reads from stdin as JSON what to say, with which type of PDU the peer has to answer and what that
has to hold, then opens its associations, one after the other, and reports as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import socket
import ssl
import sys
import time
from collections.abc import Sequence

_SECONDS = 30  # for one answer

Script = Sequence[tuple[bytes, int, bytes]]  # what to send, PDU type and content of the answer


def main() -> int:
    """Be one caller."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caller")
    parser.add_argument("port", type=int)
    for name in ("key", "certificate", "ca"):
        parser.add_argument(name)
    parser.add_argument("count", type=int)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(args.ca)
    context.load_cert_chain(args.certificate, args.key)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    script = [
        (bytes.fromhex(said), kind, bytes.fromhex(wanted))
        for said, kind, wanted in json.loads(sys.stdin.readline())
    ]
    resumed, session = 0, None
    before = _used()
    for _ in range(args.count):
        again, latest = _associate(args.port, context, script, session)
        resumed += again
        session = latest if args.resume else None
    # The clock of perf_counter is one for all processes (CLOCK_MONOTONIC).
    found = {"resumed": resumed, "cpu": _used() - before, "ended": time.perf_counter()}
    sys.stdout.write(json.dumps(found))
    return 0


def _associate(
    port: int, context: ssl.SSLContext, script: Script, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession | None]:
    """Return whether the handshake was a resumed one, and the session to resume next."""
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, session=session) as secure:
            for said, kind, wanted in script:
                secure.sendall(said)
                found, content = _read(secure)
                if found != kind or wanted not in content:
                    raise ConnectionError(f"found PDU type {found}, wanted {kind} and success")
            latest = secure.session  # TLS 1.3: the ticket came after the handshake
            # Say goodbye in TLS and do not wait for the answer: OpenSSL resumes no session of a
            # connection that was cut off.
            secure.setblocking(False)
            with contextlib.suppress(OSError):
                secure.unwrap()
            return bool(secure.session_reused), latest


def _read(secure: ssl.SSLSocket) -> tuple[int, bytes]:
    header = _exactly(secure, 6)
    return header[0], _exactly(secure, int.from_bytes(header[2:], "big"))


def _exactly(secure: ssl.SSLSocket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = secure.recv(count - len(data))
        if not piece:
            raise ConnectionError("the peer has closed")
        data += piece
    return data


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
