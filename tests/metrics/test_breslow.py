"""Breslow's baseline against lifelines, and what a checkpoint may hold of it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, NelsonAalenFitter

from medmtl.metrics.breslow import CumulativeHazard, breslow
from tests.metrics.survival_cohort import follow_up


@pytest.mark.parametrize("ties", [True, False], ids=["ties", "no ties"])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_lifelines_baseline_at_its_coefficients(seed: int, ties: bool) -> None:
    time_N, event_N, risk_N = follow_up(seed, whole_days=ties)
    frame = pd.DataFrame({"x": risk_N, "time": time_N, "event": event_N})
    fitter = CoxPHFitter().fit(frame, "time", "event")
    found = breslow(fitter.params_["x"] * risk_N, time_N, event_N)
    expected = fitter.baseline_cumulative_hazard_["baseline cumulative hazard"]
    np.testing.assert_allclose(found.at(expected.index.to_numpy()), expected.to_numpy(), rtol=0, atol=1e-6)
    curves = np.exp(-np.outer(found.at(np.unique(time_N)), np.exp(fitter.params_["x"] * risk_N - found.centre)))
    np.testing.assert_allclose(curves, fitter.predict_survival_function(frame, np.unique(time_N)), rtol=0, atol=1e-6)


def test_without_a_risk_it_is_nelson_and_aalens() -> None:
    time_N, event_N, _ = follow_up(5, whole_days=False)
    fitter = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(time_N, event_N)
    found = breslow(np.full(len(time_N), 3.0), time_N, event_N)
    grid = np.linspace(0, 100, 50)
    np.testing.assert_allclose(found.at(grid), fitter.predict(grid), atol=1e-9)
    assert found.at(np.array([0.0])) == [0.0]


def test_a_risk_that_all_share_changes_nothing_but_the_centre() -> None:
    time_N, event_N, risk_N = follow_up(1)
    one, other = breslow(risk_N, time_N, event_N), breslow(risk_N + 500, time_N, event_N)
    assert other.centre == pytest.approx(one.centre + 500)
    np.testing.assert_allclose(other.values, one.values)


def test_extreme_risks_stay_finite() -> None:
    time_N, event_N, risk_N = follow_up(1)
    assert np.isfinite(breslow(1e5 * risk_N, time_N, event_N).values).all()


def test_a_part_is_the_same_as_far_as_it_goes() -> None:
    time_N, event_N, risk_N = follow_up(2)
    whole = breslow(risk_N, time_N, event_N)
    part = whole.until(20)
    assert max(part.times) <= 20 < max(whole.times)
    grid = np.linspace(0, 20, 30)
    np.testing.assert_array_equal(part.at(grid), whole.at(grid))
    assert whole.until(whole.times[3]).times == whole.times[:4]


def test_it_survives_a_checkpoint_to_the_last_bit() -> None:
    whole = breslow(*(follow_up(3)[i] for i in (2, 0, 1)))
    assert CumulativeHazard.from_json(json.loads(json.dumps(whole.to_json()))) == whole


@pytest.mark.parametrize(
    "change",
    [
        {"times": [1.0]},
        {"values": [0.1, math.nan]},
        {"centre": math.inf},
        {"times": [2.0, 1.0]},
        {"times": [-1.0, 1.0]},
        {"values": [0.2, 0.1]},
        {"more": 1},
        {"values": None},
    ],
)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    sound = {"centre": 0.0, "times": [1.0, 2.0], "values": [0.1, 0.2]}
    assert CumulativeHazard.from_json(sound).values == (0.1, 0.2)
    with pytest.raises((TypeError, ValueError)):
        CumulativeHazard.from_json({**sound, **change})
