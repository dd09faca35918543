"""``python -m benchmarks.signatures``: what verifying and making digital signatures costs.

In one process, verification stands beside what nobody can do without: reading the file and hashing
it once with SHA-256. Whole processes stand beside dcmsign, the one other implementation of
PS3.15 Annex C: ours takes all files of a batch, dcmsign one file a process. Memory is measured
over an instance that is one hole, so that nothing but our own use shows.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import report
from benchmarks.instances import MIB, ct, multi_frame
from benchmarks.measure import Failed
from dicom_secure_node.pki.files import read_certificates
from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.signers import Signer, load_signer
from dicom_secure_node.pki.trust import TrustStore
from dicom_secure_node.signatures.sign import sign_file
from dicom_secure_node.signatures.verify import Verifier
from tests.certs import Ca
from tests.parts import program

_SECONDS = 600  # for one process to end
_HOLE = """
import resource, sys
from pathlib import Path
from benchmarks.signatures import growth
sys.stdout.write(str(growth(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))))
"""


@dataclass(frozen=True)
class Tools:
    """Who signs and who verifies.

    Attributes
    ----------
    folder : Path
        ``signer.key``, ``signer.crt`` and ``ca.crt`` are in it.
    signer : Signer
    verifier : Verifier
    """

    folder: Path
    signer: Signer
    verifier: Verifier


def main() -> int:
    """Measure, print, and return the exit code."""
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        tools = _tools(folder)
        try:
            for text in _tables(tools, folder, args.rounds, quick=args.quick):
                sys.stdout.write(text + "\n")
        except Failed as exc:
            sys.stderr.write(f"{exc}\n")
            return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.signatures", description="Measure digital signatures."
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--quick", action="store_true", help="the figures mean nothing")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    return args


def _tools(folder: Path) -> Tools:
    ca = Ca("Benchmark signers")
    leaf = ca.write(folder, "signer", key="rsa", usage="none")
    ca.anchor(folder / "ca.crt")
    return Tools(folder, load_signer(str(leaf.key), leaf.crt), _verifier(folder / "ca.crt"))


def _verifier(anchor: Path) -> Verifier:
    return Verifier(PathValidator(TrustStore(tuple(read_certificates(anchor)))))


def _tables(tools: Tools, folder: Path, rounds: int, *, quick: bool) -> Iterator[str]:
    size = 1 if quick else 100
    loads = {
        "CT, 0.5 MiB": (ct(512, 512), 4 if quick else 200),
        f"multi-frame, {size} MiB": (multi_frame(2 * size), 1 if quick else 3),
    }
    header = ["in one process, ms", "read + SHA-256", "verify", "ratio", "sign", "sign / hash"]
    rows = [
        [name, *_in_process(tools, folder / "one.dcm", template, count, rounds)]
        for name, (template, count) in loads.items()
    ]
    yield report.table(header, rows)
    template, _ = loads["CT, 0.5 MiB"]
    count = 2 if quick else 50
    header = [f"whole processes, {count} CT of 0.5 MiB, s", "dcmsign", "ours", "ours / dcmsign"]
    yield report.table(header, [["verify", *_processes(tools, folder, template, count, rounds)]])
    hole = (1 << 24) if quick else (2 << 30)
    grown = _memory(tools, folder, hole)
    yield report.table(
        ["memory beyond a small instance, MiB", "verify"],
        [[f"a hole of {hole >> 20} MiB, signed", f"{grown / MIB:.0f}"]],
    )


# -- in one process ------------------------------------------------------------------------


def _in_process(
    tools: Tools, path: Path, template: bytes, count: int, rounds: int
) -> Iterator[str]:
    """Yield medians in milliseconds, and medians of the ratios of each round."""
    unsigned = path.with_suffix(".unsigned")
    unsigned.write_bytes(template)
    with path.open("wb") as out:
        sign_file(unsigned, out, tools.signer)
    _expect_valid(tools.verifier, path)

    def sign() -> None:
        sign_file(unsigned, io.BytesIO(), tools.signer)

    jobs: list[Callable[[], object]] = [
        lambda: _read_and_hash(path),
        lambda: tools.verifier.verify_file(path),
        sign,
    ]
    times: list[list[float]] = [[] for _ in jobs]
    for number in range(rounds):
        first = number % len(jobs)
        for at in (*range(first, len(jobs)), *range(first)):
            times[at].append(_each(jobs[at], count))
    hashed, verified, signed = times
    yield _milliseconds(hashed)
    yield _milliseconds(verified)
    yield _ratio(verified, hashed)
    yield _milliseconds(signed)
    yield _ratio(signed, hashed)
    path.unlink()
    unsigned.unlink()


def _read_and_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _each(job: Callable[[], object], count: int) -> float:
    """Return the median of the seconds one run takes."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{median(seconds) * 1000:.2f}"


def _ratio(ours: Sequence[float], base: Sequence[float]) -> str:
    return f"{median(one / other for one, other in zip(ours, base, strict=True)):.2f}"


def _expect_valid(verifier: Verifier, path: Path) -> None:
    found = verifier.verify_file(path)
    if not found.signatures or not all(one.valid for one in found.signatures):
        raise Failed(f"no valid signature: {found.problem or found.signatures}")


# -- whole processes -----------------------------------------------------------------------


def _processes(
    tools: Tools, folder: Path, template: bytes, count: int, rounds: int
) -> Iterator[str]:
    source = folder / "source.unsigned"
    source.write_bytes(template)
    files = [folder / f"{number}.dcm" for number in range(count)]
    for path in files:
        with path.open("wb") as out:
            sign_file(source, out, tools.signer)
    anchor = str(tools.folder / "ca.crt")
    ours = [sys.executable, "-m", "dicom_secure_node", "verify"]
    there = subprocess.run([*ours, "--help"], capture_output=True, check=False).returncode == 0
    theirs = [program("dcmsign"), "--verify", "+cf", anchor]
    times: dict[str, list[float]] = {"dcmsign": [], "ours": []}
    for number in range(rounds):
        turns: list[tuple[str, list[list[str]]]] = [
            ("dcmsign", [[*theirs, str(path)] for path in files]),
        ]
        if there:
            batch = [*ours, "--trust", anchor, *map(str, files)]
            turns.insert(number % 2, ("ours", [batch]))
        for name, commands in turns:
            start = time.perf_counter()
            for command in commands:
                _run(command)
            times[name].append(time.perf_counter() - start)
    yield f"{median(times['dcmsign']):.2f}"
    yield f"{median(times['ours']):.2f}" if there else "-"
    yield _ratio(times["ours"], times["dcmsign"]) if there else "-"


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise Failed(f"{command[0]} ended with {done.returncode}: {said[-500:]}")


# -- memory --------------------------------------------------------------------------------


def _memory(tools: Tools, folder: Path, size: int) -> int:
    """Return how much more resident memory a large instance takes than a small one, in bytes."""
    small, large, source = (folder / f"{name}.dcm" for name in ("small", "large", "hole"))
    source.write_bytes(ct(96, 96))
    with small.open("wb") as out:
        sign_file(source, out, tools.signer)
    _write_hole(source, ct(2, 2), size)
    with large.open("wb") as out:
        sign_file(source, _Sparse(out), tools.signer)  # type: ignore[arg-type] # write is enough
    command = [sys.executable, "-c", _HOLE]
    done = subprocess.run(
        [*command, str(tools.folder / "ca.crt"), str(small), str(large)],
        capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"the memory of a hole was not measured: {done.stderr[-500:]}")
    return int(done.stdout)


def growth(anchor: Path, small: Path, large: Path) -> int:
    """Return the growth of the peak of resident memory of this process, in bytes."""
    verifier = _verifier(anchor)
    _expect_valid(verifier, small)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _expect_valid(verifier, large)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def _write_hole(path: Path, template: bytes, size: int) -> None:
    """Write an instance whose pixels are a hole of `size` bytes, as far as the disk knows."""
    head = template[: template.index(b"\xe0\x7f\x10\0OW") + 8]
    with path.open("wb") as file:
        file.write(head + struct.pack("<L", size))
        file.truncate(len(head) + 4 + size)


class _Sparse:
    """A file that leaves holes where zeros are written."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file

    def write(self, data: bytes | memoryview) -> int:
        if len(data) == MIB and not any(bytes(data[:: MIB // 256])) and bytes(data) == bytes(MIB):
            self._file.seek(MIB, io.SEEK_CUR)
            return MIB
        return self._file.write(data)


if __name__ == "__main__":
    sys.exit(main())
