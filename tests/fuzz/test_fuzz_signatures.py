"""A short, repeatable run of the fuzz target."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.fuzz_signatures import check, check_anywhere, damaged, seeds

ROUNDS = 300


@pytest.mark.parametrize("number", range(4), ids=["native", "compressed", "nested", "two signers"])
def test_no_damage_raises_and_none_is_called_valid(number: int) -> None:
    seed = seeds()[number]
    assert all(one.valid for one in check(seed, seed).signatures)
    survived = 0
    for round_ in range(ROUNDS):
        dice = random.Random(number * ROUNDS + round_)
        data = damaged(seed, dice)
        report = check(data, seed)
        survived += any(one.valid for one in report.signatures)
        if round_ % 5 == 0:
            check_anywhere(data)
    assert 0 < survived < ROUNDS  # some damage hits what no signature covers
