"""Counts over time, drawn as SVG: elements and classes only, colours are the style sheet's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape

from dicom_secure_node.audit.collecting.records import Count

MOST_BARS = 120
# Spans that divide a day or are whole days: bars then begin at round times in UTC.
_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 40320)
_UNITS = {"day": timedelta(days=1), "hour": timedelta(hours=1), "minute": timedelta(minutes=1)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_WIDTH, _HEIGHT = 960, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 14, 34
_INSIDE = (_WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM)
_TICKS = 8
_TEXT_WIDTH = 60  # of a time below the bars


@dataclass(frozen=True, slots=True)
class Bar:
    """One span of time."""

    start: datetime
    end: datetime
    total: int
    failures: int


def span_for(since: datetime, until: datetime) -> timedelta:
    """Return how much time one bar is to stand for, so that there are not too many."""
    for minutes in _MINUTES:
        span = timedelta(minutes=minutes)
        if (until - since) / span <= MOST_BARS:
            return span
    days = (until - since) / MOST_BARS // timedelta(days=1) + 1
    return timedelta(days=days)


def in_words(span: timedelta) -> str:
    """Return a span as one says it, e.g. ``30 minutes``."""
    for unit, length in _UNITS.items():
        if span % length == timedelta(0):
            number = span // length
            return f"{number} {unit}{'s' if number > 1 else ''}"
    return str(span)


def bars(counts: Sequence[Count], since: datetime, until: datetime, span: timedelta) -> list[Bar]:
    """Return a bar for every span from `since` to `until`, those without a message included."""
    known = {count.start: count for count in counts}
    start = _EPOCH + (since - _EPOCH) // span * span
    found = []
    while start < until:
        count = known.get(start)
        total, failures = (count.total, count.failures) if count else (0, 0)
        found.append(Bar(start, start + span, total, failures))
        start += span
    return found


def drawn(found: Sequence[Bar]) -> str:
    """Return the bars as an SVG element; each says its numbers when pointed at."""
    top = _round_up(max((bar.total for bar in found), default=0))
    total = sum(bar.total for bar in found)
    failures = sum(bar.failures for bar in found)
    label = f"{total} messages, {failures} of them failures, in {len(found)} spans of time"
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        + "".join((*_grid(top), *_columns(found, top), *_times(found)))
        + "</svg>"
    )


def _grid(top: int) -> Iterator[str]:
    for quarter in range(5):
        value, y = top * quarter / 4, _TOP + _INSIDE[1] * (4 - quarter) / 4
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        if value == int(value):
            yield f'<text class="value" x="{_LEFT - 8}" y="{y + 4:.1f}">{int(value)}</text>'


def _columns(found: Sequence[Bar], top: int) -> Iterator[str]:
    step = _INSIDE[0] / max(len(found), 1)
    width = max(step - (2 if step > 6 else 0.5), 0.5)
    for place, bar in enumerate(found):
        if not bar.total:
            continue
        x, floor = _LEFT + place * step, _TOP + _INSIDE[1]
        words = escape(f"{bar.start:%Y-%m-%d %H:%M} UTC: {bar.total}, failures {bar.failures}")
        yield f"<g><title>{words}</title>"
        for kind, number in (("all", bar.total), ("failed", bar.failures)):
            # One message beside ten thousand is still to be seen.
            height = max(_INSIDE[1] * number / top, 2 if number else 0)
            yield (
                f'<rect class="{kind}" x="{x:.2f}" y="{floor - height:.1f}" '
                f'width="{width:.2f}" height="{height:.1f}"/>'
            )
        yield "</g>"


def _times(found: Sequence[Bar]) -> Iterator[str]:
    if not found:
        return
    whole_days = found[0].end - found[0].start >= timedelta(days=1)
    wide = found[-1].end - found[0].start > timedelta(days=2)
    form = "%Y-%m-%d" if whole_days else "%m-%d %H:%M" if wide else "%H:%M"
    step, y = _INSIDE[0] / len(found), _HEIGHT - 12
    for place in range(*_round_times(found)):
        x = _LEFT + place * step
        yield f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 22}" y2="{y - 16}"/>'
        yield f'<text class="time" x="{x:.1f}" y="{y}">{found[place].start:{form}}</text>'


def _round_times(found: Sequence[Bar]) -> tuple[int, int, int]:
    """Return the bars to write a time below: the first one, the end, the step between them."""
    span = found[0].end - found[0].start
    least = -(-len(found) // _TICKS)
    lengths = (timedelta(minutes=minutes) for minutes in _MINUTES)
    wholes = (length // span for length in lengths if length % span == timedelta(0))
    every = next((number for number in wholes if number >= least), least)
    first = -((found[0].start - _EPOCH) // span) % every
    # Too few are worse than odd ones; and a text at the very end has no room.
    room = int(_TEXT_WIDTH / (_INSIDE[0] / len(found)))
    return (first if first < len(found) else 0, max(1, len(found) - room), every)


def _round_up(value: int) -> int:
    """Return the top of a scale: 4, or 1, 2, 4, 6 or 8 times a power of ten."""
    power = 1
    while power * 10 < value:
        power *= 10
    return max(4, next(n * power for n in (1, 2, 4, 6, 8, 10) if n * power >= value))
