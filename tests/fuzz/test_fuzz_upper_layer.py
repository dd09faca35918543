"""Short, repeatable runs of the targets for what peers send, and everything they ever found."""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.fuzz_upper_layer import CORPUS, TARGETS, corpus, damaged, reframed, streams
from tests.parts import run

ROOT = Path(__file__).parents[2]
ROUNDS = {"streams": 150, "requests": 1_500, "messages": 150, "commands": 4_000}
MEMORY = 96 << 10  # KiB more than before, at most

# As `serve` has it: what pydicom thinks of a peer's values is no matter of ours.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _memory_is_bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


@pytest.mark.parametrize("target", TARGETS)
def test_everything_ever_found_holds(target: str) -> None:
    inputs = corpus(target)
    assert inputs
    for data in inputs:
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_input_breaks_nothing(target: str) -> None:
    inputs = corpus(target)
    for round_ in range(ROUNDS[target]):
        dice = random.Random(round_)
        TARGETS[target](damaged(dice.choice(inputs), dice, dice.choice(inputs)))


def test_PDUs_in_any_order_break_nothing() -> None:
    inputs = corpus("streams")
    for round_ in range(ROUNDS["streams"]):
        dice = random.Random(round_)
        data = dice.choice(inputs)
        streams(bytes((dice.randrange(64),)) + reframed(data[1:], dice))


def test_atheris_drives_a_target(tmp_path: Path) -> None:
    """The one that goes on for hours starts, and finds its corpus."""
    argv = [sys.executable, "-W", "ignore", ROOT / ".ci" / "fuzz_upper_layer.py", "messages"]
    done = run([*argv, "-runs=20", "-seed=7", tmp_path], cwd=tmp_path, timeout=100)
    assert done.returncode == 0, done.stderr
    assert f"{len(corpus('messages'))} files found in {CORPUS / 'messages'}" in done.stderr
