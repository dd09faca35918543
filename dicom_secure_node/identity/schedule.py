"""When an access rule holds: days and hours of the week, in a time zone that is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60  # minutes
_WEEK = 7 * _DAY
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))")


@dataclass(frozen=True)
class Schedule:
    """Hours on days; an empty list of either sets no limit.

    Attributes
    ----------
    days : tuple of str
        ``mon`` to ``sun``, or from one to another: ``mon-fri``.
    hours : tuple of str
        ``08:00-18:00``: from that minute on, up to that minute and not in it. Hours that run
        over midnight (``22:00-06:00``) belong to the day they begin on.
    zone : str
        A zone of the IANA time zone database (``Europe/Berlin``), or ``UTC``. Daylight saving
        is the zone's business.

    Raises
    ------
    ValueError
        A member is not what its list wants, or there is no zone.
    """

    days: tuple[str, ...]
    hours: tuple[str, ...]
    zone: str

    def __post_init__(self) -> None:
        _ = self._zone, self.minutes

    @cached_property
    def _zone(self) -> tzinfo:
        if not self.zone:
            raise ValueError(
                "days or hours without a zone, wanted one such as 'UTC' or 'Europe/Berlin'"
            )
        if self.zone == "UTC":
            return UTC  # known without a database
        try:
            return ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise ValueError(
                f"found zone {self.zone!r}, wanted one of this system's time zone database "
                "(Debian: tzdata), such as 'Europe/Berlin'"
            ) from exc

    @cached_property
    def minutes(self) -> int:
        """The minutes of the week it holds in, from Monday 0:00 on, one bit each."""
        mask = 0
        days = sorted({day for text in self.days for day in _days(text)}) or range(7)
        spans = [_span(text) for text in self.hours] or [(0, _DAY)]
        for day in days:
            for begin, end in spans:
                mask |= ((1 << (end - begin)) - 1) << (day * _DAY + begin)
        return mask & ((1 << _WEEK) - 1) | mask >> _WEEK  # Sunday night runs into Monday

    def local(self, at: datetime) -> datetime:
        """Return the moment `at` on this schedule's clock."""
        if at.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return at.astimezone(self._zone)

    def holds(self, at: datetime) -> bool:
        """Return whether `at` lies within it."""
        local = self.local(at)
        return bool(self.minutes >> (local.weekday() * _DAY + local.hour * 60 + local.minute) & 1)

    def covers(self, other: Schedule) -> bool:
        """Return whether it holds whenever `other` does, as far as can be told."""
        return self.zone == other.zone and not other.minutes & ~self.minutes

    def __str__(self) -> str:
        return " ".join(filter(None, (", ".join(self.days), ", ".join(self.hours), self.zone)))


def _days(text: str) -> Iterator[int]:
    first, dash, last = text.partition("-")
    if first not in DAYS or (dash and last not in DAYS):
        raise ValueError(f"found {text!r} in days, wanted {', '.join(DAYS)}, or e.g. mon-fri")
    begin = DAYS.index(first)
    length = (DAYS.index(last) - begin) % 7 if dash else 0
    yield from ((begin + i) % 7 for i in range(length + 1))


def _span(text: str) -> tuple[int, int]:
    found = _HOURS.fullmatch(text)
    if found is None:
        raise ValueError(f"found {text!r} in hours, wanted e.g. 08:00-18:00")
    numbers = [int(group) for group in found.groups() if group is not None]
    begin, end = numbers[0] * 60 + numbers[1], numbers[2] * 60 + numbers[3]
    if begin == end:
        raise ValueError(f"found {text!r} in hours, which is no time at all; all day: 00:00-24:00")
    return (begin, end) if begin < end else (begin, end + _DAY)
