from __future__ import annotations

import pytest

from medmtl.tasks.regression.doubt import outliers, repeated_extremes, shares_for_percentages

MEASURED = [20.0, 25.0, 31.0, 34.0, 40.0, 52.0]


@pytest.mark.covers("B121")
@pytest.mark.parametrize("sentinel", [999.0, -1.0, -9999.0, 99999.0, -9.0])
def test_a_sentinel_is_told_when_it_repeats(sentinel: float) -> None:
    assert repeated_extremes([*MEASURED, sentinel, sentinel, sentinel]) == {sentinel: 3}
    assert repeated_extremes([*MEASURED, sentinel]) == {}


@pytest.mark.covers("B121")
def test_a_far_extreme_that_repeats_is_told_whatever_its_value() -> None:
    assert repeated_extremes([*MEASURED, 500.0, 500.0]) == {500.0: 2}
    assert repeated_extremes([*MEASURED, 60.0, 60.0]) == {}


@pytest.mark.covers("B121")
@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 5 + [1.0, 3.0, 5.0, 8.0] + [10.0] * 3,  # a score with a floor and a ceiling
        [-1.0, -1.0, -2.0, 0.5, 1.0, 2.0],  # a quantity that may be negative
        [5.0, 5.0, 9.0, 9.0],
        [],
    ],
)
def test_ordinary_repetitions_are_not(values: list[float]) -> None:
    assert repeated_extremes(values) == {}


@pytest.mark.covers("B122")
def test_an_outlier_is_more_than_ten_deviations_away() -> None:
    # by hand: the median is 3, the absolute deviations are 2 1 0 1 and the last, their median is 1
    values = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 13.0}
    assert outliers(values) == {}
    assert outliers({**values, "e": 13.5}) == {"e": 10.5}
    assert outliers({}) == {}
    assert outliers({"a": 1.0, "b": 1.0, "c": 1.0, "d": 99.0}) == {}


@pytest.mark.covers("B128")
@pytest.mark.parametrize(
    ("values", "bounds", "told"),
    [
        ([0.45, 0.6, 1.0], (0, 100), True),
        ([0.45, 0.6, 1.01], (0, 100), False),
        ([0.45, 0.6, 1.0], (0, 1), False),
        ([0.45, 0.6, 1.0], None, False),
        ([], (0, 100), False),
    ],
)
def test_shares_are_told_where_percentages_are_declared(
    values: list[float], bounds: tuple[float, float] | None, told: bool
) -> None:
    assert shares_for_percentages(values, bounds) is told
