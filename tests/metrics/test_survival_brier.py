"""The integrated Brier score against torchsurv and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medmtl.metrics.kaplan_meier import StepCurve, censoring_curve
from medmtl.metrics.survival_brier import brier_skill, integrated_brier
from tests.metrics.survival_cohort import BrierScore, follow_up

UNCENSORED = StepCurve((), ())


@pytest.mark.parametrize("seed", range(3))
def test_its_mean_over_cases_is_torchsurvs(seed: int) -> None:
    time_N, event_N, risk_N = follow_up(seed, whole_days=False)
    followed = censoring_curve(time_N, event_N)
    grid_G = np.linspace(1, 60, 40)
    survival_NG = np.exp(-grid_G * np.exp(risk_N[:, None]) / 40)
    score = BrierScore()
    score(
        torch.from_numpy(survival_NG),
        torch.from_numpy(event_N),
        torch.from_numpy(time_N),
        new_time=torch.from_numpy(grid_G),
        weight=torch.from_numpy(1 / followed.at(time_N, before=True)),
        weight_new_time=torch.from_numpy(1 / followed.at(grid_G)),
    )
    found = [
        integrated_brier(*row[:1], grid_G, *row[1:], followed)
        for row in zip(survival_NG, time_N, event_N.tolist(), strict=True)
    ]
    assert np.mean(found) == pytest.approx(float(score.integral()), abs=1e-6)


def test_by_hand() -> None:
    grid_G, survival_G = np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.6, 0.5])
    # alive 0 and 0.4^2, then dead 0.5^2 with weight 1 / 0.5
    halved = StepCurve((1.2,), (0.5,))
    expected = ((0 + 0.16) / 2 + (0.16 + 0.5) / 2) / 2
    assert integrated_brier(survival_G, grid_G, 1.5, True, halved) == pytest.approx(expected)
    # censored at 1.5: nothing from then on
    assert integrated_brier(survival_G, grid_G, 1.5, False, UNCENSORED) == pytest.approx((0.08 + 0.08) / 2)
    # who is censored at a time of the grid is not followed from then on
    gone = StepCurve((1.0,), (0.5,))
    assert integrated_brier(survival_G, grid_G, 9.0, False, gone) == pytest.approx((0.32 / 2 + (0.32 + 0.5) / 2) / 2)
    # an event after the grid is somebody alive on it, whatever its weight
    nobody_later = StepCurve((3.0,), (0.0,))
    assert integrated_brier(survival_G, grid_G, 9.0, True, nobody_later) == pytest.approx(
        ((0 + 0.16) / 2 + (0.16 + 0.25) / 2) / 2
    )


def test_skill_compares_with_the_reference() -> None:
    patients = [f"p{i}" for i in range(20)]
    reference_N = np.linspace(0.1, 0.3, 20)
    assert brier_skill(reference_N, reference_N, patients).value == pytest.approx(0)
    half = brier_skill(reference_N / 2 + 0.01, reference_N, patients)
    assert half.value == pytest.approx(1 - (0.1 + 0.01) / 0.2)
    assert half.ci95 is not None
    nothing, never_wrong = brier_skill(np.zeros(0), np.zeros(0), []), brier_skill(reference_N, np.zeros(20), patients)
    assert (nothing.value, nothing.why) == (None, "no case has a value")
    assert (never_wrong.value, never_wrong.why) == (None, "Kaplan-Meier is never wrong")
