"""Associations as fast as a receiver gives them: TCP, TLS 1.3, C-ECHO, release, and again.

A DCMTK program for each association would be measured together with its start, and a toolkit
with its own work. Here a few processes that run already speak for themselves, over plain
sockets and the standard library's `ssl`: see `benchmarks.caller`.
"""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.measure import Failed
from benchmarks.receivers import Pki, Receiver
from tests.loopback import request_pdu
from tests.system.raw import ASSOCIATE_AC, ECHO, P_DATA, RELEASE_RP

_SECONDS = 600  # for all
_RELEASE_RQ = bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0))  # PS3.8 9.3.6
_SUCCESS = b"\0\0\0\x09\2\0\0\0\0\0"  # (0000,0900) Status 0000


@dataclass(frozen=True)
class Calls:
    """What calling a receiver came to.

    Attributes
    ----------
    seconds : float
        From the word to begin to the end of the last caller.
    resumed : int
        Associations whose handshake resumed a session.
    cpu : float
        Processor time of the callers for one association, in seconds.
    """

    seconds: float
    resumed: int
    cpu: float


def call(receiver: Receiver, pki: Pki, count: int, at_once: int, *, resume: bool) -> Calls:
    """Open `count` associations, one after the other in each of `at_once` processes.

    Raises
    ------
    Failed
        An association was not opened, or not answered.
    """
    argv = [sys.executable, "-m", "benchmarks.caller", str(receiver.process(at_once).port)]
    argv += [*pki.halves(pki.client), str(pki.authority)]
    shares = [len(range(i, count, at_once)) for i in range(at_once)]
    with contextlib.ExitStack() as stack:
        callers = [
            stack.enter_context(
                subprocess.Popen(
                    [*argv, str(share), *["--resume"] * resume],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for share in shares
        ]
        for one in callers:
            assert one.stdout is not None
            one.stdout.readline()  # it is ready
        start = time.perf_counter()
        for one in callers:
            assert one.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # what it said is read below
                one.stdin.write(f"{json.dumps(_SCRIPT)}\n")
                one.stdin.flush()
        ends = [_end(one, receiver.name) for one in callers]
    return Calls(
        max(one["ended"] for one in ends) - start,
        sum(int(one["resumed"]) for one in ends),
        sum(one["cpu"] for one in ends) / count,
    )


def _end(caller: subprocess.Popen[str], name: str) -> dict[str, float]:
    """Return what a caller found."""
    out, said = caller.communicate(timeout=_SECONDS)
    if caller.returncode:
        raise Failed(f"a caller of {name} ended: {said.strip()[-500:]}")
    found: dict[str, float] = json.loads(out)
    return found


def _p_data(command: bytes) -> bytes:
    """Return a P-DATA-TF with a whole command set (PS3.8 9.3.5, E.2)."""
    pdv = struct.pack(">LBB", len(command) + 2, 1, 3) + command
    return struct.pack(">BBL", P_DATA, 0, len(pdv)) + pdv


# As `benchmarks.caller` takes it.
_SCRIPT = [
    (request_pdu().hex(), ASSOCIATE_AC, ""),
    (_p_data(ECHO).hex(), P_DATA, _SUCCESS.hex()),
    (_RELEASE_RQ.hex(), RELEASE_RP, ""),
]
