"""``python -m benchmarks.soak``: does the node stay as it is, and lose nothing, over a million?

Several peers send small instances to ``serve`` with everything on, in thousands of associations,
some of which end badly. Meanwhile the resident memory, descriptors and threads of the node are
sampled, and each instance that was acknowledged is compared with its file and then deleted, so
that a long run needs no more room than its index. A straight line through the samples after the
warm-up says whether something grows. Exit code 1: something was lost, or grows.
"""

from __future__ import annotations

import argparse
import re
import ssl
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.__main__ import _memory
from benchmarks.receivers import ACCESS_RULE, Receiver, node
from benchmarks.soak_sender import Failed, Work, connects, data_set, send, serial_of, uid_of
from dicom_secure_node.archive import Archive
from dicom_secure_node.archive.layout import path_of
from dicom_secure_node.elements.part10 import MEDIA_STORAGE_SOP_INSTANCE, read_header
from tests.parts import free_port

SENDERS = 6
MIB = 1 << 20
ROWS = 12  # of the table
_ENOUGH = 30  # samples for a verdict
_SETTINGS = """
[[listener]]
name = "clear"
host = "127.0.0.1"
port = {port}
profile = "plain"
"""


@dataclass(frozen=True)
class Sample:
    """The node at one moment; its worker processes count as part of it.

    Attributes
    ----------
    instances : int
        Compared so far.
    resident : int
        Memory of its own, in bytes: libraries and files that happen to be mapped are not in it.
    descriptors, threads : int
    """

    instances: int
    resident: int
    descriptors: int
    threads: int


# What may be grown by over a whole run: what a line through noise can show.
ALLOWED = {"resident": 4 * MIB, "descriptors": 4.0, "threads": 4.0}


@dataclass
class Found:
    """What the archive held, as far as it was compared."""

    compared: int = 0
    lost: int = 0
    altered: int = 0


def main() -> int:
    """Run, print, and return the exit code."""
    args = _arguments()
    count = 2_000 if args.quick else args.instances
    with tempfile.TemporaryDirectory(prefix="soak-", dir=args.disk or _memory()) as name:
        home = Path(name) / "node"
        plain = free_port()
        receiver = node(home, settings=ACCESS_RULE + _SETTINGS.format(port=plain))
        receiver.start()
        try:
            work, found = Work(count), Found()
            start = time.monotonic()
            samples = _run(receiver, plain, work, found, 0.05 if args.quick else args.every)
            seconds = time.monotonic() - start
        except Failed as exc:
            sys.stderr.write(f"{exc}\n")
            return 1
        finally:
            code = receiver.part.stop()
        with Archive(home / "archive") as archive:
            indexed = archive.counts().instances
            left = [_intact(path) for path in archive.paths()]
    verdicts = _verdicts(samples, quick=args.quick)
    good = found.compared == indexed == count and not (found.lost or found.altered or code)
    good = good and all(left)
    facts = {
        "instances acknowledged": f"{count:,}",
        "compared with their files": f"{found.compared:,}",
        "lost": f"{found.lost:,}",
        "altered": f"{found.altered:,}",
        "in the index": f"{indexed:,}",
        "kept again after they were deleted, whole": f"{sum(left):,} of {len(left):,}",
        "exit code of the node": str(code),
        "instances/s": f"{count / seconds:,.0f}",
        "associations": "; ".join(f"{n:,} {way}" for way, n in work.ended.most_common()),
    }
    sys.stdout.write(_text(samples, verdicts, facts))
    return 0 if good and "grows" not in verdicts.values() else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description="Send for a long time, and look for leaks."
    )
    parser.add_argument("--instances", type=int, default=1_000_000, metavar="N")
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS", help="between two samples"
    )
    parser.add_argument(
        "--disk", type=Path, metavar="DIR", help="where the node lives (default: in memory)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="2,000 instances: too few for a verdict on leaks"
    )
    args = parser.parse_args()
    if args.instances < 1 or args.every <= 0:
        parser.error("--instances and --every: more than nothing")
    return args


def _run(receiver: Receiver, plain: int, work: Work, found: Found, every: float) -> list[Sample]:
    """Send everything, compare meanwhile, and return the samples."""
    pki = receiver.received.parents[1] / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(pki / "client.crt", pki / "client.key")
    ways = list(connects(plain, receiver.part.port, context))
    archive = receiver.received.parent
    samples = [_sample(receiver.part.pid, 0)]
    with ThreadPoolExecutor(SENDERS) as pool:
        sending = [pool.submit(send, work, ways, seed) for seed in range(SENDERS)]
        next_look = time.monotonic()
        while work.acknowledged or not all(one.done() for one in sending):
            if not work.acknowledged:
                _wait(sending, every)
            else:
                _compare(archive, work.acknowledged.popleft(), found)
            if time.monotonic() >= next_look:
                samples.append(_sample(receiver.part.pid, found.compared))
                next_look = time.monotonic() + every
        for one in sending:
            one.result()
    samples.append(_sample(receiver.part.pid, found.compared))
    return samples


def _wait(sending: Sequence[Future[None]], seconds: float) -> None:
    """Return after a moment, at once where a sender has failed."""
    for one in sending:
        if one.done():
            one.result()
    time.sleep(min(seconds, 0.02))


def _compare(archive: Path, serial: int, found: Found) -> None:
    """Compare the file of an instance with what was sent, and delete it."""
    path = archive / path_of(uid_of(serial))
    found.compared += 1
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        found.lost += 1
    else:
        found.altered += not content.endswith(data_set(serial))
        path.unlink()


def _intact(path: Path) -> bool:
    """Tell whether a file that is left holds what was sent.

    Who leaves before the answer sends again, and may be answered and have the file compared and
    deleted before the node is done with the first one. That one is then kept once more.
    """
    with path.open("rb") as file:
        uid = read_header(file).text(MEDIA_STORAGE_SOP_INSTANCE)
        return file.read() == data_set(serial_of(uid))


# -- the node, from outside ----------------------------------------------------------------


def _sample(pid: int, instances: int) -> Sample:
    resident = descriptors = threads = 0
    for one in _family(pid):
        process = Path(f"/proc/{one}")
        found = re.search(r"^RssAnon:\s+(\d+) kB$", (process / "status").read_text(), re.MULTILINE)
        resident += int(found[1]) * 1024 if found else 0
        descriptors += len(list((process / "fd").iterdir()))
        threads += len(list((process / "task").iterdir()))
    return Sample(instances, resident, descriptors, threads)


def _family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    family = [pid]
    for one in family:
        for task in Path(f"/proc/{one}/task").iterdir():
            with suppress(OSError):  # the thread has ended meanwhile
                family += [int(child) for child in (task / "children").read_text().split()]
    return family


def _verdicts(samples: Sequence[Sample], *, quick: bool) -> dict[str, str]:
    """Return for each kind of thing whether it grows, by a line through what is after warm-up."""
    settled = _settled(samples)
    if quick or len(settled) < _ENOUGH:
        return dict.fromkeys(ALLOWED, "too few samples to say")
    return {
        name: "flat" if _growth(settled, name) <= allowed else "grows"
        for name, allowed in ALLOWED.items()
    }


def _settled(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples of the last four fifths, without the last: the peers are gone then."""
    return [one for one in samples[:-1] if one.instances >= samples[-1].instances / 5]


def _growth(samples: Sequence[Sample], name: str) -> float:
    """Return by how much the line of least squares rises from the first sample to the last."""
    xs = [float(one.instances) for one in samples]
    ys = [float(getattr(one, name)) for one in samples]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    width = sum((x - mean_x) ** 2 for x in xs)
    if not width:
        return 0.0
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / width
    return slope * (xs[-1] - xs[0])


def _text(samples: Sequence[Sample], verdicts: dict[str, str], facts: dict[str, str]) -> str:
    """Return the tables."""
    step = max(1, (len(samples) - 1) // (ROWS - 1))
    shown = [*samples[:-1:step], samples[-1]]
    settled = _settled(samples)
    units = {"resident": MIB, "descriptors": 1, "threads": 1}
    names = {"resident": "resident memory, MiB", "descriptors": "descriptors", "threads": "threads"}
    rows = [
        [f"{one.instances:,}", *(f"{getattr(one, n) / units[n]:,.0f}" for n in names)]
        for one in shown
    ]
    growth = [
        [names[name], f"{_growth(settled, name) / units[name]:+.2f}", verdict]
        for name, verdict in verdicts.items()
    ]
    return "\n".join(
        (
            report.table(["instances", *names.values()], rows),
            report.table(["after the first fifth", "rise of the line", "verdict"], growth),
            report.table(["of the run", ""], [[key, value] for key, value in facts.items()]),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
