"""Scores of decisions and probabilities against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, f1_score

from medmtl.metrics.probabilities import brier, sensitivity_specificity, threshold_scores


def decisions(seed: int, n: int = 80, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    class_N = random.integers(n_classes, size=n)
    return class_N, np.where(random.random(n) < 0.7, class_N, random.integers(n_classes, size=n))


@pytest.mark.parametrize("seed", range(3))
def test_values_are_scikit_learns(seed: int) -> None:
    class_N, predicted_N = decisions(seed)
    scores = threshold_scores(class_N, predicted_N, 3)
    assert scores["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(class_N, predicted_N))
    assert scores["f1_macro"].value == pytest.approx(f1_score(class_N, predicted_N, average="macro"))
    assert list(scores) == ["balanced_accuracy", "f1_macro"]


def test_intervals_are_scipys() -> None:
    class_N, predicted_N = decisions(5, n=60, n_classes=2)

    def f1(truth: np.ndarray, predicted: np.ndarray, axis: int) -> np.ndarray:
        pairs = [((truth == k) & (predicted == k), (truth == k), (predicted == k)) for k in (0, 1)]
        return np.mean([2 * a.sum(axis) / (b.sum(axis) + c.sum(axis)) for a, b, c in pairs], axis=0)

    expected = bootstrap(
        (class_N, predicted_N), f1, paired=True, method="BCa", n_resamples=5000, rng=np.random.default_rng(0)
    ).confidence_interval
    estimate = threshold_scores(class_N, predicted_N, 2)["f1_macro"]
    assert estimate.ci95 == pytest.approx(tuple(expected), abs=0.06 * (expected.high - expected.low))


def test_classes_that_do_not_occur() -> None:
    class_N, predicted_N = np.repeat([0, 1], 12), np.tile([0, 1, 1, 2], 6)
    scores = threshold_scores(class_N, predicted_N, 4)
    assert scores["balanced_accuracy"].value == pytest.approx((0.25 + 0.5) / 2)
    assert scores["f1_macro"].value == pytest.approx(f1_score(class_N, predicted_N, average="macro"))
    # the mean recall is over the two classes that occur, F1 also over the third, which is predicted
    assert [scores[name].extra["n_classes"] for name in ("balanced_accuracy", "f1_macro")] == [2, 3]


@pytest.mark.parametrize("n", [0, 12])
def test_no_scores_for_a_single_class(n: int) -> None:
    for estimate in threshold_scores(np.ones(n, dtype=int), np.ones(n, dtype=int), 2).values():
        assert (estimate.value, estimate.n, estimate.why) == (None, n, "no two classes occur")


def test_no_intervals_below_ten() -> None:
    class_N = np.repeat([0, 1], [9, 30])
    for estimate in threshold_scores(class_N, class_N[::-1], 2).values():
        assert (estimate.ci95, estimate.why) == (None, "fewer than 10 patients in the rarest class")


def test_sensitivity_and_specificity_have_wilson_intervals() -> None:
    positive_N = np.repeat([True, False], [20, 30])
    predicted_N = np.concatenate([np.arange(20) < 17, np.arange(30) < 3])
    for estimate, right, n in zip(sensitivity_specificity(positive_N, predicted_N), (17, 27), (20, 30), strict=True):
        expected = binomtest(right, n).proportion_ci(method="wilson")
        assert (estimate.value, estimate.n, estimate.ci) == (right / n, n, "wilson")
        assert estimate.ci95 == pytest.approx((expected.low, expected.high))


def test_several_cases_of_a_patient_count_once_in_the_interval() -> None:
    positive_N, predicted_N = np.ones(40, dtype=bool), np.arange(40) < 30
    estimate, none = sensitivity_specificity(positive_N, predicted_N, [f"p{i % 20}" for i in range(40)])
    expected = binomtest(15, 20).proportion_ci(method="wilson")
    assert (estimate.value, estimate.n) == (0.75, 40)
    assert estimate.ci95 == pytest.approx((expected.low, expected.high))
    assert (none.value, none.why) == (None, "no negative case")


def test_a_patient_with_most_of_the_cases_leaves_few_that_tell_anything() -> None:
    positive_N, predicted_N = np.ones(49, dtype=bool), np.arange(49) < 39
    patients = [f"p{max(0, i - 19)}" for i in range(49)]  # 20 cases of the first, one of each of 29 others
    estimate, _ = sensitivity_specificity(positive_N, predicted_N, patients)
    share, n = 39 / 49, 49**2 / (20**2 + 29)
    assert n < 6
    # the bounds are those shares that are 1.96 of their own standard errors away
    for bound in estimate.ci95:
        assert abs(bound - share) == pytest.approx(1.959964 * np.sqrt(bound * (1 - bound) / n))


def test_few_positives_have_no_interval() -> None:
    sensitivity, specificity = sensitivity_specificity(np.arange(30) < 9, np.arange(30) < 5)
    assert (sensitivity.value, sensitivity.ci95, sensitivity.why) == (5 / 9, None, "fewer than 10 patients")
    assert specificity.ci95 is not None
    assert sensitivity_specificity(np.arange(30) < 10, np.arange(30) < 5)[0].ci95 is not None


def test_brier_of_two_classes_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    class_N, last_N = random.integers(2, size=50), random.random(50)
    estimate = brier(class_N, np.stack([1 - last_N, last_N], axis=1))
    assert estimate.value == pytest.approx(brier_score_loss(class_N, last_N))
    assert (estimate.better, estimate.ci, estimate.n) == ("lower", "bca", 50)
    assert estimate.ci95[0] < estimate.value < estimate.ci95[1]


def test_brier_of_more_classes_sums_over_them() -> None:
    probability_NK = np.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]])
    estimate = brier(np.array([0, 2]), probability_NK)
    assert estimate.value == pytest.approx(((0.25 + 0.09 + 0.04) + (1 + 1)) / 2)
    assert (estimate.ci95, estimate.why) == (None, "fewer than 10 patients")
    assert brier(np.zeros(0, dtype=int), np.zeros((0, 3))).value is None


def test_brier_of_a_rare_class_has_no_interval() -> None:
    random = np.random.default_rng(0)
    last_N = random.random(60)
    for positives, why in ((9, "fewer than 10 patients in the rarest class"), (10, None)):
        estimate = brier((np.arange(60) < positives).astype(int), np.stack([1 - last_N, last_N], axis=1))
        assert estimate.value is not None
        assert (estimate.ci95 is None, estimate.why) == (why is not None, why)
