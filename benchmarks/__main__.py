"""``python -m benchmarks``: DCMTK's storescp, bare pynetdicom and our node, side by side.

Each row of a table has its rounds, and in each round every receiver its turn, in another order
each time: the machine drifts by a factor of two from hour to hour, so only ratios within a
round mean anything. All files are in memory (tmpfs) where there is such a thing; what syncing
to a disk costs is a table of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure, receivers, report
from benchmarks.instances import MIB, loads
from benchmarks.measure import Row
from benchmarks.receivers import Pki
from benchmarks.rounds import Rounds
from benchmarks.signed import SIGNATURES, Signers

ASSOCIATIONS = (1, 4)  # at once
_TMPFS = Path("/dev/shm")  # noqa: S108 - the point is that it is memory


@dataclass(frozen=True)
class Figures:
    """What a run has found: the rows of each table, and the facts around them."""

    stores: list[Row]
    echoes: list[Row]
    synced: list[Row]
    signed: list[Row]
    facts: dict[str, str]


def main() -> int:
    """Measure, print, and return the exit code."""
    args = _arguments()
    with ExitStack() as stack:
        memory, disk = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-", dir=where)))
            for where in (_memory(), args.disk)
        )
        try:
            figures = _measure(memory, disk, args.rounds, args.quick, stack)
        except measure.Failed as exc:
            sys.stderr.write(f"{exc}\n")
            return 1
    text = _text(figures)
    sys.stdout.write(text)
    if args.output is not None:
        report.write(args.output, text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the node beside its peers."
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--quick", action="store_true", help="a few instances of each: the figures mean nothing"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.md",
        help="write the tables there, between its marks",
    )
    parser.add_argument(
        "--disk",
        type=Path,
        default=Path("/var/tmp"),  # noqa: S108 - a folder of our own is made in it
        metavar="DIR",
        help="a folder on a real disk, for what syncing costs (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    return args


def _memory() -> Path:
    """Return a folder in memory, or the usual temporary one; the facts say which."""
    mounts = Path("/proc/mounts").read_text().splitlines()
    in_memory = any(line.split()[1:3] == [str(_TMPFS), "tmpfs"] for line in mounts)
    return _TMPFS if in_memory and os.access(_TMPFS, os.W_OK) else Path(tempfile.gettempdir())


def _measure(memory: Path, disk: Path, number: int, quick: bool, stack: ExitStack) -> Figures:
    node = receivers.node(memory / "node")
    pki = Pki(memory / "node" / "pki")
    on_disk = receivers.node(disk / "node", "node, disk", pki)
    signers = Signers(memory / "verifying")
    verifying = receivers.node(
        memory / "verifying", "node, verifying", pki, receivers.ACCESS_RULE + SIGNATURES
    )
    everyone = [
        receivers.storescp(memory / "storescp", pki),
        receivers.bare(memory / "bare", pki),
        node,
    ]
    signed_takers = [everyone[0], node, verifying]
    _ = signers.signer  # the node trusts its authority from the start
    for one in (*everyone, on_disk, verifying):
        stack.callback(one.stop)
        one.start()
    facts = {
        "files": f"{memory.parent}; the disk: {disk.parent}",
        "rounds": str(number),
        "agreed TLS": "; ".join(f"{one.name} {receivers.tls_facts(one, pki)}" for one in everyone),
        "load average before": f"{os.getloadavg()[0]:.1f}",
    }
    rounds = Rounds(pki, memory / "files", number)
    rounds.warm_up((*everyone, on_disk))
    syncs = [measure.synced_files(disk, 20_480, 4 if quick else 300)]
    figures = Figures([], [], [], [], facts)
    for load in loads(quick=quick):
        for associations in ASSOCIATIONS:
            figures.stores.append(rounds.stores(load, everyone, associations))
            signed = signers.signed(load)
            figures.signed.append(rounds.stores(signed, signed_takers, associations))
            if len(load.template) < MIB:
                figures.synced.append(rounds.stores(load, [node, on_disk], associations))
    syncs.append(measure.synced_files(disk, 20_480, 4 if quick else 300))
    facts["the disk alone, before and after"] = (
        f"{syncs[0]:,.0f} and {syncs[1]:,.0f} files of 20 KiB a second, file and folder synced"
    )
    for at_once in ASSOCIATIONS:
        figures.echoes.append(rounds.echoes(4 if quick else 60, everyone, at_once))
    return figures


def _text(figures: Figures) -> str:
    """Return the sections of the page."""
    return "\n".join(
        (
            "### Against the peers\n",
            "Median (lowest to highest) of the rounds; a ratio is the median of the ratios of "
            "each round.\n",
            report.rates([*figures.stores, *figures.echoes]),
            "### What a receiver uses\n",
            "Processor time for one instance, or for one association of the last rows (median); "
            "peak of resident memory (highest).\n",
            report.costs([*figures.stores, *figures.echoes]),
            "### With every instance signed\n",
            "Creator RSA signatures (PS3.15 C.2, RSA 2048, SHA-256); one node does not look at "
            "them, the other demands and verifies them on receipt.\n",
            report.rates(figures.signed),
            "### What syncing to a disk costs\n",
            report.rates(figures.synced),
            "### The machine\n",
            report.facts(figures.facts),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
