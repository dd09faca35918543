"""Rounds: every load to every receiver, in another order each time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import measure, processes
from benchmarks.callers import Calls, call
from benchmarks.instances import Load, ct
from benchmarks.measure import Row
from benchmarks.progress import Progress
from benchmarks.receivers import Pki, Receiver

WARM_UP = Load("warm-up", 4, ct(96, 96), by_size=False)


@dataclass(frozen=True)
class Rounds:
    """How a run measures.

    Attributes
    ----------
    pki : Pki
    files : Path
        The folder to make files to send in; does not exist in between.
    number : int
        Figures of each receiver in each row.
    progress : Progress
        Is told each round.
    """

    pki: Pki
    files: Path
    number: int
    progress: Progress

    def warm_up(self, receiver: Receiver, load: Load = WARM_UP) -> None:
        """Let a receiver load what it loads only once."""
        for associations in (1, 2):
            with self._files(load) as paths:
                measure.store(receiver, self.pki, paths, associations)

    def warm_up_calls(self, receiver: Receiver, pki: Pki) -> None:
        """Let a receiver load what it loads for a first association."""
        call(receiver, pki, 4, 2, resume=False)

    def stores(self, load: Load, takers: Sequence[Receiver], associations: int) -> Row:
        """Return the row of a load sent over so many associations at once."""
        load = replace(load, count=max(load.count, associations))
        unit = "MB/s" if load.by_size else "instances/s"
        row = Row(
            f"{load.name}, {in_words(associations)}", unit, gib=len(load.template) / (1 << 30)
        )

        def send(receiver: Receiver) -> float:
            with self._files(load) as paths:
                return load.amount(measure.store(receiver, self.pki, paths, associations))

        self._fill(row, takers, associations, load.count, send)
        return row

    def calls(
        self,
        name: str,
        takers: Mapping[Receiver, Pki],
        count: int,
        at_once: int,
        *,
        resume: bool = False,
    ) -> tuple[Row, dict[str, list[Calls]]]:
        """Return the row of associations that carry a C-ECHO, and what the callers found."""
        row = Row(f"{name}, {at_once} at once", "associations/s")
        found: dict[str, list[Calls]] = {}

        def send(receiver: Receiver) -> float:
            calls = call(receiver, takers[receiver], count, at_once, resume=resume)
            found.setdefault(receiver.name, []).append(calls)
            return count / calls.seconds

        self._fill(row, list(takers), at_once, count, send)
        return row, found

    def _fill(
        self,
        row: Row,
        takers: Sequence[Receiver],
        associations: int,
        count: int,
        send: Callable[[Receiver], float],
    ) -> None:
        for receiver in takers:  # columns in the order given
            row.rates[receiver.name], row.cpu[receiver.name] = [], []
        for number in range(self.number):
            first = number % len(takers)
            for receiver in (*takers[first:], *takers[:first]):
                pid = receiver.process(associations).pid
                processes.reset_peak(pid)
                before = processes.cpu(pid)
                row.rates[receiver.name].append(send(receiver))
                row.cpu[receiver.name].append((processes.cpu(pid) - before) / count)
                if not receiver.forks(associations):
                    row.peaks.setdefault(receiver.name, []).append(processes.peak(pid))
            latest = ", ".join(f"{name} {rates[-1]:,.0f}" for name, rates in row.rates.items())
            self.progress.step(f"{row.name}, {row.unit}: {latest}")

    @contextmanager
    def _files(self, load: Load) -> Iterator[list[Path]]:
        try:
            yield load.write(self.files)
        finally:
            shutil.rmtree(self.files)


def in_words(associations: int) -> str:
    """Return ``1 association`` or ``4 associations``."""
    return f"{associations} association{'s' * (associations > 1)}"
