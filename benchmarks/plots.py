"""The figures as pictures: bars in colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import Row

# Okabe and Ito, "Color Universal Design"; yellow left out, it is faint on white.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_MIB = 1 << 20
_INCHES = 8.0  # wide
_DOTS = 100  # an inch

Bars = dict[str, list[tuple[float, float, float] | None]]  # median, lowest, highest


def draw(
    folder: Path, rows: Sequence[Row], pairs: Sequence[tuple[str, str]], caption: str
) -> list[Path]:
    """Write the pictures of the table of peers.

    Parameters
    ----------
    folder : Path
        Is made if it is absent.
    rows : sequence of Row
    pairs : sequence of (str, str)
        Whose ratios to show.
    caption : str
        Where the figures come from.

    Returns
    -------
    list of Path
        ``performance-ratios.png``, ``performance-memory.png`` and ``performance-cpu.png``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(rows[0].rates)
    large = [row for row in rows if row.unit == "MB/s"]
    ratios = {
        f"{ours} / {other}": [_of(row.ratios(ours, other)) for row in rows]
        for ours, other in pairs
        if {ours, other} <= set(names)
    }
    memory = {
        name: [_of([one / _MIB for one in row.peaks.get(name, ())]) for row in rows]
        for name in names
    }
    processor = {
        name: [_of([one / row.gib for one in row.cpu[name]]) for row in large] for name in names
    }
    pictures: list[tuple[str, str, Bars, Sequence[Row], Callable[[Axes], object]]] = [
        ("ratios", "relative rate, log scale; 1: level", ratios, rows, _level),
        ("memory", "peak of resident memory of a process, MiB, log scale", memory, rows, _logs),
        ("cpu", "processor time of the receiver, s per GiB", processor, large, _plain),
    ]
    return [
        _picture(
            folder / f"performance-{name}.png", title, bars, [row.name for row in of], axis, caption
        )
        for name, title, bars, of, axis in pictures
        if of
    ]


def _of(values: Sequence[float]) -> tuple[float, float, float] | None:
    return (median(values), min(values), max(values)) if values else None


def _level(axes: Axes) -> None:
    _logs(axes)
    axes.axvline(1, color="black", linewidth=1)


def _logs(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _plain(axes: Axes) -> None:
    axes.set_xlim(left=0)


def _picture(
    path: Path,
    title: str,
    bars: Bars,
    labels: Sequence[str],
    axis: Callable[[Axes], object],
    caption: str,
) -> Path:
    thickness = 0.8 / len(bars)
    height = 1.4 + len(labels) * (0.2 + 0.14 * len(bars))
    figure = Figure(figsize=(_INCHES, height), dpi=_DOTS, layout="constrained")
    axes = figure.add_subplot()
    for number, (name, values) in enumerate(bars.items()):
        there = [(at, value) for at, value in enumerate(values) if value]
        at = [place + (number - (len(bars) - 1) / 2) * thickness for place, _ in there]
        middle = [value[0] for _, value in there]
        spread = (
            [value[0] - value[1] for _, value in there],
            [value[2] - value[0] for _, value in there],
        )
        axes.barh(
            at,
            middle,
            thickness * 0.92,
            label=name,
            color=_COLOURS[number],
            xerr=spread,
            error_kw={"elinewidth": 0.8, "capsize": 1.5},
        )
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()  # the first row on top
    axis(axes)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, title=caption, title_fontsize=7)
    figure.savefig(path, metadata={"Software": None})
    return path
