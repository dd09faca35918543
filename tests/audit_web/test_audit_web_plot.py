"""The plot: how much time a bar stands for, and what is drawn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from lxml import etree

from dicom_secure_node.audit.collecting.records import Count
from dicom_secure_node.audit_web import plot

START = datetime(2026, 11, 22, 9, 30, 5, tzinfo=UTC)
SPANS = {
    "an hour": (timedelta(hours=1), "1 minute"),
    "a day": (timedelta(days=1), "15 minutes"),
    "a week": (timedelta(days=7), "2 hours"),
    "a year": (timedelta(days=365), "7 days"),
    "a century": (timedelta(days=36525), "305 days"),
    "a moment": (timedelta(seconds=1), "1 minute"),
}


@pytest.mark.parametrize(("length", "want"), SPANS.values(), ids=SPANS)
def test_spans(length: timedelta, want: str) -> None:
    span = plot.span_for(START, START + length)
    assert plot.in_words(span) == want
    assert 1 <= len(plot.bars([], START, START + length, span)) <= plot.MOST_BARS + 1


def test_bars_begin_where_the_store_counts_from() -> None:
    span = timedelta(minutes=15)
    count = Count(datetime(2026, 11, 22, 9, 45, tzinfo=UTC), 7, 2)
    found = plot.bars([count], START, START + timedelta(hours=1), span)
    assert found[0].start == datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    assert [(bar.total, bar.failures) for bar in found] == [(0, 0), (7, 2), (0, 0), (0, 0), (0, 0)]


@pytest.mark.parametrize(
    ("most", "top"), [(0, 4), (3, 4), (5, 6), (63, 80), (1000, 1000), (1001, 2000)]
)
def test_the_scale(most: int, top: int) -> None:
    bar = plot.Bar(START, START + timedelta(hours=1), most, most // 2)
    root = etree.fromstring(plot.drawn([bar]))
    assert str(top) in root.xpath("//text[@class='value']/text()")
    for rect in root.xpath("//rect"):
        assert float(rect.get("y")) >= 0
        assert float(rect.get("height")) > 0


def test_nothing_but_shapes_and_classes() -> None:
    hours = [START + timedelta(hours=n) for n in range(51)]
    bars = [plot.Bar(hours[n], hours[n + 1], n, n % 3) for n in range(50)]
    root = etree.fromstring(plot.drawn(bars))
    assert {one.tag for one in root.iter()} == {"svg", "g", "title", "line", "rect", "text"}
    names = {name for one in root.iter() for name in one.attrib}
    assert not names & {"style", "onclick", "href"}
    assert etree.fromstring(plot.drawn([])).get("role") == "img"


TICKS = {
    "a day": (timedelta(days=1), ["12:00", "15:00", "18:00", "21:00", "00:00", "03:00", "06:00"]),
    "an hour": (timedelta(hours=1), ["09:30", "09:40", "09:50", "10:00", "10:10", "10:20"]),
    "a moment": (timedelta(minutes=1), ["09:30"]),
}


@pytest.mark.parametrize(("length", "want"), TICKS.values(), ids=TICKS)
def test_times_below_are_round(length: timedelta, want: list[str]) -> None:
    start = START.replace(second=0)
    found = plot.bars([], start, start + length, plot.span_for(start, start + length))
    root = etree.fromstring(plot.drawn(found))
    assert root.xpath("//text[@class='time']/text()") == want
