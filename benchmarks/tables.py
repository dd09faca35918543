"""The tables of a run: which receivers are in each, and the rows it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.callers import Calls
from benchmarks.field import (
    BARE,
    CREDENTIALS,
    FORKING,
    NODE,
    ON_DISK,
    ORTHANC,
    PLUG_IN,
    PLUG_IN_STOCK,
    STORESCP,
    VERIFYING,
    WORKERS,
    Field,
)
from benchmarks.instances import Load
from benchmarks.measure import Row
from benchmarks.rounds import Rounds

CALLS = "associations"  # the table without a load
NOT_OFFERED = "not offered (decision 2)"
_CALLERS = 4  # at once

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Receivers side by side.

    Attributes
    ----------
    takers : tuple of str
        In the order of the columns.
    pairs : tuple of (str, str)
        Each the first relative to the second.
    loads : tuple of str
        What is sent.
    """

    takers: tuple[str, ...]
    pairs: Pairs
    loads: tuple[str, ...] = ("ct", "small", "large")


STORES: Mapping[str, Table] = {
    "peers": Table(
        (STORESCP, ORTHANC, BARE, NODE, WORKERS),
        (
            (NODE, STORESCP),
            (NODE, ORTHANC),
            (NODE, BARE),
            (WORKERS, STORESCP),
            (WORKERS, NODE),
        ),
    ),
    "plug-in": Table((BARE, PLUG_IN_STOCK, PLUG_IN), ((PLUG_IN_STOCK, BARE), (PLUG_IN, BARE))),
    "signed": Table((STORESCP, NODE, VERIFYING), ((VERIFYING, STORESCP), (VERIFYING, NODE))),
    "synced": Table((NODE, ON_DISK), ((ON_DISK, NODE),), ("ct", "small")),
}
CALL_PAIRS: Pairs = ((NODE, FORKING), (NODE, BARE))
TABLES = (*STORES, CALLS)


@dataclass
class Found:
    """What a run has found.

    Attributes
    ----------
    rows : dict
        By name of the table; tables that were not asked for are not there.
    resumed : list of Row
        Associations of callers that resume, of the peers that let them.
    floor : dict
        See `benchmarks.floor`; beside the peers.
    facts : dict
        What a reader needs to know beside the rows.
    """

    rows: dict[str, list[Row]] = field(default_factory=dict)
    resumed: list[Row] = field(default_factory=list)
    floor: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A run of some tables with some loads.

    Attributes
    ----------
    of : Field
    rounds : Rounds
    loads : dict of str to Load
    tables : sequence of str
        Names of `TABLES`.
    associations : sequence of int
        How many at once, for the tables of loads.
    calls : int
        How many one after the other, for the table of associations.
    """

    of: Field
    rounds: Rounds
    loads: Mapping[str, Load]
    tables: Sequence[str]
    associations: Sequence[int]
    calls: int

    @property
    def steps(self) -> int:
        """How many rounds there are, of all rows."""
        rows = sum(1 for _ in self._stores())
        rows += 2 * len(CREDENTIALS) * (CALLS in self.tables)
        return rows * self.rounds.number

    def measure(self, found: Found) -> None:
        """Measure row after row; `found` has what is done if one fails."""
        for name, row in self._stores():
            found.rows.setdefault(name, []).append(row())
        if CALLS in self.tables:
            self._call(found)

    def _stores(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """Yield the rows of C-STOREs, each to be called for, with its table's name."""
        for name, table in STORES.items():
            for load in self.loads if name in self.tables else ():
                for associations in self.associations if load in table.loads else ():
                    yield name, self._store(name, self.loads[load], associations)

    def _store(self, name: str, load: Load, associations: int) -> Callable[[], Row]:
        def row() -> Row:
            who = self.of.takers(self.rounds, *STORES[name].takers)
            sent = self.of.signers.signed(load) if name == "signed" else load
            return self.rounds.stores(sent, who, associations)

        return row

    def _call(self, found: Found) -> None:
        callers: list[Calls] = []
        for kind in CREDENTIALS:
            who = self.of.callable_ones(kind)
            for receiver, pki in who.items():
                self.rounds.warm_up_calls(receiver, pki)
            row, calls = self.rounds.calls(kind, who, self.calls, _CALLERS)
            found.rows.setdefault(CALLS, []).append(row)
            callers += [one for each in calls.values() for one in each]
            again, calls = self.rounds.calls(
                f"{kind}, resumed", who, self.calls, _CALLERS, resume=True
            )
            for name, each in calls.items():
                if not any(one.resumed for one in each):
                    del again.rates[name], again.cpu[name]
            shares = ", ".join(
                f"{name} {sum(one.resumed for one in each) / len(each) / self.calls:.0%}"
                for name, each in calls.items()
            )
            found.facts[f"handshakes that resumed where the caller asked, {kind}"] = shares
            found.resumed.append(again)
        found.facts["a caller's own processor time for an association"] = (
            f"{median(one.cpu for one in callers) * 1000:.1f} ms"
        )
