"""How well scores rank cases: the area under the ROC curve, and average precision.

The scores of two models are not on one scale, so cases are compared within a fold only; a fold of a single class has
nothing to compare and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import rankdata

from medmtl.metrics.estimate import Estimate
from medmtl.metrics.intervals import (
    BoolArray,
    FloatArray,
    IntArray,
    Interval,
    bootstrap_estimate,
    divide,
    logit_interval,
    patient_codes,
    too_few,
)

NOTHING_TO_RANK = "no fold holds two classes"


@dataclass(frozen=True)
class _Area:
    """The area of one class against the rest.

    Attributes:
        value: the area.
        influence_N: how far each case moves it; the variance is the sum of squares over patients.
        used_N: cases of folds that hold both classes.
        share_F: of those folds, the share of all pairs that are the fold's.
        separate_F: (positive, negative) pairs that can be formed in each without using a patient twice.
    """

    value: float
    influence_N: FloatArray
    used_N: BoolArray
    share_F: FloatArray
    separate_F: IntArray

    def least(self, rate: float) -> float:
        """Lower bound of an area that was found to be 1.

        Of all areas A_f of the folds under which every separate pair is ranked rightly with a probability of at least
        ``rate``, prod A_f^k_f >= rate, those with the least mean: A_f = min(1, c k_f / share_f).
        """
        ratio_F = self.separate_F / self.share_F

        def excess(log_c: float) -> float:
            return float(self.separate_F @ np.minimum(0.0, log_c + np.log(ratio_F))) - math.log(rate)

        highest = -math.log(ratio_F.min())
        lowest = -math.log(ratio_F.max()) + math.log(rate) / int(self.separate_F.sum())
        c = math.exp(brentq(excess, lowest - 1e-9, highest, xtol=1e-12))
        return float(self.share_F @ np.minimum(1.0, c * ratio_F))


def auc(
    positive_N: BoolArray,
    score_N: FloatArray,
    fold_N: IntArray | None = None,
    patients: Sequence[str] | None = None,
) -> Estimate:
    """Area under the ROC curve: the share of (positive, negative) pairs that the score ranks rightly, ties half.

    Folds are weighted by their pairs. The variance is DeLong's (1988, https://doi.org/10.2307/2531595), summed within
    patients first and corrected for the number of patients of each class (Obuchowski 1997,
    https://doi.org/10.2307/2533958; where patients are in both classes, their covariance is corrected by the root of
    both corrections), and the interval is symmetric on the logit scale. Where the area is 1 that variance is 0; but
    then k pairs of distinct patients were all ranked rightly, and Clopper and Pearson's lower bound for that is
    0.025^(1/k): exact, if wide. Of several folds it is the least mean of areas under which that has a probability of
    0.025. An area of 0 is the mirror image.

    A fold's only patient of a class has no spread; the distance from the pooled area stands in.

    Args:
        positive_N: which cases are positive.
        score_N: higher means more likely positive; finite.
        fold_N: fold whose model scored the case; None means one model.
        patients: patient of each case; None means that each case is a patient.

    Returns:
        The area, on the cases of folds that hold both classes; no interval below 10 patients, or 10 in the rarer class.

    Raises:
        ValueError: if lengths differ or a score is not finite.
    """
    patient_N = patient_codes(patients, len(positive_N))
    area = _area(positive_N, score_N, _ranked_folds(positive_N, score_N, fold_N), patient_N)
    areas = [area] if area else []
    return _area_estimate(areas, len(positive_N), patient_N, _refused(areas, positive_N, patient_N))


def auc_macro(
    class_N: IntArray,
    probability_NK: FloatArray,
    fold_N: IntArray | None = None,
    patients: Sequence[str] | None = None,
) -> Estimate:
    """Mean of the areas of each class against the rest, over the classes that occur.

    As :func:`auc`; the mean's variance follows from the mean influence of each case, which is DeLong's with the
    covariance of the areas. Where every area is 1, the lower bound is the mean of the areas' bounds, each at a K-th of
    the error rate (Bonferroni).

    Args:
        class_N: index of each case's class.
        probability_NK: probability of each class; finite.
        fold_N: fold whose model scored the case; None means one model.
        patients: patient of each case; None means that each case is a patient.

    Returns:
        The mean area, with the number of averaged classes as ``n_classes`` in ``extra``.

    Raises:
        ValueError: if lengths differ or a probability is not finite.
    """
    patient_N = patient_codes(patients, len(class_N))
    areas = []
    for number in range(probability_NK.shape[1]):
        positive_N, score_N = class_N == number, probability_NK[:, number]
        area = _area(positive_N, score_N, _ranked_folds(positive_N, score_N, fold_N), patient_N)
        if area:
            areas.append(area)
    refused = _refused(areas, class_N, patient_N)
    return _area_estimate(areas, len(class_N), patient_N, refused, {"n_classes": len(areas)})


def auc_mean(
    positive_NF: BoolArray,
    score_NF: FloatArray,
    known_NF: BoolArray,
    fold_N: IntArray | None = None,
    patients: Sequence[str] | None = None,
) -> Estimate:
    """Mean of the areas of several yes-or-no questions about the same cases, each over the cases that answer it.

    As :func:`auc_macro`, with the covariance of areas that share cases; ``extra`` holds the number of averaged areas as
    ``n_areas``.

    Args:
        positive_NF: which cases are positive, per question.
        score_NF: higher means more likely positive; finite.
        known_NF: which cases' answers are known.
        fold_N: fold whose model scored the case; None means one model.
        patients: patient of each case; None means that each case is a patient.

    Returns:
        The mean area; no interval below 10 patients, or 10 in the rarer class of any question.
    """
    patient_N = patient_codes(patients, len(positive_NF))
    folds_N = np.zeros(len(positive_NF), dtype=np.intp) if fold_N is None else fold_N
    areas, refusals = [], []
    for positive_N, score_N, known_N in zip(positive_NF.T, score_NF.T, known_NF.T, strict=True):
        known = np.flatnonzero(known_N)
        ranked = [known[rows] for rows in _ranked_folds(positive_N[known], score_N[known], folds_N[known])]
        area = _area(positive_N, score_N, ranked, patient_N)
        if area:
            areas.append(area)
            refusals.append(too_few(positive_N[area.used_N], patient_N[area.used_N]))
    refused = next((why for why in refusals if why), None)
    return _area_estimate(areas, len(positive_NF), patient_N, refused, {"n_areas": len(areas)})


def average_precision(
    positive_N: BoolArray,
    score_N: FloatArray,
    fold_N: IntArray | None = None,
    patients: Sequence[str] | None = None,
) -> Estimate:
    """Mean over the positives of the precision among the cases of its fold that score at least as high.

    With one fold this is scikit-learn's ``average_precision_score``: the sum over thresholds of precision times gain in
    recall, without interpolation. The interval is BCa over patients.

    Args:
        positive_N: which cases are positive.
        score_N: higher means more likely positive; finite.
        fold_N: fold whose model scored the case; None means one model.
        patients: patient of each case; None means that each case is a patient.

    Returns:
        The average, on the cases of folds that hold both classes; no interval below 10 patients, or 10 in the rarer
        class.

    Raises:
        ValueError: if lengths differ or a score is not finite.
    """
    folds = _ranked_folds(positive_N, score_N, fold_N)
    patient_N = patient_codes(patients, len(positive_N))
    if not folds:
        return Estimate(None, "higher", n=len(positive_N), why=NOTHING_TO_RANK)
    ordered = [rows[np.argsort(-score_N[rows], kind="stable")] for rows in folds]
    ends = [_ends_of_ties(score_N[rows]) for rows in ordered]
    bounds = np.cumsum([len(rows) for rows in ordered])[:-1]

    def statistic(weight_RN: FloatArray) -> FloatArray:
        gained_R, positives_R = np.zeros(len(weight_RN)), np.zeros(len(weight_RN))
        for weight_Rn, rows, end in zip(np.split(weight_RN, bounds, axis=1), ordered, ends, strict=True):
            called_RT = np.cumsum(weight_Rn, axis=1)[:, end]
            right_RT = np.cumsum(weight_Rn * positive_N[rows], axis=1)[:, end]
            gained_R += (np.diff(right_RT, axis=1, prepend=0.0) * right_RT / np.maximum(called_RT, 1)).sum(axis=1)
            positives_R += right_RT[:, -1]
        return divide(gained_R, positives_R)

    used = np.concatenate(ordered)
    patient_used = np.unique(patient_N[used], return_inverse=True)[1]
    return bootstrap_estimate(statistic, patient_used, "higher", refused=too_few(positive_N[used], patient_used))


def roc_curve_points(positive_N: BoolArray, score_N: FloatArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """False and true positive rates along the ROC curve, from (0, 0) to (1, 1); both empty for a single class."""
    if positive_N.all() or not positive_N.any():
        return (), ()
    order = np.argsort(-score_N, kind="stable")
    ends = _ends_of_ties(score_N[order])
    right_T, wrong_T = np.cumsum(positive_N[order])[ends], np.cumsum(~positive_N[order])[ends]
    return (0.0, *(wrong_T / wrong_T[-1]).tolist()), (0.0, *(right_T / right_T[-1]).tolist())


def _ends_of_ties(ordered_N: FloatArray) -> npt.NDArray[np.intp]:
    """Last position of each run of equal scores: a threshold lies after it."""
    return np.append(np.flatnonzero(np.diff(ordered_N)), len(ordered_N) - 1)


def _ranked_folds(positive_N: BoolArray, score_N: FloatArray, fold_N: IntArray | None) -> list[npt.NDArray[np.intp]]:
    """Cases of each fold that holds both classes."""
    if fold_N is None:
        fold_N = np.zeros(len(positive_N), dtype=np.intp)
    if not len(positive_N) == len(score_N) == len(fold_N):
        raise ValueError(f"lengths differ: {len(positive_N)} labels, {len(score_N)} scores, {len(fold_N)} folds")
    if not np.isfinite(score_N).all():
        raise ValueError("scores must be finite to be ranked")
    folds = [np.flatnonzero(fold_N == fold) for fold in np.unique(fold_N)]
    return [rows for rows in folds if 0 < np.count_nonzero(positive_N[rows]) < len(rows)]


def _area(
    positive_N: BoolArray, score_N: FloatArray, folds: Sequence[npt.NDArray[np.intp]], patient_N: IntArray
) -> _Area | None:
    if not folds:
        return None
    groups = [(rows[positive_N[rows]], rows[~positive_N[rows]]) for rows in folds]
    pairs = np.array([len(positives) * len(negatives) for positives, negatives in groups])
    # Placement: the share of the other class that the case is ranked rightly against; its mean over either class is
    # the fold's area. From ranks, as Sun and Xu 2014, https://doi.org/10.1109/LSP.2014.2337313.
    rank_N, placement_N = np.zeros(len(positive_N)), np.zeros(len(positive_N))
    for rows, (positives, negatives) in zip(folds, groups, strict=True):
        rank_N[rows] = rankdata(score_N[rows])
        placement_N[positives] = (rank_N[positives] - rankdata(score_N[positives])) / len(negatives)
        placement_N[negatives] = 1 - (rank_N[negatives] - rankdata(score_N[negatives])) / len(positives)
    value = float(np.average([placement_N[positives].mean() for positives, _ in groups], weights=pairs))
    influence_N = np.zeros(len(positive_N))
    for share, sides in zip(pairs / pairs.sum(), groups, strict=True):
        for group in sides:
            count = len(np.unique(patient_N[group]))
            centre = placement_N[group].mean() if count > 1 else value
            # I / (I - 1) for I patients, not for the cases: those of a patient need not differ
            few = np.sqrt(count / max(count - 1, 1))
            influence_N[group] = share * few * (placement_N[group] - centre) / len(group)
    used_N = np.isin(np.arange(len(positive_N)), np.concatenate(folds))
    separate = [_separate_pairs(patient_N[positives], patient_N[negatives]) for positives, negatives in groups]
    return _Area(value, influence_N, used_N, pairs / pairs.sum(), np.array(separate))


def _separate_pairs(positive_patients: IntArray, negative_patients: IntArray) -> int:
    """Most pairs without a common patient; a single patient who is in both is one pair."""
    positives, negatives = np.unique(positive_patients), np.unique(negative_patients)
    return max(1, min(len(positives), len(negatives), len(np.union1d(positives, negatives)) // 2))


def _area_estimate(
    areas: Sequence[_Area], n: int, patient_N: IntArray, refused: str | None, extra: dict[str, Any] | None = None
) -> Estimate:
    """The mean of areas over ``n`` cases with its interval, or why there shall be none."""
    if not areas:
        return Estimate(None, "higher", n=n, why=NOTHING_TO_RANK, extra=extra or {})
    value = float(np.mean([area.value for area in areas]))
    interval = Interval(why=refused) if refused else _area_interval(value, areas, patient_N)
    used = int(np.count_nonzero(_used(areas)))
    return Estimate(value, "higher", None, used, interval.ci95, interval.method, interval.why, extra or {})


def _used(areas: Sequence[_Area]) -> BoolArray:
    """Cases that any of the areas, at least one, rests on."""
    return np.asarray(np.any([area.used_N for area in areas], axis=0))


def _refused(areas: Sequence[_Area], class_N: npt.NDArray[Any], patient_N: IntArray) -> str | None:
    return too_few(class_N[_used(areas)], patient_N[_used(areas)]) if areas else None


def _area_interval(value: float, areas: Sequence[_Area], patient_N: IntArray) -> Interval:
    if value in (0.0, 1.0):
        rate = 0.025 / len(areas)
        slack = float(np.mean([1 - area.least(rate) for area in areas]))
        return Interval((1 - slack, 1.0) if value else (0.0, slack), "clopper-pearson-pairs")
    influence_N = np.mean([area.influence_N for area in areas], axis=0)
    return logit_interval(value, influence_N, patient_N, "delong-logit")
