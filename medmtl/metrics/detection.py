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
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.intervals import FloatArray, Statistic, bootstrap_estimate, divide, patient_codes

FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
FROC_IOU = 0.1
AP_IOUS = tuple(round(0.1 + 0.05 * step, 2) for step in range(9))
RECALLS = np.linspace(0, 1, 101)
NO_LESION = "no reference lesion"

BoolArray = npt.NDArray[np.bool_]
Curve = Callable[[FloatArray, FloatArray, float, float], float]


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
    """All boxes of a fold, the highest score first.

    Attributes:
        hit_D: whether a box is matched.
        case_D: index of its case among all cases.
        last_P: the last box of each score: those of one score are in or out together.
    """

    hit_D: BoolArray
    case_D: npt.NDArray[np.intp]
    last_P: npt.NDArray[np.intp]


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
    extra = {
        "sensitivity": {
            f"{rate:g}": round(_point(cases, FROC_IOU, _sensitivity_at((rate,))), 4) for rate in FROC_RATES
        },
        **_counts(cases),
    }
    return _estimate(cases, _statistic(cases, FROC_IOU, _sensitivity_at(FROC_RATES)), extra)


def average_precision(cases: Sequence[DetectedCase], ious: Sequence[float]) -> Estimate:
    """Mean over thresholds of the area under precision against recall.

    COCO's (https://cocodataset.org/#detection-eval): at each of 101 recalls from 0 to 1 the highest precision at that
    recall or a higher one, 0 beyond the last recall reached. Interval by a BCa bootstrap over patients.
    """
    if not any(len(case.truth_M6) for case in cases):
        return _undefined(cases)
    statistics = [_statistic(cases, iou, _precision) for iou in ious]
    return _estimate(cases, lambda weight_RN: np.mean([one(weight_RN) for one in statistics], axis=0), _counts(cases))


def froc_curve(cases: Sequence[DetectedCase]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Rates of false positives per case and the sensitivity at each, for drawing; empty without a reference lesion."""
    if not any(len(case.truth_M6) for case in cases):
        return (), ()
    rates = tuple(float(rate) for rate in np.geomspace(FROC_RATES[0], FROC_RATES[-1], 61))
    return rates, tuple(_point(cases, FROC_IOU, _sensitivity_at((rate,))) for rate in rates)


def _undefined(cases: Sequence[DetectedCase]) -> Estimate:
    return Estimate(None, "higher", n=len(cases), why=NO_LESION if cases else "no labelled case")


def _counts(cases: Sequence[DetectedCase]) -> dict[str, int]:
    return {"n_lesions": sum(len(case.truth_M6) for case in cases)}


def _estimate(cases: Sequence[DetectedCase], statistic: Statistic, extra: Mapping[str, Any]) -> Estimate:
    patient_N = patient_codes([case.patient for case in cases], len(cases))
    return bootstrap_estimate(statistic, patient_N, "higher", extra=extra)


def _point(cases: Sequence[DetectedCase], iou: float, curve: Curve) -> float:
    return float(_statistic(cases, iou, curve)(np.ones((1, len(cases))))[0])


def _statistic(cases: Sequence[DetectedCase], iou: float, curve: Curve) -> Statistic:
    """The mean of a curve's number over folds, weighted by their lesions; NaN where no case with a lesion is drawn."""
    lesions_N = np.array([len(case.truth_M6) for case in cases], np.float64)
    fold_N = np.array([case.fold for case in cases])
    pools = {fold: _pool(cases, fold, iou) for fold in sorted(set(fold_N.tolist()))}

    def answer(weight_RN: FloatArray) -> FloatArray:
        total_R, sum_R = np.zeros(len(weight_RN)), np.zeros(len(weight_RN))
        for fold, pool in pools.items():
            own_N = fold_N == fold
            count_R = weight_RN @ (lesions_N * own_N)
            cases_R = weight_RN @ own_N.astype(np.float64)
            for row in np.flatnonzero(count_R):
                weight_D = weight_RN[row, pool.case_D]
                true_P = np.cumsum(weight_D * pool.hit_D)[pool.last_P]
                false_P = np.cumsum(weight_D * ~pool.hit_D)[pool.last_P]
                sum_R[row] += count_R[row] * curve(true_P, false_P, count_R[row], cases_R[row])
            total_R += count_R
        return divide(sum_R, total_R)

    return answer


def _pool(cases: Sequence[DetectedCase], fold: int, iou: float) -> _Pool:
    own = [(index, case) for index, case in enumerate(cases) if case.fold == fold]
    hit_D = np.concatenate([hits(case.box_N6, case.score_N, case.truth_M6, iou) for _, case in own])
    score_D = np.concatenate([case.score_N for _, case in own])
    case_D = np.concatenate([np.full(len(case.score_N), index, np.intp) for index, case in own])
    order = np.argsort(-score_D, kind="stable")
    last = np.append(np.diff(score_D[order]) != 0, True)[: len(order)]
    return _Pool(hit_D[order], case_D[order], np.flatnonzero(last))


def _sensitivity_at(rates: Sequence[float]) -> Curve:
    def curve(true_P: FloatArray, false_P: FloatArray, lesions: float, cases: float) -> float:
        rate_P, sensitivity_P = np.append(0, false_P / cases), np.append(0, true_P / lesions)
        return float(np.mean(np.interp(rates, rate_P, sensitivity_P)))

    return curve


def _precision(true_P: FloatArray, false_P: FloatArray, lesions: float, cases: float) -> float:
    if not len(true_P):
        return 0.0
    precision_P = divide(true_P, true_P + false_P)
    precision_P = np.maximum.accumulate(np.nan_to_num(precision_P)[::-1])[::-1]
    # a recall that is reached but for rounding is reached
    place = np.searchsorted(true_P / lesions + 1e-12, RECALLS, side="left")
    return float(np.append(precision_P, 0.0)[place].mean())
