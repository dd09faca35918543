"""Floods of alerts: the first at once, the rest as sums, in bounded memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dicom_secure_node.audit.limiter import MANY_ADDRESSES, MANY_REASONS, AlertLimiter

START = datetime(2026, 11, 22, tzinfo=UTC)
EVE = ("110126", "203.0.113.9", "expired")


class Clock:
    """A clock that stands until it is moved."""

    now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def test_first_at_once_then_one_sum_a_window() -> None:
    clock = Clock()
    limiter = AlertLimiter(clock, window=60)
    assert [limiter.admit(EVE) for _ in range(5)] == [True, False, False, False, False]
    assert limiter.due() == []
    clock.move(60)
    (found,) = limiter.due()
    assert (found.key, found.count, found.since) == (EVE, 4, START)
    assert limiter.due() == []
    assert not limiter.admit(EVE)  # the flood goes on: counted, not let through
    clock.move(60)
    (found,) = limiter.due()
    assert found.count == 1
    clock.move(60)
    assert limiter.due() == []
    assert limiter.admit(EVE)  # a quiet window has passed


def test_others_are_not_held_back() -> None:
    limiter = AlertLimiter(Clock())
    assert limiter.admit(EVE)
    assert limiter.admit(("110126", "203.0.113.9", "self-signed"))
    assert limiter.admit(("110126", "203.0.113.10", "expired"))
    assert limiter.admit(("110132", "203.0.113.9", "expired"))


def test_after_the_window_without_a_look_it_is_new() -> None:
    clock = Clock()
    limiter = AlertLimiter(clock, window=60)
    assert limiter.admit(EVE)
    clock.move(61)
    assert limiter.admit(EVE)
    assert not limiter.admit(EVE)


def test_a_peer_that_varies_its_words_shares_a_sum() -> None:
    clock = Clock()
    limiter = AlertLimiter(clock, texts=8)
    admitted = [limiter.admit(("110126", "203.0.113.9", f"AE {n}")) for n in range(100)]
    assert admitted.count(True) == 8
    clock.move(60)
    assert [(s.key, s.count) for s in limiter.due()] == [
        (("110126", "203.0.113.9", MANY_REASONS), 92)
    ]


def test_many_addresses_share_a_sum_and_memory_is_bounded() -> None:
    clock = Clock()
    limiter = AlertLimiter(clock, keys=100)
    admitted = [limiter.admit(("110126", f"10.0.{n // 250}.{n % 250}", "x")) for n in range(5000)]
    assert admitted.count(True) == 100
    assert limiter.admit(("110126", "10.0.0.0", "x")) is False  # still known
    clock.move(60)
    sums = {s.key: s.count for s in limiter.due()}
    assert sums[("110126", "", MANY_ADDRESSES)] == 4900
    assert len(sums) == 2
    clock.move(60)
    limiter.due()
    assert limiter.admit(("110126", "10.9.9.9", "x"))  # room again


def test_at_the_end_everything_is_summed() -> None:
    limiter = AlertLimiter(Clock())
    limiter.admit(EVE)
    limiter.admit(EVE)
    assert [s.count for s in limiter.due(everything=True)] == [1]
    assert limiter.due(everything=True) == []
