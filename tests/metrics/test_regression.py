"""Regression metrics against scikit-learn and scipy, values and intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import bootstrap, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from medmtl.metrics.estimate import Estimate
from medmtl.metrics.regression import mae, r2, rmse, skill, spearman

PATIENTS = [f"p{i:02}" for i in range(40)]
MEDIAN = 55.0


def pairs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Observed and predicted ejection fractions, with ties."""
    random = np.random.default_rng(seed)
    observed_N = np.round(random.normal(52, 12, size=40))
    return observed_N, np.round(0.7 * observed_N + 17 + random.normal(0, 5, size=40))


def our_skill(observed_N: np.ndarray, predicted_N: np.ndarray, patients: list[str]) -> Estimate:
    return skill(observed_N, predicted_N, MEDIAN, patients)


def reference_skill(observed_N: np.ndarray, predicted_N: np.ndarray) -> float:
    constant = np.full(len(observed_N), MEDIAN)
    return float(1 - mean_absolute_error(observed_N, predicted_N) / mean_absolute_error(observed_N, constant))


METRICS = [
    (mae, mean_absolute_error, "%", "lower"),
    (rmse, root_mean_squared_error, "%", "lower"),
    (r2, r2_score, None, "higher"),
    (spearman, lambda observed_N, predicted_N: spearmanr(observed_N, predicted_N).statistic, None, "higher"),
    (our_skill, reference_skill, None, "higher"),
]


@pytest.mark.parametrize(("metric", "reference", "unit", "better"), METRICS)
def test_value_and_interval_are_those_of_the_reference(
    metric: Callable[..., Estimate], reference: Callable[..., float], unit: str | None, better: str
) -> None:
    observed_N, predicted_N = pairs()
    estimate = metric(observed_N, predicted_N, PATIENTS, *([] if unit is None else [unit]))
    assert estimate.value == pytest.approx(reference(observed_N, predicted_N))
    assert (estimate.unit, estimate.better, estimate.n, estimate.ci) == (unit, better, 40, "bca")
    expected = bootstrap(
        (observed_N, predicted_N),
        reference,
        paired=True,
        vectorized=False,
        n_resamples=800,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert estimate.ci95 == pytest.approx(tuple(expected), abs=0.12 * (expected.high - expected.low))


@pytest.mark.parametrize("metric", [mae, rmse, r2, spearman, our_skill])
def test_no_case_has_no_value(metric: Callable[..., Estimate]) -> None:
    estimate = metric(np.zeros(0), np.zeros(0), [])
    assert (estimate.value, estimate.n, estimate.why) == (None, 0, "no labelled case")


@pytest.mark.parametrize("metric", [mae, rmse, r2, spearman, our_skill])
def test_nine_patients_have_no_interval(metric: Callable[..., Estimate]) -> None:
    observed_N, predicted_N = pairs()
    estimate = metric(observed_N[:18], predicted_N[:18], PATIENTS[:9] * 2)
    assert estimate.value is not None
    assert (estimate.n, estimate.ci95, estimate.why) == (18, None, "fewer than 10 patients")


def test_constants_have_no_value() -> None:
    observed_N, _ = pairs()
    constant_N = np.full(40, 0.1)
    assert r2(constant_N, observed_N, PATIENTS).value is None
    assert r2(observed_N, constant_N, PATIENTS).value is not None
    assert spearman(constant_N, observed_N, PATIENTS).value is None
    assert spearman(observed_N, constant_N, PATIENTS).value is None
    assert skill(constant_N, observed_N, 0.1, PATIENTS).value is None


def test_one_case_that_differs_is_too_little_for_an_interval() -> None:
    observed_N = np.where(np.arange(40) == 7, 60.1, 50.1)
    estimate = r2(observed_N, observed_N + np.linspace(-1, 1, 40), PATIENTS)
    assert estimate.value is not None
    assert (estimate.ci95, estimate.why) == (None, "undefined in too many resamples")


def test_skill_of_the_median_itself_is_zero() -> None:
    observed_N, _ = pairs()
    estimate = skill(observed_N, np.full(40, MEDIAN), MEDIAN, PATIENTS)
    assert (estimate.value, estimate.ci95) == (0.0, None)


def test_skill_against_the_median_of_each_cases_fold() -> None:
    observed_N, predicted_N = pairs()
    median_N = np.repeat([48.0, 55.0], [25, 15])
    estimate = skill(observed_N, predicted_N, median_N, PATIENTS)
    errors = np.abs(observed_N - predicted_N).sum()
    constant = np.abs(observed_N[:25] - 48).sum() + np.abs(observed_N[25:] - 55).sum()
    assert estimate.value == pytest.approx(1 - errors / constant)
    expected = bootstrap(
        (np.abs(observed_N - predicted_N), np.abs(observed_N - median_N)),
        lambda error, reference, axis: 1 - error.sum(axis=axis) / reference.sum(axis=axis),
        paired=True,
        n_resamples=20000,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert estimate.ci95 == pytest.approx(tuple(expected), abs=0.08 * (expected.high - expected.low))


def test_a_large_offset_does_not_cost_digits() -> None:
    observed_N, predicted_N = pairs()
    shifted = r2(observed_N + 1e7, predicted_N + 1e7, PATIENTS)
    assert shifted.ci95 == pytest.approx(r2(observed_N, predicted_N, PATIENTS).ci95, abs=1e-6)


def test_every_case_needs_a_patient() -> None:
    with pytest.raises(ValueError, match="need 40 patients"):
        mae(*pairs(), PATIENTS[:3])
