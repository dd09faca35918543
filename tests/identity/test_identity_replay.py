"""Once is once: across threads, restarts and crashes, within bounded memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_secure_node.errors import LimitReached, ServiceUnavailable
from dicom_secure_node.identity.replay import ReplayStore

START = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Clock:
    """Says what it is told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.mark.parametrize("folder", [None, "used"])
def test_a_key_is_new_once_and_again_when_it_is_over(folder: str | None, tmp_path: Path) -> None:
    clock = Clock()
    store = ReplayStore(tmp_path / folder if folder else None, clock=clock)
    assert store.use("a", START + MINUTE)
    assert not store.use("a", START + MINUTE)
    assert store.use("b", START + 2 * MINUTE)
    clock.now = START + MINUTE
    assert store.use("c", START + 2 * MINUTE)
    assert len(store) == 2
    assert not store.use("b", START + 2 * MINUTE)
    assert store.use("a", START + 2 * MINUTE)
    store.close()


def test_memory_is_bounded_and_a_full_store_lets_nobody_in() -> None:
    clock = Clock()
    store = ReplayStore(clock=clock, capacity=3)
    assert all(store.use(str(n), START + MINUTE) for n in range(3))
    with pytest.raises(LimitReached):
        store.use("4", START + MINUTE)
    assert not store.use("1", START + MINUTE)
    clock.now += MINUTE
    assert store.use("4", START + 2 * MINUTE)


def test_a_restart_forgets_nothing_that_still_matters(tmp_path: Path) -> None:
    clock = Clock()
    for number in range(3):
        store = ReplayStore(tmp_path, clock=clock)
        assert store.use(f"new {number}", START + timedelta(hours=1))
        for earlier in range(number + 1):
            assert not store.use(f"new {earlier}", START + timedelta(hours=1))
        store.close()
    clock.now = START + timedelta(hours=1)
    store = ReplayStore(tmp_path, clock=clock)
    assert len(store) == 0
    store.close()


def test_a_line_torn_or_damaged_costs_only_itself(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path, clock=Clock())
    for key in ("a", "b", "c"):
        assert store.use(key, START + MINUTE)
    store.close()
    (segment,) = tmp_path.glob("*.ndjson")
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"until"', b'"other"')
    segment.write_bytes(b"".join(lines) + b'{"seq": 4, "ke')
    store = ReplayStore(tmp_path, clock=Clock())
    assert not store.use("a", START + MINUTE)
    assert store.use("b", START + MINUTE)  # gone with its line
    assert not store.use("c", START + MINUTE)
    store.close()


def test_old_files_go(tmp_path: Path) -> None:
    clock = Clock()
    store = ReplayStore(tmp_path, clock=clock, segment_bytes=2000)
    for number in range(100):
        assert store.use(str(number), clock.now + MINUTE)
        clock.now += MINUTE
    assert len(list(tmp_path.glob("*.ndjson"))) <= 3
    store.close()


def test_one_process_at_a_time_and_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path, clock=Clock())
    with pytest.raises(ServiceUnavailable, match="replay store"):
        ReplayStore(tmp_path)
    store.close()
    with pytest.raises(ServiceUnavailable, match="closed"):
        store.use("a", START + MINUTE)
    assert len(store) == 0  # what could not be noted was not used
    (tmp_path / "file").touch()
    with pytest.raises(ServiceUnavailable, match="replay store"):
        ReplayStore(tmp_path / "file")
