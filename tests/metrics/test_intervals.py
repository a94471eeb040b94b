"""BCa against scipy, Wilson against scipy, and whether intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from medmtl.metrics.estimate import Estimate
from medmtl.metrics.intervals import (
    bca,
    bootstrap_estimate,
    mean_estimate,
    patient_codes,
    too_few,
    weighted_mean,
    wilson,
)


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


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_equal_values_have_no_interval(value: float) -> None:
    estimate = mean_estimate([value] * 12, [f"p{i}" for i in range(12)], "higher")
    assert estimate.value == pytest.approx(value)
    assert (estimate.ci95, estimate.ci, estimate.why) == (None, None, "the resamples do not vary")


def test_a_statistic_that_is_often_undefined_has_no_interval() -> None:
    def mean_unless_first_is_out(weight_RN: np.ndarray) -> np.ndarray:
        return np.where(weight_RN[:, 0] > 0, weight_RN @ np.arange(12.0), np.nan)

    assert bca(mean_unless_first_is_out, alone(12)).why == "undefined in too many resamples"


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
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


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
