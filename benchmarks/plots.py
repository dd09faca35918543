"""The figures as pictures: bars in colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.measure import Row

# Okabe and Ito, "Color Universal Design"; yellow left out, it is faint on white.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_MIB = 1 << 20
_INCHES = 8.0  # wide
_DOTS = 90  # an inch


@dataclass(frozen=True)
class _Bar:
    """A median, and how far the rounds went to either side."""

    middle: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> _Bar | None:
        return cls(median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class _Picture:
    """Groups of bars.

    Attributes
    ----------
    name, title : str
    labels : sequence of str
        Of the groups.
    bars : dict
        By what the legend says, one for each group, or None.
    axis : callable
        Sets the scale.
    start : float
        Where bars begin.
    """

    name: str
    title: str
    labels: Sequence[str]
    bars: dict[str, list[_Bar | None]]
    axis: Callable[[Axes], object]
    start: float = 0.0


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
    pictures = (_ratios(rows, pairs), _memory(rows), _processor(rows))
    return [_drawn(folder, one, caption) for one in pictures if one.labels]


def _ratios(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> _Picture:
    bars = {
        f"{ours} / {other}": [_Bar.of(row.ratios(ours, other)) for row in rows]
        for ours, other in pairs
        if {ours, other} <= set(rows[0].rates)
    }
    title = "relative rate, 1: level (logarithmic)"
    return _Picture("ratios", title, [row.name for row in rows], bars, _level, 1.0)


def _memory(rows: Sequence[Row]) -> _Picture:
    bars = {
        name: [_Bar.of([one / _MIB for one in row.peaks.get(name, ())]) for row in rows]
        for name in rows[0].rates
    }
    title = "peak of resident memory of a process, MiB (logarithmic, from 10)"
    return _Picture("memory", title, [row.name for row in rows], bars, _logarithmic, 10.0)


def _processor(rows: Sequence[Row]) -> _Picture:
    rows = [row for row in rows if row.unit == "MB/s"]  # small instances are no matter of size
    names = rows[0].rates if rows else ()
    bars = {
        name: [_Bar.of([one / row.gib for one in row.cpu[name]]) for row in rows] for name in names
    }
    title = "processor time of the receiver, s per GiB"
    return _Picture("cpu", title, [row.name for row in rows], bars, _from_nothing)


def _level(axes: Axes) -> None:
    _logarithmic(axes)
    axes.axvline(1, color="black", linewidth=1)


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _from_nothing(axes: Axes) -> None:
    axes.set_xlim(left=0)


def _drawn(folder: Path, picture: _Picture, caption: str) -> Path:
    number = len(picture.bars)
    height = 1.5 + len(picture.labels) * (0.15 + 0.11 * number)  # inches
    figure = Figure(figsize=(_INCHES, height), dpi=_DOTS, layout="constrained")
    axes = figure.add_subplot()
    for place, name in enumerate(picture.bars):
        _bars(axes, picture, name, (place + 0.5) / number - 0.5, _COLOURS[place])
    axes.set_yticks(range(len(picture.labels)), picture.labels)
    axes.margins(y=0.02)
    axes.invert_yaxis()  # the first group on top
    picture.axis(axes)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.set_title(picture.title, fontsize=10)
    axes.tick_params(labelsize=8)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, title=caption, title_fontsize=7)
    path = folder / f"performance-{picture.name}.png"
    figure.savefig(path, metadata={"Software": None})
    return path


def _bars(axes: Axes, picture: _Picture, name: str, offset: float, colour: str) -> None:
    """Draw the bars of one name, `offset` from the middle of their groups."""
    there = [(at, bar) for at, bar in enumerate(picture.bars[name]) if bar is not None]
    axes.barh(
        [at + offset * 0.8 for at, _ in there],
        [bar.middle - picture.start for _, bar in there],
        0.74 / len(picture.bars),
        left=picture.start,
        label=name,
        color=colour,
        xerr=(
            [bar.middle - bar.lowest for _, bar in there],
            [bar.highest - bar.middle for _, bar in there],
        ),
        error_kw={"elinewidth": 0.8, "capsize": 1.5},
    )
