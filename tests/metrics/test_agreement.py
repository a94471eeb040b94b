"""Calibration slope and Bland-Altman against scipy, scikit-learn and the formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, linregress
from sklearn.linear_model import LinearRegression

from medmtl.metrics.agreement import bland_altman, bland_altman_figure, calibration_slope

PATIENTS = [f"p{i:02}" for i in range(40)]


def pairs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Observed and predicted volumes; the predictions are drawn towards the mean and too high."""
    random = np.random.default_rng(seed)
    observed_N = random.normal(3000, 400, size=40)
    return observed_N, 0.5 * observed_N + 1600 + random.normal(0, 150, size=40)


def test_the_slope_and_its_interval_are_those_of_scipy_and_scikit_learn() -> None:
    observed_N, predicted_N = pairs()
    estimate = calibration_slope(observed_N, predicted_N, PATIENTS)
    assert estimate.value == pytest.approx(linregress(predicted_N, observed_N).slope, rel=1e-9)
    line = LinearRegression().fit(predicted_N[:, None], observed_N)
    assert estimate.value == pytest.approx(line.coef_[0], rel=1e-9)
    expected = bootstrap(
        (observed_N, predicted_N),
        lambda observed, predicted: linregress(predicted, observed).slope,
        paired=True,
        vectorized=False,
        n_resamples=800,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert estimate.ci95 == pytest.approx(tuple(expected), abs=0.06)
    assert (estimate.better, estimate.unit, estimate.n, estimate.ci) == ("one", None, 40, "bca")


def test_a_perfect_answer_has_slope_one_and_half_the_spread_slope_two() -> None:
    observed_N, _ = pairs()
    assert calibration_slope(observed_N, observed_N, PATIENTS).value == pytest.approx(1)
    assert calibration_slope(observed_N, observed_N / 2, PATIENTS).value == pytest.approx(2)


def test_a_constant_answer_has_no_slope_but_says_why() -> None:
    observed_N, _ = pairs()
    estimate = calibration_slope(observed_N, np.full(40, 3000.0), PATIENTS)
    assert (estimate.value, estimate.n, estimate.why) == (None, 40, "the predicted values do not vary")


def test_bias_and_limits_are_mean_and_deviation_of_the_differences() -> None:
    observed_N, predicted_N = pairs()
    found = bland_altman(observed_N, predicted_N, PATIENTS, "ml")
    difference = predicted_N - observed_N
    half = 1.959963984540054 * difference.std(ddof=1)
    assert list(found) == ["bias", "loa_lower", "loa_upper"]
    assert found["bias"].value == pytest.approx(difference.mean(), rel=1e-9)
    assert found["loa_lower"].value == pytest.approx(difference.mean() - half, rel=1e-9)
    assert found["loa_upper"].value == pytest.approx(difference.mean() + half, rel=1e-9)
    for estimate in found.values():
        assert (estimate.better, estimate.unit, estimate.n) == ("zero", "ml", 40)
        assert estimate.ci95 is not None and estimate.value is not None
        assert estimate.ci95[0] < estimate.value < estimate.ci95[1]


def test_the_interval_of_a_limit_is_about_as_wide_as_bland_and_altman_say() -> None:
    # their approximation of the standard error of a limit: sqrt(3 / n) SD
    random = np.random.default_rng(1)
    difference = random.normal(0, 1, 400)
    found = bland_altman(np.zeros(400), difference, [f"p{i}" for i in range(400)])["loa_upper"]
    assert found.ci95 is not None
    assert found.ci95[1] - found.ci95[0] == pytest.approx(2 * 1.96 * np.sqrt(3 / 400), rel=0.15)


def test_a_patients_cases_are_resampled_together() -> None:
    observed_N, predicted_N = pairs()
    twice = [f"p{i // 2}" for i in range(40)]
    assert bland_altman(observed_N, predicted_N, twice)["bias"].value == pytest.approx(
        bland_altman(observed_N, predicted_N, PATIENTS)["bias"].value
    )
    few = [f"p{i % 9}" for i in range(40)]
    for estimate in (
        calibration_slope(observed_N, predicted_N, few),
        *bland_altman(observed_N, predicted_N, few).values(),
    ):
        assert estimate.value is not None
        assert (estimate.ci95, estimate.why) == (None, "fewer than 10 patients")


def test_no_case_and_one_case_say_what_is_missing() -> None:
    none, one = np.array([]), np.array([2.0])
    for estimate in (calibration_slope(none, none, []), *bland_altman(none, none, []).values()):
        assert (estimate.value, estimate.n, estimate.why) == (None, 0, "no labelled case")
    assert calibration_slope(one, one, ["p"]).value is None
    found = bland_altman(one, one + 1, ["p"], "mm")
    assert found["bias"].value == 1.0
    assert (found["loa_lower"].value, found["loa_upper"].value) == (None, None)
    assert bland_altman_figure("x", [2.0], [3.0]).lines == (1.0,)


def test_the_figure_holds_the_same_lines() -> None:
    observed_N, predicted_N = pairs()
    figure = bland_altman_figure("volume", observed_N.tolist(), predicted_N.tolist(), "ml")
    found = bland_altman(observed_N, predicted_N, PATIENTS, "ml")
    assert figure.lines == pytest.approx([found[name].value for name in ("loa_lower", "bias", "loa_upper")])
    assert figure.means[0] == pytest.approx((observed_N[0] + predicted_N[0]) / 2)
    assert figure.differences[0] == pytest.approx(predicted_N[0] - observed_N[0])
