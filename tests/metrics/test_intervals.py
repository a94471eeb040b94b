"""BCa against scipy, Wilson against scipy, and whether intervals cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from medmtl.metrics import intervals
from medmtl.metrics.agreement import bland_altman, calibration_slope
from medmtl.metrics.detection import DetectedCase, froc
from medmtl.metrics.detection import average_precision as box_precision
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.intervals import (
    Interval,
    bca,
    bootstrap_estimate,
    mean_estimate,
    patient_codes,
    too_few,
    weighted_mean,
    wilson,
)
from medmtl.metrics.ordinal import kappa_quadratic
from medmtl.metrics.prediction_interval import interval_score
from medmtl.metrics.probabilities import brier, threshold_scores
from medmtl.metrics.ranking import average_precision
from medmtl.metrics.regression import mae, r2, rmse, skill, spearman
from medmtl.metrics.survival_brier import brier_skill
from tests.metrics.test_detection import cohort


def alone(n: int) -> np.ndarray:
    return patient_codes(None, n)


@pytest.mark.parametrize("seed", range(3))
def test_bca_of_a_mean_is_scipys(seed: int) -> None:
    value_N = np.random.default_rng(seed).lognormal(size=40)
    expected = bootstrap(
        (value_N,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    lower, upper = bca(weighted_mean(value_N), alone(40), draws=20000).ci95
    width = expected.high - expected.low
    assert lower == pytest.approx(expected.low, abs=0.03 * width)
    assert upper == pytest.approx(expected.high, abs=0.03 * width)


def test_bca_of_a_share_whose_resamples_are_often_the_share_itself_is_scipys() -> None:
    value_N = (np.arange(40) < 12).astype(float)
    expected = bootstrap((value_N,), np.mean, n_resamples=5000, method="BCa", rng=np.random.default_rng(1))
    # resamples lie a fortieth apart
    found = bca(weighted_mean(value_N), alone(40), draws=5000).ci95
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.01)


def test_bca_of_a_ratio_is_scipys() -> None:
    x_N, y_N = np.random.default_rng(7).lognormal(size=(2, 30))
    expected = bootstrap(
        (x_N, y_N),
        lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis),
        n_resamples=20000,
        paired=True,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    interval = bca(lambda weight_RN: (weight_RN @ x_N) / (weight_RN @ y_N), alone(30), draws=20000)
    assert interval.ci95 == pytest.approx(tuple(expected), abs=0.03 * (expected.high - expected.low))


@pytest.mark.parametrize("seed", range(2))
def test_bca_over_patients_is_scipys_of_whole_patients(seed: int) -> None:
    random = np.random.default_rng(seed)
    size_P = random.integers(1, 6, size=30)
    patient_N = np.repeat(np.arange(30), size_P)
    value_N = random.lognormal(size=30)[patient_N] + random.normal(0, 0.3, size=len(patient_N))
    expected = bootstrap(
        (np.bincount(patient_N, value_N), size_P),
        lambda total, size, axis: total.sum(axis=axis) / size.sum(axis=axis),
        n_resamples=20000,
        paired=True,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    order = random.permutation(len(patient_N))
    estimate = mean_estimate(value_N[order].tolist(), [f"p{i:02}" for i in patient_N[order]], "higher")
    assert estimate.value == pytest.approx(value_N.mean())
    # 2,000 resamples against 20,000
    assert estimate.ci95 == pytest.approx(tuple(expected), abs=0.08 * (expected.high - expected.low))


def test_cases_of_one_patient_say_nothing_new_when_they_repeat() -> None:
    value_N = np.random.default_rng(0).normal(size=15)
    patients = [f"p{i:02}" for i in range(15)]
    once = mean_estimate(value_N.tolist(), patients, "higher")
    thrice = mean_estimate(np.repeat(value_N, 3).tolist(), np.repeat(patients, 3).tolist(), "higher")
    assert thrice.ci95 == pytest.approx(once.ci95)
    assert (once.n, thrice.n) == (15, 45)


def test_the_interval_is_deterministic_and_ignores_the_order_of_cases() -> None:
    value_N = np.random.default_rng(0).normal(size=12)
    patients = [f"p{i % 11}" for i in range(12)]
    one = mean_estimate(value_N.tolist(), patients, "higher")
    assert one == mean_estimate(value_N.tolist(), patients, "higher")
    turned = mean_estimate(value_N[::-1].tolist(), patients[::-1], "higher")
    assert turned.ci95 == pytest.approx(one.ci95)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    statistic = weighted_mean(np.random.default_rng(0).normal(size=20))
    whole = bca(statistic, alone(20))
    monkeypatch.setattr("medmtl.metrics.intervals.BLOCK", 140)
    assert bca(statistic, alone(20)).ci95 == pytest.approx(whole.ci95)


def test_bca_covers_the_mean_of_a_skewed_population() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        lower, upper = bca(weighted_mean(random.gamma(4.0, size=40)), alone(40), draws=400).ci95
        hits += lower <= 4.0 <= upper
    assert 0.90 <= hits / 300 <= 0.98


def test_resampling_patients_covers_where_resampling_cases_would_not() -> None:
    random = np.random.default_rng(1)
    hits = {"patients": 0, "cases": 0}
    patient_N = np.repeat(np.arange(25), 4)
    for _ in range(200):
        statistic = weighted_mean(np.repeat(random.normal(size=25), 4) + 0.2 * random.normal(size=100))
        for name, code_N in (("patients", patient_N), ("cases", alone(100))):
            lower, upper = bca(statistic, code_N, draws=300).ci95
            hits[name] += lower <= 0 <= upper
    assert hits["patients"] / 200 >= 0.88
    assert hits["cases"] / 200 <= 0.80


def test_nine_patients_are_too_few() -> None:
    estimate = mean_estimate([0.1 * i for i in range(18)], [f"p{i % 9}" for i in range(18)], "higher")
    assert estimate.value == pytest.approx(0.85)
    assert (estimate.ci95, estimate.why) == (None, "fewer than 10 patients")
    assert mean_estimate([0.1 * i for i in range(20)], [f"p{i % 10}" for i in range(20)], "higher").ci95 is not None


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_equal_values_have_no_interval(value: float) -> None:
    estimate = mean_estimate([value] * 12, [f"p{i}" for i in range(12)], "higher")
    assert estimate.value == pytest.approx(value)
    assert (estimate.ci95, estimate.ci, estimate.why) == (None, None, "the resamples do not vary")


def test_a_statistic_that_is_often_undefined_has_no_interval() -> None:
    def mean_unless_first_is_out(weight_RN: np.ndarray) -> np.ndarray:
        return np.where(weight_RN[:, 0] > 0, weight_RN @ np.arange(12.0), np.nan)

    def mean_unless_two_are_out(weight_RN: np.ndarray) -> np.ndarray:
        """Undefined in one resample of nine, and defined whoever alone is left out."""
        return np.where(weight_RN[:, :2].any(axis=1), weight_RN @ np.arange(12.0), np.nan)

    for statistic in (mean_unless_first_is_out, mean_unless_two_are_out):
        assert bca(statistic, alone(12)).why == "undefined in too many resamples"


def test_a_value_beyond_all_resamples_still_gives_finite_bounds() -> None:
    interval = bca(lambda weight_RN: (weight_RN == 1).mean(axis=1), alone(40), draws=200)
    assert interval.ci95 is not None
    assert np.isfinite(interval.ci95).all()


def test_missing_values_are_left_out_and_counted() -> None:
    estimate = mean_estimate([0.5, None, 0.7], ["a", "b", "c"], "higher", "mm", {"n_missed": 1})
    assert (estimate.value, estimate.n, estimate.unit) == (pytest.approx(0.6), 2, "mm")
    assert estimate.extra == {"n_missed": 1}
    nothing = mean_estimate([None, None], ["a", "b"], "lower")
    assert (nothing.value, nothing.n, nothing.why) == (None, 0, "no case has a value")


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 17), (99, 100), (5, 1000)])
def test_wilson_is_scipys(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_without_a_case_there_is_no_value_and_nothing_is_computed() -> None:
    nothing = bootstrap_estimate(lambda weight_RN: 1 / 0, alone(0), "lower", "mm", {"n_missed": 2}, "refused")
    assert nothing == Estimate(None, "lower", "mm", why="no labelled case", extra={"n_missed": 2})


def test_patient_codes() -> None:
    assert patient_codes(["b", "a", "b"], 3).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="need 3 patients"):
        patient_codes(["a"], 3)


def test_the_rarest_class_is_counted_in_patients() -> None:
    class_N = np.repeat([0, 1], 20)
    assert too_few(class_N, np.arange(40)) is None
    assert too_few(class_N, np.append(np.arange(20), 20 + np.arange(20) // 3)) == (
        "fewer than 10 patients in the rarest class"
    )
    assert too_few(class_N, np.arange(40) % 9) == "fewer than 10 patients"
    assert too_few(class_N, np.arange(40) % 10) is None


RANDOM = np.random.default_rng(0)
GRADE = RANDOM.integers(3, size=48)
CALLED = np.where(RANDOM.random(48) < 0.6, GRADE, RANDOM.integers(3, size=48))
SHARE = RANDOM.dirichlet(np.ones(3), size=48)
SIZE = np.round(RANDOM.normal(50, 10, size=48))
FOUND = np.round(SIZE + RANDOM.normal(3, 8, size=48))
FOLD = np.arange(48) // 2 % 2


def boxes(rows: np.ndarray, patients: list[str]) -> list[DetectedCase]:
    cases = [replace(case, fold=int(fold)) for case, fold in zip(cohort(48), FOLD, strict=True)]
    return [replace(cases[row], patient=patient) for row, patient in zip(rows, patients, strict=True)]


METRICS: dict[str, Callable[[np.ndarray, list[str]], Estimate]] = {
    "balanced accuracy": lambda n, p: threshold_scores(GRADE[n], CALLED[n], 3, p)["balanced_accuracy"],
    "macro F1": lambda n, p: threshold_scores(GRADE[n], CALLED[n], 3, p)["f1_macro"],
    "Brier": lambda n, p: brier(GRADE[n], SHARE[n], p),
    "kappa": lambda n, p: kappa_quadratic(GRADE[n], CALLED[n], 3, p),
    "average precision": lambda n, p: average_precision(GRADE[n] > 0, SHARE[n, 0], FOLD[n], p),
    "MAE": lambda n, p: mae(SIZE[n], FOUND[n], p),
    "RMSE": lambda n, p: rmse(SIZE[n], FOUND[n], p),
    "R2": lambda n, p: r2(SIZE[n], FOUND[n], p),
    "Spearman": lambda n, p: spearman(SIZE[n], FOUND[n], p),
    "skill": lambda n, p: skill(SIZE[n], FOUND[n], 48.0 + FOLD[n], p),
    "slope": lambda n, p: calibration_slope(SIZE[n], FOUND[n], p),
    "bias": lambda n, p: bland_altman(SIZE[n], FOUND[n], p)["bias"],
    "limit": lambda n, p: bland_altman(SIZE[n], FOUND[n], p)["loa_upper"],
    "interval score": lambda n, p: interval_score(SIZE[n], FOUND[n] - 5, FOUND[n] + 5, p),
    "Brier skill": lambda n, p: brier_skill(SHARE[n, 0], SHARE[n, 1], p),
    "FROC": lambda n, p: froc(boxes(n, p)),
    "box precision": lambda n, p: box_precision(boxes(n, p), [0.1, 0.3]),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_resample_scores_as_the_cases_that_it_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = METRICS[name]
    held_P = np.random.default_rng(1).integers(4, size=24)

    def of_one_resample(statistic: intervals.Statistic, patient_N: np.ndarray) -> Interval:
        value = float(statistic(held_P[patient_N][None].astype(float))[0])
        return Interval((value, value), "one resample")

    monkeypatch.setattr(intervals, "bca", of_one_resample)
    drawn = metric(np.arange(48), [f"p{row // 2:02}" for row in range(48)])
    rows = np.repeat(np.arange(48), held_P.repeat(2))
    monkeypatch.setattr(intervals, "bca", lambda *_: Interval(why="not asked"))
    expected = metric(rows, [f"p{row // 2:02}" for row in rows]).value
    assert drawn.ci95 == pytest.approx((expected, expected))
    assert drawn.value != pytest.approx(expected)
