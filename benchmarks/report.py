"""The figures as Markdown, with the facts of the machine they came from."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from OpenSSL import SSL

from benchmarks.measure import Row
from tests.parts import program

BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"


def write(page: Path, figures: str) -> None:
    """Put the figures between the two marks of a page, or make a page of nothing else."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    whole = f"{before}{BEGIN}\n{figures}\n{END}{after}" if begin and end else figures
    page.write_text(whole, encoding="utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every column but the first is a number."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def rates(
    rows: Sequence[Row],
    pairs: Sequence[tuple[str, str]] | None = None,
    absent: str = "-",
    names: Sequence[str] = (),
) -> str:
    """Return medians with lowest and highest, of the rates and of the ratios of each round.

    Parameters
    ----------
    rows : sequence of Row
    pairs : sequence of (str, str), optional
        Which receivers to set against which; without, the last against each other one.
    absent : str
        Stands where a row lacks a receiver.
    names : sequence of str
        The columns, where they are not those of the first row.
    """
    names = names or list(rows[0].rates)
    if pairs is None:
        pairs = [(names[-1], other) for other in names[:-1]]
    pairs = [pair for pair in pairs if set(pair) <= set(rows[0].rates)]
    header = ["", *names, *(f"{ours} / {other}" for ours, other in pairs)]
    return table(
        header,
        [
            [
                f"{row.name}, {row.unit}",
                *(_spread(row.rates[name]) if name in row.rates else absent for name in names),
                *(ratio(row, *pair) for pair in pairs),
            ]
            for row in rows
        ],
    )


def ratio(row: Row, ours: str, other: str) -> str:
    """Return the median of the ratios of each round, with lowest and highest."""
    found = row.ratios(ours, other)
    return f"{median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def processor(rows: Sequence[Row]) -> str:
    """Return processor time, for an instance and, where that says something, for a GiB."""
    names = _names(rows)
    large = [row for row in rows if row.unit == "MB/s"]
    return table(
        ["", *names],
        [
            *([f"{row.name}, ms each", *_medians(row.cpu, names, 1000, ".2f")] for row in rows),
            *(
                [f"{row.name}, s per GiB", *_medians(row.cpu, names, 1 / row.gib, ".2f")]
                for row in large
            ),
        ],
    )


def memory(rows: Sequence[Row]) -> str:
    """Return peaks in MiB, the highest of the rounds; a dash where processes come and go."""
    names = _names(rows)
    return table(
        ["MiB", *names],
        [
            [
                row.name,
                *(
                    f"{max(row.peaks[name]) / (1 << 20):.0f}" if name in row.peaks else "-"
                    for name in names
                ),
            ]
            for row in rows
        ],
    )


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.rates))


def _medians(
    values: Mapping[str, Sequence[float]], names: Sequence[str], factor: float, form: str
) -> Iterator[str]:
    for name in names:
        yield f"{median(values[name]) * factor:{form}}" if name in values else "-"


def _spread(values: Sequence[float]) -> str:
    return f"{_digits(median(values))} ({_digits(min(values))}-{_digits(max(values))})"


def _digits(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def facts(more: Mapping[str, str]) -> str:
    """Return what a reader needs to know about the machine."""
    return "".join(f"- {name}: {value}\n" for name, value in [*_machine(), *more.items()])


def machine_in_short() -> str:
    """Return the machine in one line, for a caption."""
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    software = [f"Python {platform.python_version()}"]
    software += [f"{one} {version(one)}" for one in ("dicom-secure-node", "pynetdicom")]
    return f"{when}; {os.cpu_count()} cores ({_processor()}); {', '.join(software)}"


def _machine() -> Iterator[tuple[str, str]]:
    yield "when", datetime.now(UTC).strftime("%Y-%m-%d")
    yield "machine", f"{os.cpu_count()} cores ({_processor()}), {platform.platform(terse=True)}"
    packages = ("dicom-secure-node", "pynetdicom", "pydicom", "pyOpenSSL")
    yield (
        "Python",
        f"{platform.python_version()}; " + ", ".join(f"{one} {version(one)}" for one in packages),
    )
    yield "TLS of the node", SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()
    yield "TLS of bare pynetdicom", ssl.OPENSSL_VERSION
    yield "DCMTK", _said("storescp").strip("$ ").removeprefix("dcmtk: ")
    yield "Orthanc", _said("Orthanc").rpartition(" ")[2]


def _said(name: str) -> str:
    """Return the first line of a program's version."""
    argv = [program(name), "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
