"""Work on many files: in order, on every core, and no file takes another with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_secure_node.commands.workers import Workers, cores
from dicom_secure_node.errors import ConfigurationError, InvalidDataSet, ServiceUnavailable

PATHS = [Path(str(n)) for n in range(40)]


def lost(path: Path, why: str) -> str:
    return f"{path} lost: {why}"


def answers(
    work: Callable[[Path], str], processes: int = 2, paths: list[Path] = PATHS
) -> list[str]:
    with Workers(paths, lambda: work, lost, processes) as workers:
        return list(workers.answers())


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("processes", [0, 1, 2, 7])
def test_answers_come_in_the_order_of_the_files(processes: int) -> None:
    assert answers(str, processes) == list(map(str, PATHS))


def test_work_is_shared_by_processes_that_are_not_this_one() -> None:
    gate = multiprocessing.get_context("fork").Barrier(2)

    def meet(path: Path) -> str:
        gate.wait(60)  # one process alone would wait for ever
        return str(os.getpid())

    found = set(answers(meet, 2, PATHS[:2]))
    assert len(found) == 2
    assert str(os.getpid()) not in found


@pytest.mark.parametrize(("processes", "paths"), [(0, PATHS), (2, PATHS[:1])])
def test_one_file_or_no_process_means_here(processes: int, paths: list[Path]) -> None:
    assert set(answers(lambda path: str(os.getpid()), processes, paths)) == {str(os.getpid())}


def test_a_file_that_kills_its_process_costs_that_file() -> None:
    def work(path: Path) -> str:
        if path.name in ("3", "4", "39"):
            os.kill(os.getpid(), signal.SIGKILL)
        if path.name == "7":
            os._exit(9)
        return str(path)

    found = answers(work)
    how = "lost: the process that looked at it ended"
    bad = {n: f"{n} {how} by signal 9 (Killed)" for n in (3, 4, 39)} | {7: f"7 {how} with 9"}
    assert found == [bad.get(n, str(n)) for n in range(40)]


@pytest.mark.parametrize("processes", [0, 2])
def test_a_fault_of_ours_costs_one_file_and_tells_nothing_of_it(processes: int) -> None:
    def work(path: Path) -> str:
        if path.name == "5":
            raise ZeroDivisionError("Doe^Jane")
        if path.name == "6":
            raise PermissionError(13, "Permission denied", "6")
        return str(path)

    found = answers(work, processes)
    assert found[5].startswith("5 lost: ZeroDivisionError: this should not happen")
    assert found[6] == "6 lost: 6: Permission denied"
    assert [found[n] for n in range(40) if n not in (5, 6)] == [
        str(n) for n in range(40) if n not in (5, 6)
    ]


@pytest.mark.parametrize("processes", [0, 2])
def test_a_service_that_is_away_ends_the_batch(processes: int) -> None:
    def work(path: Path) -> str:
        if path.name == "5":
            raise ServiceUnavailable("time", "away")
        return str(path)

    seen = []
    ended = pytest.raises(ServiceUnavailable, match="time: away")
    with Workers(PATHS, lambda: work, lost, processes) as workers, ended:
        seen.extend(workers.answers())
    assert set(seen) <= {str(n) for n in range(5)}


@pytest.mark.parametrize(
    "error",
    [ConfigurationError("no", "--key"), InvalidDataSet("a", "b"), PermissionError(13, "no", "k")],
    ids=["ours", "with parts", "of the system"],
)
def test_an_error_before_the_first_file_is_that_error(error: Exception) -> None:
    def begin() -> Callable[[Path], str]:
        raise error

    with Workers(PATHS, begin, lost, 2) as workers, pytest.raises(type(error)) as caught:
        list(workers.answers())
    assert str(caught.value) == str(error)


def test_a_process_that_dies_before_the_first_file_is_not_started_for_ever() -> None:
    def begin() -> Callable[[Path], str]:
        os.kill(os.getpid(), signal.SIGKILL)
        return str

    ended = pytest.raises(ServiceUnavailable, match="signal 9")
    with Workers(PATHS, begin, lost, 2) as workers, ended:
        list(workers.answers())


def test_stopping_half_way_ends_the_processes_and_lets_them_clear_up(tmp_path: Path) -> None:
    gate = multiprocessing.get_context("fork").Event()

    def work(path: Path) -> str:
        if path.name == "0":
            assert gate.wait(60)
            return "first"
        try:
            gate.set()
            signal.pause()
        finally:
            (tmp_path / "cleared").touch()
        return ""

    with Workers(PATHS, lambda: work, lost, 2) as workers:
        assert next(workers.answers()) == "first"
    assert (tmp_path / "cleared").exists()


def test_cores() -> None:
    assert cores() == len(os.sched_getaffinity(0))
