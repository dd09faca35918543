"""Rounds: every load to every receiver, in another order each time."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.instances import Load, ct
from benchmarks.measure import Row
from benchmarks.receivers import Pki, Receiver, cpu, peak, reset_peak


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
    """

    pki: Pki
    files: Path
    number: int

    def warm_up(self, takers: Sequence[Receiver]) -> None:
        """Let every receiver load what it loads only once."""
        for one in takers:
            for associations in (1, 2):
                with self._files(Load("warm-up", 4, ct(96, 96), by_size=False)) as paths:
                    measure.store(one, self.pki, paths, associations)

    def stores(self, load: Load, takers: Sequence[Receiver], associations: int) -> Row:
        """Return the row of a load sent over so many associations at once."""
        unit = "MB/s" if load.by_size else "instances/s"
        row = Row(f"{load.name}, {in_words(associations)}", unit)

        def send(receiver: Receiver) -> float:
            with self._files(load) as paths:
                return measure.store(receiver, self.pki, paths, associations)

        self._fill(row, takers, associations, load.count, load.amount, send)
        return row

    def echoes(self, count: int, takers: Sequence[Receiver], at_once: int) -> Row:
        """Return the row of associations that carry a C-ECHO, each from a process of its own."""
        row = Row(f"C-ECHO by echoscu, {at_once} at once", "associations/s")

        def send(receiver: Receiver) -> float:
            return measure.echo(receiver, self.pki, count, at_once)

        self._fill(row, takers, at_once, count, lambda seconds: count / seconds, send)
        return row

    def _fill(
        self,
        row: Row,
        takers: Sequence[Receiver],
        associations: int,
        count: int,
        rate: Callable[[float], float],
        send: Callable[[Receiver], float],
    ) -> None:
        for number in range(self.number):
            first = number % len(takers)
            for receiver in (*takers[first:], *takers[:first]):
                part = receiver.process(associations)
                reset_peak(part)
                before = cpu(part)
                row.rates.setdefault(receiver.name, []).append(rate(send(receiver)))
                if part is receiver.part:
                    row.cpu.setdefault(receiver.name, []).append((cpu(part) - before) / count)
                    row.peaks.setdefault(receiver.name, []).append(peak(part))
            latest = ", ".join(f"{name} {rates[-1]:,.0f}" for name, rates in row.rates.items())
            sys.stderr.write(f"{row.name}, round {number + 1}, {row.unit}: {latest}\n")

    @contextmanager
    def _files(self, load: Load) -> Iterator[list[Path]]:
        try:
            yield load.write(self.files)
        finally:
            shutil.rmtree(self.files)


def in_words(associations: int) -> str:
    """Return ``1 association`` or ``4 associations``."""
    return f"{associations} association{'s' * (associations > 1)}"
