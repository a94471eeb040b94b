"""Boxes against reference boxes: FROC and average precision.

A box is matched within its case, the highest score first: it takes the reference box that it overlaps most among those
that are still free, if their intersection over union reaches the threshold; else it is a false positive. One reference
counts once, so a second box on it is false. A case without lesions has false positives only. Scores of different
models need not mean the same, so boxes are ranked within a fold, and folds are averaged by their number of lesions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medmtl.metrics.box_overlap import box_iou
from medmtl.metrics.estimate import NO_CASE, Estimate
from medmtl.metrics.intervals import BoolArray, FloatArray, Statistic, bootstrap_estimate, divide, patient_codes

FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
FROC_IOU = 0.1
AP_IOUS = tuple(round(0.1 + 0.05 * step, 2) for step in range(9))
RECALLS = np.linspace(0, 1, 101)
NO_LESION = "no reference lesion"


@dataclass(frozen=True)
class DetectedCase:
    """The boxes of one case.

    Attributes:
        box_N6: predicted, corners in any one unit.
        score_N: of each.
        truth_M6: reference boxes; there may be none.
        patient: whose case it is.
        fold: of the model.
    """

    box_N6: FloatArray
    score_N: FloatArray
    truth_M6: FloatArray
    patient: str
    fold: int = 0


@dataclass(frozen=True)
class _Pool:
    """The curve of a fold in steps: one for each score at which a lesion is found, the highest first.

    Attributes:
        own_N: indices of the fold's cases.
        true_NK: lesions of each case that are found at such a score or a higher one.
        before_NK: false positives of each case at a higher one.
        after_NK: false positives of each case at such a score or a higher one.
        false_N: all false positives of each case.
        lesions_N: lesions of each case.
    """

    own_N: npt.NDArray[np.intp]
    true_NK: FloatArray
    before_NK: FloatArray
    after_NK: FloatArray
    false_N: FloatArray
    lesions_N: FloatArray


@dataclass(frozen=True)
class _Steps:
    """The same of one resample, summed over its cases; ``cases`` and ``lesions`` are their numbers."""

    true_K: FloatArray
    before_K: FloatArray
    after_K: FloatArray
    false: float
    lesions: float
    cases: float


Curve = Callable[[_Steps], FloatArray]


def hits(box_N6: FloatArray, score_N: FloatArray, truth_M6: FloatArray, iou: float) -> BoolArray:
    """Which boxes of a case are matched, (N,); see the module's docstring."""
    overlap_NM = box_iou(box_N6, truth_M6)
    hit_N = np.zeros(len(box_N6), bool)
    free_M = np.ones(len(truth_M6), bool)
    for index in np.argsort(-score_N, kind="stable"):
        candidates = np.where(free_M, overlap_NM[index], -1)
        if candidates.size and candidates.max() >= iou:
            free_M[candidates.argmax()] = False
            hit_N[index] = True
    return hit_N


def froc(cases: Sequence[DetectedCase]) -> Estimate:
    """Mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per case, at an intersection over union of 0.1.

    The score of LUNA16 (Setio et al. 2017, https://doi.org/10.1016/j.media.2017.06.015): linear between the curve's
    points, from (0, 0) on; beyond its last point the last sensitivity holds. LUNA16 matches by distance; here boxes are
    matched. Interval by a BCa bootstrap over patients; ``sensitivity`` beside it holds the seven points.
    """
    if not any(len(case.truth_M6) for case in cases):
        return _undefined(cases)
    points = _point(cases, FROC_IOU, _sensitivity_at(FROC_RATES))
    at = {f"{rate:g}": round(float(value), 4) for rate, value in zip(FROC_RATES, points, strict=True)}
    statistic = _statistic(cases, FROC_IOU, _sensitivity_at(FROC_RATES))
    return _estimate(cases, lambda weight_RN: statistic(weight_RN).mean(axis=1), {"sensitivity": at, **_counts(cases)})


def average_precision(cases: Sequence[DetectedCase], ious: Sequence[float]) -> Estimate:
    """Mean over thresholds of the area under precision against recall.

    COCO's (https://cocodataset.org/#detection-eval): at each of 101 recalls from 0 to 1 the highest precision at that
    recall or a higher one, 0 beyond the last recall reached. Interval by a BCa bootstrap over patients.
    """
    if not any(len(case.truth_M6) for case in cases):
        return _undefined(cases)
    statistics = [_statistic(cases, iou, _precision) for iou in ious]
    return _estimate(
        cases, lambda weight_RN: np.mean([one(weight_RN)[:, 0] for one in statistics], axis=0), _counts(cases)
    )


def froc_curve(cases: Sequence[DetectedCase]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Rates of false positives per case and the sensitivity at each, for drawing; empty without a reference lesion."""
    if not any(len(case.truth_M6) for case in cases):
        return (), ()
    rates = tuple(float(rate) for rate in np.geomspace(FROC_RATES[0], FROC_RATES[-1], 61))
    return rates, tuple(_point(cases, FROC_IOU, _sensitivity_at(rates)).tolist())


def _undefined(cases: Sequence[DetectedCase]) -> Estimate:
    return Estimate(None, "higher", n=len(cases), why=NO_LESION if cases else NO_CASE)


def _counts(cases: Sequence[DetectedCase]) -> dict[str, int]:
    return {"n_lesions": sum(len(case.truth_M6) for case in cases)}


def _estimate(cases: Sequence[DetectedCase], statistic: Statistic, extra: Mapping[str, Any]) -> Estimate:
    patient_N = patient_codes([case.patient for case in cases], len(cases))
    return bootstrap_estimate(statistic, patient_N, "higher", extra=extra)


def _point(cases: Sequence[DetectedCase], iou: float, curve: Curve) -> FloatArray:
    return np.asarray(_statistic(cases, iou, curve)(np.ones((1, len(cases))))[0])


def _statistic(cases: Sequence[DetectedCase], iou: float, curve: Curve) -> Callable[[FloatArray], FloatArray]:
    """Weights (R, N) -> the mean of a curve's numbers over folds, weighted by their lesions, (R, numbers).

    NaN where no case with a lesion is drawn.
    """
    pools = [_pool(cases, fold, iou) for fold in sorted({case.fold for case in cases})]

    def answer(weight_RN: FloatArray) -> FloatArray:
        found: list[FloatArray] = []
        lesions_FR = np.stack([weight_RN[:, pool.own_N] @ pool.lesions_N for pool in pools])
        for pool, lesions_R in zip(pools, lesions_FR, strict=True):
            own_RN = weight_RN[:, pool.own_N]
            true_RK, before_RK, after_RK = (own_RN @ part for part in (pool.true_NK, pool.before_NK, pool.after_NK))
            false_R, cases_R = own_RN @ pool.false_N, own_RN.sum(axis=1)
            drawn = zip(true_RK, before_RK, after_RK, false_R, lesions_R, cases_R, strict=True)
            rows = [
                lesions * curve(_Steps(true_K, before_K, after_K, false, lesions, count)) if lesions else 0.0
                for true_K, before_K, after_K, false, lesions, count in drawn
            ]
            width = max(np.size(row) for row in rows)
            found.append(np.stack([np.broadcast_to(row, width) for row in rows]))
        return divide(np.sum(np.broadcast_arrays(*found), axis=0), lesions_FR.sum(axis=0)[:, None])

    return answer


def _pool(cases: Sequence[DetectedCase], fold: int, iou: float) -> _Pool:
    own = [index for index, case in enumerate(cases) if case.fold == fold]
    hit = [hits(cases[index].box_N6, cases[index].score_N, cases[index].truth_M6, iou) for index in own]
    true = [cases[index].score_N[one] for index, one in zip(own, hit, strict=True)]
    false = [np.sort(cases[index].score_N[~one]) for index, one in zip(own, hit, strict=True)]
    # boxes of one score are in or out together
    score_K = np.unique(np.concatenate(true))[::-1]
    return _Pool(
        np.array(own, np.intp),
        np.stack([(one[:, None] >= score_K).sum(axis=0) for one in true]).astype(np.float64),
        np.stack([len(one) - np.searchsorted(one, score_K, side="right") for one in false]).astype(np.float64),
        np.stack([len(one) - np.searchsorted(one, score_K, side="left") for one in false]).astype(np.float64),
        np.array([len(one) for one in false], np.float64),
        np.array([len(cases[index].truth_M6) for index in own], np.float64),
    )


def _sensitivity_at(rates: Sequence[float]) -> Curve:
    def curve(steps: _Steps) -> FloatArray:
        rate_P = np.empty(2 * len(steps.true_K) + 2)
        found_P = np.empty_like(rate_P)
        # (0, 0), then before and after each step, and all boxes at last
        rate_P[0], rate_P[1:-1:2], rate_P[2:-1:2], rate_P[-1] = 0, steps.before_K, steps.after_K, steps.false
        found_P[0::2] = np.append(0, steps.true_K)
        found_P[1::2] = found_P[0::2]
        return np.interp(rates, rate_P / steps.cases, found_P / steps.lesions)

    return curve


def _precision(steps: _Steps) -> FloatArray:
    """At other scores than those of the steps recall is the same and precision lower."""
    precision_K = np.nan_to_num(divide(steps.true_K, steps.true_K + steps.after_K))
    highest_K = np.maximum.accumulate(precision_K[::-1])[::-1]
    # a recall that is reached but for rounding is reached
    place = np.searchsorted(steps.true_K / steps.lesions + 1e-12, RECALLS, side="left")
    return np.array([np.append(highest_K, 0.0)[place].mean()])
