"""What is remembered of each case, and for how long."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medmtl.tasks.survival.bank import Entry, RiskBank


def entry(case_id: str, step: int, risk: float = 0.5) -> Entry:
    return Entry(case_id, risk, 10.0, True, step)


def test_the_newest_entry_of_a_case_counts() -> None:
    bank = RiskBank()
    bank.add([entry("a", 0, 0.1), entry("b", 0, 0.2)], 0, 10)
    bank.add([entry("a", 3, 0.9)], 3, 10)
    assert bank.others((), 3, 10) == [entry("b", 0, 0.2), entry("a", 3, 0.9)]
    assert bank.others({"b"}, 3, 10) == [entry("a", 3, 0.9)]


def test_nothing_is_older_than_an_epoch() -> None:
    bank = RiskBank()
    bank.add([entry("a", 0)], 0, 4)
    bank.add([entry("b", 2)], 2, 4)
    assert [e.case_id for e in bank.others((), 4, 4)] == ["a", "b"]
    assert [e.case_id for e in bank.others((), 5, 4)] == ["b"]
    assert len(bank) == 2
    bank.add([], 5, 4)
    assert len(bank) == 1


def test_it_survives_a_checkpoint_with_its_order() -> None:
    bank = RiskBank()
    bank.add([entry("z", 1, 0.1 + 0.2), entry("a", 1)], 1, 4)
    again = RiskBank.from_json(json.loads(json.dumps(bank.to_json())))
    assert again.others((), 1, 4) == bank.others((), 1, 4)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [["a", 0.5, 10.0, True]],
        [["a", 0.5, 10.0, 1, 3]],
        [["a", "0.5", 10.0, True, 3]],
        [["a", 0.5, 10.0, True, 3], ["a", 0.5, 10.0, True, 4]],
        ["abcde"],
    ],
)
def test_anything_else_is_refused(stored: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        RiskBank.from_json(stored)
