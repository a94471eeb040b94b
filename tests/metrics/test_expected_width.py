from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from medmtl.metrics.concordance import harrell_c
from medmtl.metrics.expected_width import auc_width, c_index_width, dice_width, mae_width
from medmtl.metrics.intervals import TOO_FEW_OF_A_CLASS, TOO_FEW_PATIENTS, mean_estimate
from medmtl.metrics.ranking import auc


def simulated_auc_width(folds: list[tuple[int, int]], draws: int = 4000) -> float:
    """From the spread of areas over draws of exponential scores, of which Hanley and McNeil's formula is exact."""
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(draws):
        right = pairs = 0.0
        for negatives, positives in folds:
            # P(positive > negative) = 4 / (4 + 1)
            higher = rng.exponential(4.0, positives)[:, None] > rng.exponential(1.0, negatives)
            right, pairs = right + higher.sum(), pairs + higher.size
        areas.append(right / pairs)
    half = stats.norm.ppf(0.975) * np.std(areas) / (0.8 * 0.2)
    return float(expit(logit(0.8) + half) - expit(logit(0.8) - half))


@pytest.mark.parametrize("folds", [[(40, 10)], [(12, 30)], [(8, 3), (7, 4), (9, 3), (8, 4)]])
def test_the_width_of_an_auc_is_that_of_a_simulation(folds: list[tuple[int, int]]) -> None:
    assert auc_width(folds).width == pytest.approx(simulated_auc_width(folds), rel=0.05)


def test_the_width_of_an_auc_is_close_to_what_scoring_gives() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for _ in range(200):
        score = np.concatenate([rng.exponential(1.0, 60), rng.exponential(4.0, 30)])
        interval = auc(np.arange(90) >= 60, score).ci95
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert auc_width([(60, 30)]).width == pytest.approx(np.mean(widths), rel=0.1)


def test_of_more_classes_the_mean_is_at_most_as_wide_as_its_areas() -> None:
    three = auc_width([(30, 30, 30)])
    assert three.width == pytest.approx(auc_width([(60, 30)]).width)
    assert three.rarer == 30
    assert "at most" in three.assumption
    uneven, widest = auc_width([(50, 30, 10)]).width, auc_width([(80, 10)]).width
    assert uneven is not None and widest is not None
    assert uneven < widest


@pytest.mark.parametrize(
    ("folds", "rarer", "why"),
    [
        ([(40, 9)], 9, TOO_FEW_OF_A_CLASS),
        ([(5, 5), (5, 4)], 9, TOO_FEW_OF_A_CLASS),
        # a fold of one class ranks nothing, so that its cases do not count
        ([(10, 9), (0, 9)], 10, TOO_FEW_OF_A_CLASS),
        ([(10, 0), (0, 10)], 10, "no fold holds two classes"),
        ([(0, 0)], 0, "no fold holds two classes"),
    ],
)
def test_an_auc_has_no_interval_below_ten_of_a_class(folds: list[tuple[int, int]], rarer: int, why: str) -> None:
    found = auc_width(folds)
    assert (found.width, found.rarer, found.why) == (None, rarer, why)


def test_the_width_of_a_mean_dice_is_the_normal_one() -> None:
    low, high = stats.norm.interval(0.95, scale=0.1 / math.sqrt(20))
    assert dice_width(20).width == pytest.approx(high - low)
    assert dice_width(20).width == pytest.approx(0.09, abs=0.01)  # about 8 points, as El Jurdi and Colliot say
    assert dice_width(10).width is not None
    assert (dice_width(9).width, dice_width(9).why) == (None, TOO_FEW_PATIENTS)


def test_the_width_of_a_mae_is_that_of_half_normal_errors() -> None:
    low, high = stats.norm.interval(0.95, scale=stats.halfnorm.std() / stats.halfnorm.mean() / math.sqrt(30))
    assert mae_width(30).width == pytest.approx(high - low)
    assert (mae_width(9).width, mae_width(9).why) == (None, TOO_FEW_PATIENTS)


def test_the_width_of_a_mae_is_close_to_what_scoring_gives() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for _ in range(20):
        errors = np.abs(rng.normal(0, 5, 100))
        found = mean_estimate(errors.tolist(), [str(n) for n in range(100)], "lower")
        assert found.ci95 is not None and found.value is not None
        widths.append((found.ci95[1] - found.ci95[0]) / found.value)
    assert mae_width(100).width == pytest.approx(np.mean(widths), rel=0.1)


@pytest.mark.parametrize("last_follow_up", [15.0, 60.0, 400.0])
def test_the_width_of_a_c_index_is_that_of_simulated_cohorts(last_follow_up: float) -> None:
    values, events = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        risk = rng.normal(size=80)
        died, left = rng.exponential(40 * np.exp(-0.85 * risk)), rng.uniform(0, last_follow_up, 80)
        values.append(harrell_c(np.minimum(died, left), died <= left, risk).value or math.nan)
        events.append(int((died <= left).sum()))
    assert np.mean(values) == pytest.approx(0.7, abs=0.03)
    width = c_index_width(80, round(np.mean(events))).width
    assert width == pytest.approx(2 * 1.96 * np.std(values), rel=0.15)


def test_a_c_index_has_no_interval_below_ten_patients_or_events() -> None:
    assert c_index_width(10, 10).width is not None
    assert c_index_width(9, 9).why == TOO_FEW_PATIENTS
    assert (c_index_width(40, 9).why, c_index_width(40, 9).rarer) == ("fewer than 10 patients with an event", 9)
    assert {c_index_width(40, 9).counted, c_index_width(40, 20).counted} == {"patients with the event"}
