"""Times in two units, a horizon in another one, and nobody censored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medmtl.data.finding import FOUND_LIMIT
from medmtl.tasks.survival import Outcome, Survival, SurvivalOptions
from medmtl.tasks.survival.doubt import mixed_units, strange_horizon


def days(n: int = 60, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(200, 2000, n)


@pytest.mark.covers("B128")
@pytest.mark.parametrize(("factor", "units"), [(30.44, "days and months"), (365.25, "days and years")])
@pytest.mark.parametrize("others", [3, 30])
def test_two_units_are_noticed(factor: float, units: str, others: int) -> None:
    times = days()
    # months overlap with no day here; a narrow spread keeps the groups apart
    times = 900 + (times - 1000) / 4
    times[:others] /= factor
    assert mixed_units(times.tolist()) == units


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_follow_up_is_not_suspected(seed: int) -> None:
    random = np.random.default_rng(seed)
    assert mixed_units(days(seed=seed)) is None
    assert mixed_units(np.minimum(random.exponential(700, 100), random.uniform(300, 2500, 100))) is None
    assert mixed_units([5.0]) is None
    assert mixed_units([]) is None
    assert mixed_units([1.0, *days()]) is None  # one early death


@pytest.mark.covers("B128")
def test_a_horizon_beside_all_times_is_told() -> None:
    assert strange_horizon([100.0, 2000.0], 5.0) == "times 100 to 2000, horizon 5"
    told = strange_horizon([2.71828, 49.8123], 1095.75)
    assert told == "times 2.718 to 49.81, horizon 1096" and len(told) <= FOUND_LIMIT
    assert strange_horizon([100.0, 2000.0], 3000.0) is not None
    assert strange_horizon([100.0, 2000.0], 365.0) is None
    assert strange_horizon([], 365.0) is None


@pytest.mark.covers("B126")
def test_nobody_censored_is_told_with_what_else_is_odd() -> None:
    options = SurvivalOptions(kind="survival", time="days", event="died", horizon=5)
    task = Survival("outcome", options)
    doubts = task.doubts({f"c{i}": Outcome(100.0 + i, True) for i in range(20)})
    assert [(doubt.code, doubt.column) for doubt in doubts] == [("B126", "died"), ("B128", "days")]
    assert doubts[0].found == "20 cases, all with the event"
    assert task.doubts({"a": Outcome(4.0, True), "b": Outcome(9.0, False)}) == []
    assert task.doubts({}) == []
