"""When a rule holds: days and hours of the week in a zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.identity.schedule import DAYS, Schedule

# 2026-03-02 is a Monday.
CASES: dict[str, tuple[Schedule, str, bool]] = {
    "the first minute": (Schedule((), ("08:00-18:00",), "UTC"), "2026-03-02T08:00Z", True),
    "the last minute": (Schedule((), ("08:00-18:00",), "UTC"), "2026-03-02T17:59:59Z", True),
    "the minute after": (Schedule((), ("08:00-18:00",), "UTC"), "2026-03-02T18:00Z", False),
    "the minute before": (Schedule((), ("08:00-18:00",), "UTC"), "2026-03-02T07:59:59Z", False),
    "until midnight": (Schedule((), ("18:00-24:00",), "UTC"), "2026-03-02T23:59Z", True),
    "midnight is the next day": (Schedule((), ("18:00-24:00",), "UTC"), "2026-03-02T00:00Z", False),
    "whole days": (Schedule(("mon",), (), "UTC"), "2026-03-02T00:00Z", True),
    "the day after": (Schedule(("mon",), (), "UTC"), "2026-03-03T00:00Z", False),
    "from day to day": (Schedule(("mon-fri",), (), "UTC"), "2026-03-06T12:00Z", True),
    "from day to day over Sunday": (Schedule(("sat-mon",), (), "UTC"), "2026-03-02T12:00Z", True),
    "from a day to itself": (Schedule(("tue-tue",), (), "UTC"), "2026-03-02T12:00Z", False),
    "night, evening": (Schedule(("fri",), ("22:00-06:00",), "UTC"), "2026-03-06T23:00Z", True),
    "night, morning after": (
        Schedule(("fri",), ("22:00-06:00",), "UTC"), "2026-03-07T05:59Z", True,
    ),
    "night, morning of the day": (
        Schedule(("fri",), ("22:00-06:00",), "UTC"), "2026-03-06T05:00Z", False,
    ),
    "Sunday night runs into Monday": (
        Schedule(("sun",), ("22:00-06:00",), "UTC"), "2026-03-02T05:00Z", True,
    ),
    "two spans": (
        Schedule((), ("08:00-12:00", "14:00-18:00"), "UTC"), "2026-03-02T13:00Z", False,
    ),
    "zone, winter": (Schedule((), ("08:00-18:00",), "Europe/Berlin"), "2026-03-02T07:00Z", True),
    "zone, summer": (Schedule((), ("08:00-18:00",), "Europe/Berlin"), "2026-07-06T06:00Z", True),
    "zone, the day there": (Schedule(("tue",), (), "Asia/Tokyo"), "2026-03-02T15:00Z", True),
    "a moment of another zone": (Schedule(("mon",), (), "UTC"), "2026-03-03T00:30+01:00", True),
}  # fmt: skip


@pytest.mark.parametrize(("schedule", "at", "want"), CASES.values(), ids=CASES)
def test_holds(schedule: Schedule, at: str, want: bool) -> None:
    assert schedule.holds(datetime.fromisoformat(at)) is want


@given(
    st.sets(st.sampled_from(DAYS)),
    st.tuples(st.integers(0, 1439), st.integers(1, 1440)).filter(lambda span: span[0] != span[1]),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)
def test_the_bits_say_what_the_words_say(
    days: set[str], span: tuple[int, int], at: datetime
) -> None:
    begin, end = span
    text = f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
    there = at.astimezone(ZoneInfo("America/New_York"))
    named = days or set(DAYS)
    yesterday = there - timedelta(days=1)
    minute = there.hour * 60 + there.minute
    today = DAYS[there.weekday()] in named
    if begin < end:
        want = today and begin <= minute < end
    else:
        want = (today and minute >= begin) or (DAYS[yesterday.weekday()] in named and minute < end)
    assert Schedule(tuple(days), (text,), "America/New_York").holds(at) is want


WORK = Schedule((), ("08:00-18:00",), "UTC")
LONGER = Schedule((), ("07:00-19:00",), "UTC")
ALWAYS = Schedule((), (), "UTC")
COVERS: dict[str, tuple[Schedule, Schedule, bool]] = {
    "longer hours": (LONGER, WORK, True),
    "shorter hours": (WORK, LONGER, False),
    "two spans for one": (Schedule((), ("07:00-12:00", "12:00-19:00"), "UTC"), WORK, True),
    "every day for one": (ALWAYS, Schedule(("mon",), (), "UTC"), True),
    "another zone: who knows": (ALWAYS, Schedule(("mon",), (), "Asia/Tokyo"), False),
}


@pytest.mark.parametrize(("wide", "narrow", "want"), COVERS.values(), ids=COVERS)
def test_covers(wide: Schedule, narrow: Schedule, want: bool) -> None:
    assert wide.covers(narrow) is want


def test_both_hours_of_a_night_when_clocks_go_back_count() -> None:
    night = Schedule((), ("02:00-03:00",), "Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2)))
    assert night.holds(first)
    assert night.holds(first + timedelta(hours=1))
    assert not night.holds(first + timedelta(hours=2))
