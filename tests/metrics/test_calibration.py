"""Youden's threshold by brute force, Platt scaling against scikit-learn, and the calibration curve by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from medmtl.metrics.calibration import Calibrator, calibration_curve, fit_calibrator, youden_threshold


def cohort(seed: int, n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities with ties, too extreme and too high."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=n)
    positive_N = random.random(n) < expit(truth)
    return positive_N, np.round(expit(2 * truth + 1), 2).clip(0.01, 0.99)


def both(probability_N: np.ndarray) -> np.ndarray:
    return np.stack([1 - probability_N, probability_N], axis=1)


def youden(positive_N: np.ndarray, score_N: np.ndarray, threshold: float) -> float:
    called_N = score_N >= threshold
    return float(called_N[positive_N].mean() + (~called_N[~positive_N]).mean() - 1)


@pytest.mark.parametrize("seed", range(6))
def test_no_threshold_has_a_larger_youden_index(seed: int) -> None:
    positive_N, score_N = cohort(seed)
    threshold = youden_threshold(positive_N, score_N)
    assert threshold is not None
    best = max(youden(positive_N, score_N, candidate) for candidate in np.linspace(0, 1, 2001))
    assert youden(positive_N, score_N, threshold) == pytest.approx(best)
    assert threshold not in score_N


def test_of_equal_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    # in both, calling three positive is as good as calling one
    positive_N = np.array([False, True, False, True])
    assert youden_threshold(positive_N, np.array([0.1, 0.3, 0.6, 0.9])) == pytest.approx(0.75)
    assert youden_threshold(positive_N, np.array([0.3, 0.6, 0.8, 0.99])) == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("positive", "score"),
    [([True, True], [0.1, 0.2]), ([False, False], [0.1, 0.2]), ([True, False], [0.4, 0.4]), ([], [])],
)
def test_nothing_to_choose_from_gives_no_threshold(positive: list[bool], score: list[float]) -> None:
    assert youden_threshold(np.array(positive, dtype=bool), np.array(score)) is None


@pytest.mark.parametrize("seed", range(4))
def test_two_classes_are_platts_logistic_regression_on_the_logit(seed: int) -> None:
    positive_N, score_N = cohort(seed)
    fitted = fit_calibrator(positive_N.astype(int), both(score_N))
    assert fitted is not None
    # Platt's targets as weights: every case counts as positive and as negative in part
    n_positive, n_negative = positive_N.sum(), (~positive_N).sum()
    target_N = np.where(positive_N, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000)
    feature = np.tile(logit(score_N), 2)[:, None]
    model.fit(feature, np.repeat([1, 0], len(score_N)), np.concatenate([target_N, 1 - target_N]))
    assert fitted.slope == pytest.approx(model.coef_[0, 0], abs=1e-4)
    assert fitted.offset_K == pytest.approx((0.0, model.intercept_[0]), abs=1e-4)
    expected = expit(model.coef_[0, 0] * logit(score_N) + model.intercept_[0])
    assert fitted.apply(both(score_N))[:, 1] == pytest.approx(expected, abs=1e-4)
    # the rank of the cases stays
    assert (np.diff(fitted.apply(both(np.sort(score_N)))[:, 1]) >= 0).all()


def test_calibration_improves_fresh_probabilities() -> None:
    positive_N, score_N = cohort(0, 400)
    fitted = fit_calibrator(positive_N.astype(int), both(score_N))
    assert fitted is not None
    assert fitted.slope < 0.75
    fresh, raw = cohort(1, 400)
    assert log_loss(fresh, fitted.apply(both(raw))[:, 1]) < log_loss(fresh, raw) - 0.05


def test_several_classes_share_a_slope_and_undo_a_wrong_prior() -> None:
    random = np.random.default_rng(0)
    class_N = random.choice(3, size=3000, p=[0.6, 0.3, 0.1])
    evidence_NK = random.normal(size=(3000, 3)) + 1.0 * np.eye(3)[class_N]
    balanced_NK = np.exp(2 * evidence_NK)  # twice too sure, and all classes alike before
    balanced_NK /= balanced_NK.sum(axis=1, keepdims=True)
    fitted = fit_calibrator(class_N, balanced_NK)
    assert fitted is not None
    assert fitted.slope == pytest.approx(0.5, abs=0.06)
    assert fitted.offset_K == pytest.approx(np.log([1.0, 0.5, 1 / 6]), abs=0.25)
    assert fitted.apply(balanced_NK).mean(axis=0) == pytest.approx([0.6, 0.3, 0.1], abs=0.02)
    assert fitted.apply(balanced_NK).sum(axis=1) == pytest.approx(1.0)


def test_separable_and_extreme_probabilities_stay_finite() -> None:
    class_N = np.repeat([0, 1], 6)
    fitted = fit_calibrator(class_N, np.eye(2)[class_N])
    assert fitted is not None
    calibrated_NK = fitted.apply(np.eye(2)[class_N])
    assert np.isfinite(calibrated_NK).all()
    # Platt's target for six of six: seven eighths
    assert calibrated_NK[:, 1] == pytest.approx(np.where(class_N, 7 / 8, 1 / 8), abs=1e-3)


def test_a_ranking_is_never_turned_round() -> None:
    positive_N, score_N = cohort(0)
    fitted = fit_calibrator((~positive_N).astype(int), both(score_N))
    assert fitted is not None
    assert fitted.slope == 0.0
    share = (np.count_nonzero(~positive_N) + 0.5) / (len(positive_N) + 1)
    assert fitted.apply(both(score_N))[:, 1] == pytest.approx(share, abs=0.02)


def test_a_class_without_a_case_cannot_be_calibrated() -> None:
    assert fit_calibrator(np.zeros(12, dtype=int), np.full((12, 2), 0.5)) is None
    assert fit_calibrator(np.zeros(0, dtype=int), np.zeros((0, 2))) is None


def test_the_identity_changes_nothing() -> None:
    probability_NK = both(np.array([0.01, 0.5, 0.9]))
    assert Calibrator(1.0, (0.0, 0.0)).apply(probability_NK) == pytest.approx(probability_NK)


def test_curve_is_the_share_in_groups_of_equal_size() -> None:
    positive_N, score_N = cohort(3, 62)
    score_N = score_N + 1e-6 * np.arange(62)  # without ties
    points = calibration_curve(positive_N, score_N)
    groups = np.array_split(np.argsort(score_N, kind="stable"), 6)
    assert [point.predicted for point in points] == pytest.approx([score_N[rows].mean() for rows in groups])
    assert [point.observed for point in points] == pytest.approx([positive_N[rows].mean() for rows in groups])
    for point, rows in zip(points, groups, strict=True):
        expected = binomtest(int(positive_N[rows].sum()), len(rows)).proportion_ci(method="wilson")
        assert point.ci95 == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("levels", [1, 2, 4, 7, 40])
def test_cases_of_one_probability_stand_in_one_group_whatever_the_order_of_rows(levels: int) -> None:
    rng = np.random.default_rng(levels)
    score_N = np.round(rng.uniform(size=200) * levels) / levels
    positive_N = rng.uniform(size=200) < score_N
    by_class = np.argsort(positive_N, kind="stable")  # as a table often is
    points = calibration_curve(positive_N, score_N)
    assert calibration_curve(positive_N[by_class], score_N[by_class]) == points
    assert calibration_curve(positive_N[by_class[::-1]], score_N[by_class[::-1]]) == points
    values, counts = np.unique(score_N, return_counts=True)
    assert len(points) <= min(10, len(values))
    if counts.min() >= 20:  # no level is smaller than a group
        assert [point.predicted for point in points] == pytest.approx(values)


def test_one_answer_for_all_is_one_group() -> None:
    positive_N = np.arange(100) < 50
    (point,) = calibration_curve(positive_N, np.full(100, 0.5))
    assert (point.predicted, point.observed) == (0.5, 0.5)


def test_few_cases_beside_a_large_tie_are_no_group_of_their_own() -> None:
    score_N = np.array([0.1] * 3 + [0.5] * 60 + [0.9] * 15 + [0.95] * 4)
    points = calibration_curve(score_N > 0.7, score_N)
    assert [round(point.predicted, 3) for point in points] == [0.481, 0.911]


def test_curve_has_ten_points_at_most_and_none_for_few_cases() -> None:
    assert len(calibration_curve(*cohort(0, 500))) == 10
    assert len(calibration_curve(*cohort(0, 30))) == 3
    assert calibration_curve(*cohort(0, 29)) == ()


def test_repeated_cases_of_a_patient_do_not_narrow_the_bars() -> None:
    positive_N, score_N = cohort(2, 40)
    once = calibration_curve(positive_N, score_N)
    patients = [f"p{index:02}" for index in range(40) for _ in range(2)]
    twice = calibration_curve(np.repeat(positive_N, 2), np.repeat(score_N, 2), patients)
    assert len(twice) == 8
    narrow = calibration_curve(np.repeat(positive_N, 2), np.repeat(score_N, 2))
    widths = [[np.diff(point.ci95)[0] for point in points] for points in (once, twice, narrow)]
    assert np.mean(widths[1]) > 1.2 * np.mean(widths[2])
