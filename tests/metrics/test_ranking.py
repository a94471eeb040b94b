"""AUC and average precision against scikit-learn, DeLong's formula and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from medmtl.metrics.estimate import Estimate
from medmtl.metrics.ranking import auc, auc_macro, auc_mean, average_precision, roc_curve_points


def cohort(seed: int, positives: int = 25, negatives: int = 40, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores with ties, in mixed order."""
    random = np.random.default_rng(seed)
    positive_N = random.permutation(np.repeat([True, False], [positives, negatives]))
    return positive_N, np.round(random.normal(size=len(positive_N)) + shift * positive_N, 1)


def wins(positive_N: np.ndarray, score_N: np.ndarray) -> np.ndarray:
    """Every pair: 1 where the positive scores higher, 0.5 for a tie."""
    difference = score_N[positive_N][:, None] - score_N[~positive_N][None]
    return (difference > 0) + 0.5 * (difference == 0)


def delong_variance(win_mn: np.ndarray) -> float:
    return win_mn.mean(axis=1).var(ddof=1) / len(win_mn) + win_mn.mean(axis=0).var(ddof=1) / win_mn.shape[1]


def logit_interval(value: float, variance: float) -> tuple[float, float]:
    half = 1.959964 * np.sqrt(variance) / (value * (1 - value))
    return expit(logit(value) - half), expit(logit(value) + half)


@pytest.mark.parametrize("seed", range(4))
def test_auc_is_scikit_learns_and_its_interval_is_delongs(seed: int) -> None:
    positive_N, score_N = cohort(seed)
    estimate = auc(positive_N, score_N)
    assert estimate.value == pytest.approx(roc_auc_score(positive_N, score_N))
    expected = logit_interval(estimate.value, delong_variance(wins(positive_N, score_N)))
    assert estimate.ci95 == pytest.approx(expected, abs=1e-6)
    assert (estimate.n, estimate.ci, estimate.better) == (65, "delong-logit", "higher")


def test_pairs_are_formed_within_a_fold_only() -> None:
    (first, low), (second, high) = cohort(1, 20, 30), cohort(2, 15, 12)
    tables = [wins(first, low), wins(second, high)]
    weights = np.array([table.size for table in tables]) / sum(table.size for table in tables)
    value = sum(w * table.mean() for w, table in zip(weights, tables, strict=True))
    variance = sum(w**2 * delong_variance(table) for w, table in zip(weights, tables, strict=True))
    # Another model's scale must not matter; a fold of one class adds nothing.
    estimate = auc(
        np.concatenate([first, second, [True, True]]),
        np.concatenate([low, 100 + high, [0.0, 0.0]]),
        np.repeat([3, 0, 7], [50, 27, 2]),
    )
    assert estimate.value == pytest.approx(value)
    assert estimate.ci95 == pytest.approx(logit_interval(value, variance), abs=1e-6)
    assert estimate.n == 77


@pytest.mark.parametrize("seed", range(5))
def test_pooled_auc_and_its_variance_by_brute_force(seed: int) -> None:
    """Every pair of one fold counts alike; the variance is DeLong's of each fold, summed within patients."""
    random = np.random.default_rng(seed)
    n = 140
    fold_N, patient_N = random.integers(4, size=n), np.zeros(n, dtype=int)
    positive_N, score_N = random.random(n) < 0.4, np.round(random.normal(size=n), 1)
    for fold in range(4):  # two patients in three have several cases, all in one fold
        patient_N[fold_N == fold] = 100 * fold + random.integers(25, size=np.count_nonzero(fold_N == fold))
    score_N += positive_N + 5 * fold_N  # models on scales of their own
    pairs = [
        (i, j, (score_N[i] > score_N[j]) + 0.5 * (score_N[i] == score_N[j]))
        for i in np.flatnonzero(positive_N)
        for j in np.flatnonzero(~positive_N & (fold_N == fold_N[i]))
    ]
    value = np.mean([win for _, _, win in pairs])
    influence_N = np.zeros(n)
    for fold in range(4):
        mine = [(i, j, win) for i, j, win in pairs if fold_N[i] == fold]
        area = np.mean([win for _, _, win in mine])
        share = len(mine) / len(pairs)
        for side in (0, 1):
            members = sorted({pair[side] for pair in mine})
            several = len(set(patient_N[members]))
            for case in members:
                placed = np.mean([pair[2] for pair in mine if pair[side] == case])
                influence_N[case] = share * (placed - area) / len(members) * np.sqrt(several / (several - 1))
    totals = [influence_N[patient_N == patient].sum() for patient in np.unique(patient_N)]
    estimate = auc(positive_N, score_N, fold_N, [f"p{i:03}" for i in patient_N])
    assert estimate.value == pytest.approx(value)
    assert estimate.ci95 == pytest.approx(logit_interval(float(value), float(np.square(totals).sum())), abs=1e-6)
    assert estimate.value != pytest.approx(roc_auc_score(positive_N, score_N), abs=0.02)


def test_macro_auc_of_folds_pools_the_pairs_of_each_class() -> None:
    (first, low), (second, high) = multiclass(1, 60), multiclass(2, 90)
    class_N, probability_NK = np.concatenate([first, second]), np.concatenate([low, high])
    fold_N = np.repeat([0, 1], [60, 90])
    areas = []
    for number in range(3):
        tables = [wins(c == number, p[:, number]) for c, p in ((first, low), (second, high))]
        areas.append(sum(table.sum() for table in tables) / sum(table.size for table in tables))
    assert auc_macro(class_N, probability_NK, fold_N).value == pytest.approx(np.mean(areas))


def test_a_folds_only_positive_still_adds_variance() -> None:
    positive_N, score_N = np.tile([True] + [False] * 5, 12), np.random.default_rng(0).normal(size=72)
    estimate = auc(positive_N, score_N, np.repeat(np.arange(12), 6))
    area_f = (score_N.reshape(12, 6)[:, :1] > score_N.reshape(12, 6)[:, 1:]).mean(axis=1)
    assert estimate.value == pytest.approx(area_f.mean())
    between = logit_interval(estimate.value, ((area_f - area_f.mean()) ** 2).sum() / 144)
    assert estimate.ci95[0] < between[0] < between[1] < estimate.ci95[1]


def test_repeated_cases_of_a_patient_do_not_narrow_the_interval() -> None:
    positive_N, score_N = cohort(5, 30, 30)
    once = auc(positive_N, score_N)
    patients = [f"p{i}" for i in range(60) for _ in range(4)]
    repeated = auc(np.repeat(positive_N, 4), np.repeat(score_N, 4), patients=patients)
    assert repeated.value == pytest.approx(once.value)
    assert repeated.ci95 == pytest.approx(once.ci95)
    assert np.diff(auc(np.repeat(positive_N, 4), np.repeat(score_N, 4)).ci95) < 0.6 * np.diff(once.ci95)


def obuchowski_variance(positive_N: np.ndarray, score_N: np.ndarray, patient_N: np.ndarray) -> float:
    """Equation 3 of Obuchowski 1997, a sum over patients for each class and one for both."""
    win_mn = wins(positive_N, score_N)
    area, (m, n) = win_mn.mean(), win_mn.shape
    both = np.unique(patient_N)
    positive_I = np.array([(win_mn.mean(axis=1) - area)[patient_N[positive_N] == p].sum() for p in both])
    negative_I = np.array([(win_mn.mean(axis=0) - area)[patient_N[~positive_N] == p].sum() for p in both])
    with_positive, with_negative = (len(np.unique(patient_N[side])) for side in (positive_N, ~positive_N))
    return (
        with_positive / (with_positive - 1) / m**2 * (positive_I**2).sum()
        + with_negative / (with_negative - 1) / n**2 * (negative_I**2).sum()
        + 2 * len(both) / (len(both) - 1) / (m * n) * (positive_I * negative_I).sum()
    )


@pytest.mark.parametrize(("kept", "rel"), [("one class", 1e-6), ("both classes", 1e-6), ("some both", 0.02)])
@pytest.mark.parametrize("seed", range(3))
def test_the_variance_of_several_cases_per_patient_is_obuchowskis(kept: str, rel: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    patient_N = np.repeat(np.arange(24), random.integers(3, 10, size=24))
    positive_N = {
        "one class": patient_N < 10,
        "both classes": np.diff(patient_N, prepend=-1) > 0,
        "some both": (patient_N < 10) | (random.random(len(patient_N)) < 0.2),
    }[kept]
    score_N = random.normal(size=24)[patient_N] + 0.5 * random.normal(size=len(patient_N)) + positive_N
    lower, upper = auc(positive_N, score_N, None, [f"p{patient}" for patient in patient_N]).ci95
    value = wins(positive_N, score_N).mean()
    error = (logit(upper) - logit(lower)) / 2 / 1.959964 * value * (1 - value)
    assert error == pytest.approx(np.sqrt(obuchowski_variance(positive_N, score_N, patient_N)), rel=rel)


def test_a_folds_only_patient_of_a_class_still_adds_variance() -> None:
    positive_N, score_N = np.tile(np.arange(8) < 3, 12), np.random.default_rng(1).normal(size=96)
    fold_N = np.repeat(np.arange(12), 8)
    patients = [f"{fold} {case}" for fold in range(12) for case in np.repeat(np.arange(6), [3, 1, 1, 1, 1, 1])]
    estimate = auc(positive_N, score_N, fold_N, patients)
    area_f = np.array([wins(positive_N[fold_N == fold], score_N[fold_N == fold]).mean() for fold in range(12)])
    assert estimate.value == pytest.approx(area_f.mean())
    between = logit_interval(estimate.value, ((area_f - area_f.mean()) ** 2).sum() / 144)
    assert estimate.ci95[0] < between[0] < between[1] < estimate.ci95[1]


def test_the_interval_covers() -> None:
    random = np.random.default_rng(0)
    positive_N = np.repeat([True, False], [30, 30])
    truth = 0.76025  # Phi(1 / sqrt(2)) for normal scores one apart
    hits = 0
    for _ in range(400):
        lower, upper = auc(positive_N, random.normal(size=60) + positive_N).ci95
        hits += lower <= truth <= upper
    assert 0.92 <= hits / 400 <= 0.98


def test_a_perfect_area_has_the_bound_of_its_separate_pairs() -> None:
    positive_N = np.repeat([True, False], [12, 30])
    perfect = auc(positive_N, positive_N.astype(float))
    assert perfect.value == 1.0
    assert perfect.ci == "clopper-pearson-pairs"
    assert perfect.ci95[1] == 1.0
    assert perfect.ci95[0] ** 12 == pytest.approx(0.025)
    inverted = auc(positive_N, -positive_N.astype(float))
    assert inverted.value == 0.0
    assert inverted.ci95 == pytest.approx((0.0, 1 - perfect.ci95[0]))


def test_a_perfect_area_of_unequal_folds_has_the_least_mean_that_can_be() -> None:
    """By brute force: over all areas of two folds under which 2 and 9 separate pairs are right once in forty times."""
    positive_N = np.repeat([True, False, True, False], [2, 40, 9, 9])
    fold_N = np.repeat([0, 1], [42, 18])
    found = auc(positive_N, positive_N.astype(float), fold_N)
    assert (found.value, found.ci) == (1.0, "clopper-pearson-pairs")
    first = np.linspace(0.025 ** (1 / 2), 1, 100_001)
    second = (0.025 / first**2) ** (1 / 9)
    assert found.ci95[0] == pytest.approx(((80 * first + 81 * second) / 161).min(), abs=1e-6)
    assert found.ci95[0] < 0.025 ** (1 / 11)  # as if both folds had one area


def test_separate_pairs_use_a_patient_once() -> None:
    positive_N = np.tile([True, False], 14)
    patients = [f"p{i // 2}" for i in range(28)]
    assert auc(positive_N, positive_N.astype(float), patients=patients).ci95[0] ** 7 == pytest.approx(0.025)


def test_no_area_for_a_single_class() -> None:
    score_N = np.arange(12.0)
    for positive_N in (np.ones(12, dtype=bool), np.zeros(12, dtype=bool)):
        for score in (auc, average_precision):
            assert score(positive_N, score_N) == Estimate(None, "higher", n=12, why="no fold holds two classes")
        assert roc_curve_points(positive_N, score_N) == ((), ())
    assert auc(np.arange(12) < 6, score_N, np.repeat([0, 1], 6)).value is None
    assert auc(np.zeros(0, dtype=bool), np.zeros(0)).value is None


def test_no_interval_for_few_cases_or_equal_scores() -> None:
    nine, score_N = np.arange(40) < 9, np.random.default_rng(0).normal(size=40)
    for estimate in (auc(nine, score_N), average_precision(nine, score_N)):
        assert estimate.value is not None
        assert (estimate.ci95, estimate.why) == (None, "fewer than 10 patients in the rarest class")
    few = auc(np.arange(8) < 4, score_N[:8])
    assert (few.ci95, few.why) == (None, "fewer than 10 patients")
    equal = auc(np.arange(40) < 20, np.zeros(40))
    assert (equal.value, equal.ci95, equal.why) == (0.5, None, "its estimated variance is zero")


def test_cases_that_are_not_ranked_are_not_counted_for_the_interval() -> None:
    positive_N, score_N = np.arange(40) < 15, np.random.default_rng(0).normal(size=40)
    fold_N = (np.arange(40) < 6).astype(int)  # six of the positives are a fold by themselves
    probability_NK = np.stack([-score_N, score_N], axis=1)
    for estimate in (
        auc(positive_N, score_N, fold_N),
        auc_macro(positive_N.astype(int), probability_NK, fold_N),
        average_precision(positive_N, score_N, fold_N),
    ):
        assert (estimate.n, estimate.ci95, estimate.why) == (34, None, "fewer than 10 patients in the rarest class")


@pytest.mark.parametrize(("positives", "told"), [(9, False), (10, True)])
def test_a_mean_of_areas_has_an_interval_where_each_question_has_enough_patients(positives: int, told: bool) -> None:
    positive_NF = np.stack([np.arange(40) < 20, np.arange(40) < positives], axis=1)
    score_NF = np.random.default_rng(0).normal(size=(40, 2))
    estimate = auc_mean(positive_NF, score_NF, np.ones((40, 2), dtype=bool))
    assert (estimate.ci95 is not None) is told
    assert estimate.extra == {"n_areas": 2}


def test_scores_must_be_finite_and_as_many_as_cases() -> None:
    with pytest.raises(ValueError, match="finite"):
        auc(np.array([True, False]), np.array([np.nan, 0.0]))
    with pytest.raises(ValueError, match="lengths differ"):
        average_precision(np.array([True, False]), np.zeros(3))


def multiclass(seed: int, n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    class_N = random.integers(3, size=n)
    probability_NK = np.exp(random.normal(size=(n, 3)) + 1.2 * np.eye(3)[class_N])
    return class_N, probability_NK / probability_NK.sum(axis=1, keepdims=True)


def test_macro_auc_is_scikit_learns() -> None:
    class_N, probability_NK = multiclass(0)
    estimate = auc_macro(class_N, probability_NK)
    assert estimate.value == pytest.approx(roc_auc_score(class_N, probability_NK, multi_class="ovr"))
    assert estimate.extra == {"n_classes": 3}


def test_macro_auc_of_two_classes_is_the_auc() -> None:
    positive_N, score_N = cohort(3)
    macro = auc_macro(positive_N.astype(int), np.stack([-score_N, score_N], axis=1))
    plain = auc(positive_N, score_N)
    assert macro.value == pytest.approx(plain.value)
    assert macro.ci95 == pytest.approx(plain.ci95)


def test_macro_variance_is_that_of_the_jackknife() -> None:
    class_N, probability_NK = multiclass(4, 150)
    estimate = auc_macro(class_N, probability_NK)
    keep = ~np.eye(150, dtype=bool)
    left_out = [auc_macro(class_N[rows], probability_NK[rows]).value for rows in keep]
    expected = logit_interval(estimate.value, 149 * np.var(left_out))
    assert estimate.ci95 == pytest.approx(expected, abs=2e-3)


def test_macro_auc_leaves_out_classes_that_do_not_occur() -> None:
    class_N, probability_NK = multiclass(0)
    rows = class_N < 2
    estimate = auc_macro(class_N[rows], probability_NK[rows])
    areas = [roc_auc_score(class_N[rows] == k, probability_NK[rows, k]) for k in (0, 1)]
    assert estimate.value == pytest.approx(np.mean(areas))
    assert estimate.extra == {"n_classes": 2}
    assert auc_macro(np.zeros(12, dtype=int), np.ones((12, 3)) / 3).value is None


def test_perfect_macro_auc_shares_the_error_rate() -> None:
    class_N = np.repeat([0, 1, 2], [10, 20, 30])
    estimate = auc_macro(class_N, np.eye(3)[class_N])
    assert estimate.value == 1.0
    bounds = [(0.025 / 3) ** (1 / k) for k in (10, 20, 30)]
    assert estimate.ci95 == pytest.approx((np.mean(bounds), 1.0))


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_scikit_learns(seed: int) -> None:
    positive_N, score_N = cohort(seed)
    estimate = average_precision(positive_N, score_N)
    assert estimate.value == pytest.approx(average_precision_score(positive_N, score_N))
    assert estimate.ci == "bca"
    assert estimate.ci95[0] < estimate.value < estimate.ci95[1]


def test_average_precision_of_folds_is_weighted_by_positives() -> None:
    (first, low), (second, high) = cohort(1, 20, 30), cohort(2, 15, 12)
    value = (20 * average_precision_score(first, low) + 15 * average_precision_score(second, high)) / 35
    folds = np.repeat([0, 1], [50, 27])
    estimate = average_precision(np.concatenate([first, second]), np.concatenate([low, 100 + high]), folds)
    assert estimate.value == pytest.approx(value)


def test_average_precision_resamples_as_scikit_learn_would() -> None:
    positive_N, score_N = cohort(2)
    random = np.random.default_rng(0)
    drawn = [random.integers(65, size=65) for _ in range(400)]
    spread = np.std([average_precision_score(positive_N[rows], score_N[rows]) for rows in drawn])
    lower, upper = average_precision(positive_N, score_N).ci95
    assert upper - lower == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_roc_curve_is_scikit_learns() -> None:
    positive_N, score_N = cohort(0)
    false_rate, true_rate, _ = roc_curve(positive_N, score_N, drop_intermediate=False)
    points = roc_curve_points(positive_N, score_N)
    assert points[0] == pytest.approx(false_rate)
    assert points[1] == pytest.approx(true_rate)
