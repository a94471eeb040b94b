"""Kaplan-Meier against lifelines and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from lifelines import KaplanMeierFitter

from medmtl.metrics.kaplan_meier import StepCurve, censoring_curve, followed_to, kaplan_meier
from tests.metrics.survival_cohort import follow_up


@pytest.mark.parametrize("seed", range(3))
def test_it_is_lifelines_curve(seed: int) -> None:
    time_N, event_N, _ = follow_up(seed)
    grid = np.linspace(0, 100, 301)
    expected = KaplanMeierFitter().fit(time_N, event_N).survival_function_at_times(grid)
    np.testing.assert_allclose(kaplan_meier(time_N, event_N).at(grid), expected, atol=1e-9)


def test_censoring_is_lifelines_curve_where_no_time_has_both() -> None:
    time_N, event_N, _ = follow_up(0, whole_days=False)
    grid = np.linspace(0, 85, 301)
    expected = KaplanMeierFitter().fit(time_N, ~event_N).survival_function_at_times(grid)
    np.testing.assert_allclose(censoring_curve(time_N, event_N).at(grid), expected, atol=1e-9)


def test_events_come_before_censorings_of_the_same_time() -> None:
    time_N, event_N = np.array([1.0, 2.0, 2.0, 2.0, 3.0, 3.0]), np.array([False, True, False, False, True, True])
    curve = censoring_curve(time_N, event_N)
    # at 1: one of 6; at 2: two of the 4 that are left after the event
    assert curve.times == (1.0, 2.0)
    assert curve.values == pytest.approx((5 / 6, 5 / 6 * 2 / 4))
    assert kaplan_meier(time_N, event_N).values == pytest.approx((4 / 5, 0.0))


def test_a_step_is_taken_at_its_time_and_not_before() -> None:
    curve = StepCurve((2.0, 5.0), (0.5, 0.25))
    times = np.array([0.0, 2.0, 3.0, 5.0, 9.0])
    assert curve.at(times).tolist() == [1.0, 0.5, 0.5, 0.25, 0.25]
    assert curve.at(times, before=True).tolist() == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert StepCurve.from_json(json.loads(json.dumps(curve.to_json()))) == curve


def test_nobody_with_the_event_and_nobody_censored_are_curves_at_one() -> None:
    time_N, nobody = np.array([1.0, 2.0]), np.zeros(2, bool)
    assert kaplan_meier(time_N, nobody).at(time_N).tolist() == [1.0, 1.0]
    assert censoring_curve(time_N, ~nobody).at(time_N).tolist() == [1.0, 1.0]


def test_a_tenth_is_at_risk_until_it_is_not() -> None:
    assert followed_to(np.arange(1.0, 31.0)) == 28.0  # 28, 29 and 30 are 3 of 30
    assert followed_to(np.arange(1.0, 36.0)) == 32.0  # three of 35 are less than a tenth
    assert followed_to(np.array([4.0])) == 4.0
