"""Send to a receiver with DCMTK's programs and take the time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.receivers import DCMTK_ENVIRONMENT, Pki, Receiver
from tests.parts import program

_SECONDS = 600  # for one sender to end


class Failed(Exception):
    """A receiver did not take everything: a figure would mean nothing."""


@dataclass
class Row:
    """The figures of one load with so many associations, by receiver, one a round.

    Attributes
    ----------
    rates : dict
        In the row's unit.
    cpu : dict
        Processor time of the receiver for one instance or association, in seconds. Other
        than rates it hardly minds what else the machine does.
    peaks : dict
        Of resident memory, in bytes. A receiver that forks has none: its processes are gone.
    gib : float
        What one instance is, in GiB; 0 where nothing is stored.
    """

    name: str
    unit: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, list[int]] = field(default_factory=dict)
    gib: float = 0.0

    def ratios(self, name: str, base: str) -> list[float]:
        """Return `name` relative to `base` in the same round, for each round."""
        pairs = zip(self.rates[name], self.rates[base], strict=True)
        return [one / other for one, other in pairs]


def store(receiver: Receiver, pki: Pki, paths: Sequence[Path], associations: int) -> float:
    """Send the files over so many associations at once.

    Returns
    -------
    float
        Seconds from the start of the first sender to the end of the last.

    Raises
    ------
    Failed
        A sender ended badly, or not every file arrived.
    """
    port = str(receiver.process(associations).port)
    argv = [program("storescu"), *pki.options(pki.client), "127.0.0.1", port]
    shares = [[str(path) for path in paths[i::associations]] for i in range(associations)]
    seconds = _timed([partial(_run, [*argv, *share]) for share in shares])
    arrived = receiver.take_received()
    if arrived != len(paths):
        raise Failed(f"{receiver.name} kept {arrived} of {len(paths)} instances")
    return seconds


def synced_files(folder: Path, size: int, count: int) -> float:
    """Return how many files a second a disk keeps: write, sync, rename, sync the folder."""
    data = os.urandom(size)
    with ExitStack() as stack:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        start = time.perf_counter()
        for number in range(count):
            path = folder / f"{number}.part"
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            path.rename(folder / f"{number}.dcm")
            os.fsync(descriptor)
        seconds = time.perf_counter() - start
    for path in folder.glob("*.dcm"):
        path.unlink()
    return count / seconds


def _timed(jobs: Sequence[Callable[[], None]]) -> float:
    with ThreadPoolExecutor(len(jobs)) as pool:
        start = time.perf_counter()
        running = [pool.submit(job) for job in jobs]
        for one in running:
            one.result()
        return time.perf_counter() - start


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(
        argv, env=DCMTK_ENVIRONMENT, capture_output=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise Failed(f"{Path(argv[0]).name} ended with {done.returncode}: {said[-500:]}")
