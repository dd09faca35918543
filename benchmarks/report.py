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


def rates(rows: Sequence[Row]) -> str:
    """Return medians with lowest and highest, then the last receiver against each other one."""
    names = list(rows[0].rates)
    *others, ours = names
    header = ["", *names, *(f"{ours} / {other}" for other in others)]
    return table(
        header,
        [
            [
                f"{row.name}, {row.unit}",
                *(_spread(row.rates[name]) for name in names),
                *(f"{row.ratio(ours, other):.2f}" for other in others),
            ]
            for row in rows
        ],
    )


def costs(rows: Sequence[Row]) -> str:
    """Return processor time and memory; a dash where processes come and go."""
    names = list(rows[0].rates)
    header = ["", *(f"{name}, CPU ms" for name in names), *(f"{name}, MiB" for name in names)]
    return table(
        header,
        [
            [
                row.name,
                *(_milliseconds(row.cpu.get(name)) for name in names),
                *(_mebibytes(row.peaks.get(name)) for name in names),
            ]
            for row in rows
        ],
    )


def _milliseconds(values: Sequence[float] | None) -> str:
    return f"{median(values) * 1000:.2f}" if values else "-"


def _mebibytes(values: Sequence[int] | None) -> str:
    return f"{max(values) / (1 << 20):.0f}" if values else "-"


def _spread(values: Sequence[float]) -> str:
    return f"{_digits(median(values))} ({_digits(min(values))}-{_digits(max(values))})"


def _digits(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def facts(more: Mapping[str, str]) -> str:
    """Return what a reader needs to know about the machine."""
    return "".join(f"- {name}: {value}\n" for name, value in [*_machine(), *more.items()])


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
    said = subprocess.run(
        [program("storescp"), "--version"], capture_output=True, text=True, check=True
    )
    yield "DCMTK", said.stdout.splitlines()[0].strip("$ ").removeprefix("dcmtk: ")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
