"""``python -m benchmarks``: DCMTK, Orthanc, bare pynetdicom and our node, side by side.

Each row of a table has its rounds, and in each round every receiver its turn, in another order
each time: the machine drifts by a factor of two from hour to hour, so only ratios within a
round mean anything. All files are in memory (tmpfs) where there is such a thing; what syncing
to a disk costs is a table of its own.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import measure, page, receivers, report
from benchmarks.field import WORKERS, Field
from benchmarks.floor import floor
from benchmarks.instances import LOADS, loads
from benchmarks.progress import Progress, minutes
from benchmarks.rounds import Rounds
from benchmarks.tables import STORES, TABLES, Found, Run

_TMPFS = Path("/dev/shm")  # noqa: S108 - the point is that it is memory
_SYNCED = 20_480  # bytes of a file that is synced


def main() -> int:
    """Measure, print, and return the exit code."""
    args = _arguments()
    signal.signal(signal.SIGTERM, _end)
    found, code = Found(), 0
    with ExitStack() as stack:
        memory, disk = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-", dir=where)))
            for where in (_memory(), args.disk)
        )
        try:
            _measure(args, memory, disk, found, stack)
        except measure.Failed as exc:
            sys.stderr.write(f"{exc}\n")
            code = 1
        except KeyboardInterrupt:
            code = 130
    if code and not found.rows:
        return code
    pictures: list[Path] = []
    if args.plots is not None and not code and "peers" in found.rows:
        rows, pairs = found.rows["peers"], STORES["peers"].pairs
        pictures = args.draw(args.plots, rows, pairs, report.machine_in_short())
    text = page.text(found, pictures, args.output)
    sys.stdout.write(text)
    if args.output is not None and not code:  # half a run does not replace a whole one
        report.write(args.output, text)
    return code


def _end(*_: object) -> None:
    """End as the reader of ctrl-C does: receivers stopped, folders removed."""
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the node beside its peers."
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--tables",
        nargs="+",
        choices=TABLES,
        default=TABLES,
        metavar="NAME",
        help=f"only these: {', '.join(TABLES)}",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=LOADS,
        default=LOADS,
        metavar="NAME",
        help=f"only those of these loads: {', '.join(LOADS)}",
    )
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
        "--plots", type=Path, metavar="DIR", help="write pictures of the first table there, as PNG"
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
    if args.plots is not None:  # half an hour later would be late to say so
        try:
            args.draw = importlib.import_module("benchmarks.plots").draw
        except ImportError as exc:
            parser.error(f'--plots: {exc}: pip install "dicom-secure-node[bench]"')
    return args


def _memory() -> Path:
    """Return a folder in memory, or the usual temporary one; the facts say which."""
    mounts = Path("/proc/mounts").read_text().splitlines()
    in_memory = any(line.split()[1:3] == [str(_TMPFS), "tmpfs"] for line in mounts)
    return _TMPFS if in_memory and os.access(_TMPFS, os.W_OK) else Path(tempfile.gettempdir())


def _measure(
    args: argparse.Namespace, memory: Path, disk: Path, found: Found, stack: ExitStack
) -> None:
    """Measure, and have in `found` whatever is done if that ends early."""
    of = Field(memory, disk, stack)
    progress = Progress()
    stack.callback(progress.end)
    rounds = Rounds(of.pki, memory / "files", args.rounds, progress)
    chosen = {name: load for name, load in loads(quick=args.quick).items() if name in args.rows}
    associations, calls = ((1, 2), 8) if args.quick else ((1, 4, 8), 200)
    run = Run(of, rounds, chosen, args.tables, associations, calls)
    progress.steps = run.steps
    found.facts |= {
        "files": f"{memory.parent}; the disk: {disk.parent}",
        "rounds": str(args.rounds),
        "load average before": f"{os.getloadavg()[0]:.1f}",
    }
    with _disk_alone(disk, 4 if args.quick else 300, found, wanted="synced" in args.tables):
        run.measure(found)
    if "peers" in args.tables:
        found.floor = floor(of.pki, memory, 4 if args.quick else 256, args.rounds)
    if of.started:
        found.facts["agreed TLS"] = "; ".join(
            f"{one.name} {receivers.tls_facts(one, of.pki)}" for one in of.started.values()
        )
    if reason := of.left_out(WORKERS):
        found.facts[f"left out: {WORKERS}"] = f"this release does not have them ({reason})"
    found.facts["this run took"] = f"{minutes(progress.seconds)} minutes"


@contextmanager
def _disk_alone(disk: Path, count: int, found: Found, *, wanted: bool) -> Iterator[None]:
    """Measure what a disk does by itself, before and after."""
    if not wanted:
        yield
        return
    before = measure.synced_files(disk, _SYNCED, count)
    yield
    after = measure.synced_files(disk, _SYNCED, count)
    found.facts["the disk alone, before and after"] = (
        f"{before:,.0f} and {after:,.0f} files of 20 KiB a second, file and folder synced"
    )


if __name__ == "__main__":
    sys.exit(main())
