"""What is fitted on some predictions and applied to others: a decision threshold and calibrated probabilities.

Nothing here may be fitted on what it is scored on; who fits on what is decided by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from medmtl.metrics.intervals import BoolArray, FloatArray, IntArray, patient_codes, proportion_interval

SMALLEST_PROBABILITY = 1e-6  # a probability of 0 has no logarithm
CASES_PER_BIN = 10
MOST_BINS = 10
FEWEST_IN_BIN = 5  # where ties make groups unequal
FEWEST_BINS = 3  # two points are no curve


def youden_threshold(positive_N: BoolArray, score_N: FloatArray) -> float | None:
    """The threshold with the largest sensitivity + specificity - 1, calling scores at or above it positive.

    Youden 1950, https://doi.org/10.1002/1097-0142(1950)3:1%3C32::AID-CNCR2820030106%3E3.0.CO;2-3. It lies half-way
    between two neighbouring scores; of equals the one nearest to 0.5.

    Args:
        positive_N: which cases are positive.
        score_N: probability of the positive class.

    Returns:
        None without two classes or without two scores.
    """
    levels = np.unique(score_N)
    if len(levels) < 2 or positive_N.all() or not positive_N.any():
        return None
    threshold_T = (levels[:-1] + levels[1:]) / 2
    found_T = np.searchsorted(np.sort(score_N[positive_N]), threshold_T) / np.count_nonzero(positive_N)
    left_T = np.searchsorted(np.sort(score_N[~positive_N]), threshold_T) / np.count_nonzero(~positive_N)
    gain_T = left_T - found_T  # sensitivity - 1 + specificity
    best_T = threshold_T[gain_T >= gain_T.max() - 1e-12]
    return float(best_T[np.abs(best_T - 0.5).argmin()])


@dataclass(frozen=True)
class Calibrator:
    """softmax(slope * log p + offset): for two classes Platt's logistic curve on the logit of the probability.

    Attributes:
        slope: below 1 for probabilities that are too extreme; never below 0, which would turn the ranking round.
        offset_K: per class, 0 for the first; corrects a class that is called too seldom or too often.
    """

    slope: float
    offset_K: tuple[float, ...]

    def apply(self, probability_NK: FloatArray) -> FloatArray:
        """Calibrated probabilities (N, K)."""
        return np.asarray(softmax(self.slope * _log(probability_NK) + np.array(self.offset_K), axis=1))


def fit_calibrator(class_N: IntArray, probability_NK: FloatArray) -> Calibrator | None:
    """Maximum likelihood with Platt's smoothed targets, which keep few or separable cases from infinite slopes.

    Platt 1999, "Probabilistic outputs for support vector machines"; on the logit as in Cox 1958,
    https://doi.org/10.1093/biomet/45.3-4.562; for more than two classes with one slope and an offset per class, as
    Alexandari et al. 2020, https://arxiv.org/abs/1901.06852. The target of a case of class k is (n_k + 1) / (n_k + K)
    for its class and 1 / (n_k + K) for each other one, which are Platt's for K = 2.

    Args:
        class_N: index of each case's class.
        probability_NK: probability of each class.

    Returns:
        None where a class has no case.
    """
    n_classes = probability_NK.shape[1]
    count_K = np.bincount(class_N, minlength=n_classes)
    if not count_K.all():
        return None
    count_N1 = count_K[class_N][:, None]
    target_NK = (np.eye(n_classes)[class_N] * count_N1 + 1) / (count_N1 + n_classes)
    log_NK = _log(probability_NK)

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        logit_NK = theta[0] * log_NK + np.append(0.0, theta[1:])
        residual_NK = softmax(logit_NK, axis=1) - target_NK
        gradient = np.append((residual_NK * log_NK).sum(), residual_NK[:, 1:].sum(axis=0))
        value = -float((target_NK * log_softmax(logit_NK, axis=1)).sum())
        return value / len(class_N), gradient / len(class_N)

    bounds = [(0.0, None), *[(None, None)] * (n_classes - 1)]
    start = np.append(1.0, np.zeros(n_classes - 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9})
    return Calibrator(float(found.x[0]), (0.0, *map(float, found.x[1:])))


def _log(probability_NK: FloatArray) -> FloatArray:
    return np.asarray(np.log(np.maximum(probability_NK, SMALLEST_PROBABILITY)))


@dataclass(frozen=True)
class CalibrationPoint:
    """Cases of neighbouring probabilities.

    Attributes:
        predicted: their mean probability.
        observed: share of them that are positive.
        ci95: Wilson interval of that share, over patients.
    """

    predicted: float
    observed: float
    ci95: tuple[float, float]


def calibration_curve(
    positive_N: BoolArray, probability_N: FloatArray, patients: Sequence[str] | None = None
) -> tuple[CalibrationPoint, ...]:
    """Observed share against mean probability, in at most 10 groups of about equal size, of some 10 cases or more.

    Cases of one probability are never parted, as the order of the table would then decide who counts where. So groups
    may be unequal, of 5 cases at least, and fewer, down to a single one.

    Args:
        positive_N: which cases are positive.
        probability_N: probability of being so.
        patients: patient of each case; None means that each case is a patient.

    Returns:
        Points by rising probability; none below 30 cases.
    """
    n_bins = min(MOST_BINS, len(positive_N) // CASES_PER_BIN)
    if n_bins < FEWEST_BINS:
        return ()
    patient_N = patient_codes(patients, len(positive_N))
    points = []
    for rows in _neighbours(probability_N, n_bins):
        share = float(positive_N[rows].mean())
        interval = proportion_interval(share, patient_N[rows])
        points.append(CalibrationPoint(float(probability_N[rows].mean()), share, interval))
    return tuple(points)


def _neighbours(probability_N: FloatArray, n_bins: int) -> list[IntArray]:
    """Rows by rising probability in up to ``n_bins`` groups of 5 or more, as near to equal as ties let them be."""
    order = np.argsort(probability_N, kind="stable")
    ends = np.flatnonzero(np.diff(probability_N[order])) + 1
    bounds = [0]
    for part in np.array_split(np.arange(len(order)), n_bins)[1:]:
        end = int(ends[np.abs(ends - part[0]).argmin()]) if len(ends) else 0
        if min(end - bounds[-1], len(order) - end) >= FEWEST_IN_BIN:
            bounds.append(end)
    return np.split(order, bounds[1:])
