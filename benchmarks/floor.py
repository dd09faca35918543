"""What no receiver in Python gets below: the processor time of work that C code does for it.

A node opens TLS records, hashes what comes out and writes it. Each is measured by itself, in this
process and in pieces of a MiB, without a socket.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.instances import MIB
from benchmarks.receivers import Pki

_RECORD = 16_384  # bytes; the most of one TLS record


def floor(pki: Pki, folder: Path, pieces: int, rounds: int) -> dict[str, float]:
    """Return seconds of processor time for a GiB (median), by kind of work."""
    work: dict[str, Callable[[], Iterator[None]]] = {
        "open TLS 1.3 records": lambda: _opening(pki, pieces),
        "SHA-256": lambda: _hashing(pieces),
        "write to a file": lambda: _writing(folder, pieces),
    }
    found: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, start in work.items():
            found[name].append(_timed(start()) / pieces * 1024)
    return {name: median(each) for name, each in found.items()}


def _timed(work: Iterator[None]) -> float:
    """Return the processor time of every second stretch: what comes before it is preparation."""
    seconds = 0.0
    for _ in work:
        start = time.process_time()
        next(work)
        seconds += time.process_time() - start
    return seconds


def _opening(pki: Pki, pieces: int) -> Iterator[None]:
    """Yield after a piece is encrypted, and after it is decrypted."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(*reversed(pki.halves(pki.server)))
    server_side.minimum_version = ssl.TLSVersion.TLSv1_3
    client_side = ssl.create_default_context(cafile=str(pki.authority))
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server, server_hostname="localhost")
    _shake_hands(client, server)
    data, buffer = os.urandom(MIB), bytearray(_RECORD)
    for _ in range(pieces):
        client.write(data)
        yield
        taken = 0
        while taken < MIB:
            taken += server.read(_RECORD, buffer)
        yield


def _shake_hands(client: ssl.SSLObject, server: ssl.SSLObject) -> None:
    waiting = [client, server]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)


def _hashing(pieces: int) -> Iterator[None]:
    data, digest = os.urandom(MIB), hashlib.sha256()
    for _ in range(pieces):
        yield
        digest.update(data)
        yield


def _writing(folder: Path, pieces: int) -> Iterator[None]:
    path, data = folder / "floor", os.urandom(MIB)
    with path.open("wb", buffering=0) as file:
        for _ in range(pieces):
            yield
            file.write(data)
            yield
    path.unlink()
