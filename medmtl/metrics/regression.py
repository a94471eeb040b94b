"""How close predicted values are to observed ones; every interval is BCa over patients.

All take the observed and the predicted value of each case and the patient of each case; errors also the values' unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medmtl.metrics.estimate import NO_CASE, Estimate
from medmtl.metrics.intervals import FloatArray, Statistic, bootstrap_estimate, divide, patient_codes, weighted_mean


def mae(observed_N: FloatArray, predicted_N: FloatArray, patients: Sequence[str], unit: str | None = None) -> Estimate:
    """Mean absolute error, in ``unit``."""
    patient_N = patient_codes(patients, len(observed_N))
    return bootstrap_estimate(weighted_mean(np.abs(predicted_N - observed_N)), patient_N, "lower", unit)


def rmse(observed_N: FloatArray, predicted_N: FloatArray, patients: Sequence[str], unit: str | None = None) -> Estimate:
    """Root mean squared error, in ``unit``."""
    patient_N = patient_codes(patients, len(observed_N))
    mean_square = weighted_mean((predicted_N - observed_N) ** 2)
    return bootstrap_estimate(lambda weight_RN: np.sqrt(mean_square(weight_RN)), patient_N, "lower", unit)


def r2(observed_N: FloatArray, predicted_N: FloatArray, patients: Sequence[str]) -> Estimate:
    """Coefficient of determination, 1 - SS_residual / SS_total; no value where the observed values do not vary."""
    patient_N = patient_codes(patients, len(observed_N))
    if not _varies(observed_N):
        return Estimate(
            None, "higher", n=len(observed_N), why=_unless_none(observed_N, "the observed values do not vary")
        )
    squared_error_N = (predicted_N - observed_N) ** 2
    # Centred first, so that the difference below keeps its digits.
    centred_N = observed_N - observed_N.mean()
    rounding = 1e-12 * float((centred_N**2).sum())

    def statistic(weight_RN: FloatArray) -> FloatArray:
        total_R = weight_RN @ centred_N**2 - (weight_RN @ centred_N) ** 2 / weight_RN.sum(axis=1)
        total_R[total_R < rounding] = 0.0
        return 1 - divide(weight_RN @ squared_error_N, total_R)

    return bootstrap_estimate(statistic, patient_N, "higher")


def spearman(observed_N: FloatArray, predicted_N: FloatArray, patients: Sequence[str]) -> Estimate:
    """Spearman's rank correlation, ties at their mean rank; no value where either side does not vary."""
    patient_N = patient_codes(patients, len(observed_N))
    if not (_varies(observed_N) and _varies(predicted_N)):
        why = _unless_none(observed_N, "the observed or the predicted values do not vary")
        return Estimate(None, "higher", n=len(observed_N), why=why)
    ranks = (_centred_ranks(observed_N), _centred_ranks(predicted_N))

    def statistic(weight_RN: FloatArray) -> FloatArray:
        x_RN, y_RN = (rank(weight_RN) for rank in ranks)
        covariance_R = (weight_RN * x_RN * y_RN).sum(axis=1)
        spread_R = np.sqrt((weight_RN * x_RN**2).sum(axis=1) * (weight_RN * y_RN**2).sum(axis=1))
        return divide(covariance_R, spread_R)

    return bootstrap_estimate(statistic, patient_N, "higher")


def skill(
    observed_N: FloatArray,
    predicted_N: FloatArray,
    reference_prediction: float | FloatArray,
    patients: Sequence[str],
) -> Estimate:
    """1 - sum |error| / sum |error of ``reference_prediction``|, the median of the training fold.

    Where several folds predicted, each case's reference is the median of its own fold, (N,). 1 is perfect, 0 no better
    than the constant, below 0 worse. No value where the constant is never wrong.
    """
    patient_N = patient_codes(patients, len(observed_N))
    error_N, reference_error_N = np.abs(predicted_N - observed_N), np.abs(reference_prediction - observed_N)
    if not reference_error_N.any():
        return Estimate(
            None, "higher", n=len(observed_N), why=_unless_none(observed_N, "the training median is never wrong")
        )

    def statistic(weight_RN: FloatArray) -> FloatArray:
        return 1 - divide(weight_RN @ error_N, weight_RN @ reference_error_N)

    return bootstrap_estimate(statistic, patient_N, "higher")


def _unless_none(observed_N: FloatArray, why: str) -> str:
    """The reason where there are cases."""
    return why if len(observed_N) else NO_CASE


def _varies(value_N: FloatArray) -> bool:
    return len(value_N) > 0 and bool(np.ptp(value_N) > 0)


def _centred_ranks(value_N: FloatArray) -> Statistic:
    """Weights to each case's mean rank in the resample less the mean of all ranks, (R, N)."""
    _, level_N = np.unique(value_N, return_inverse=True)
    order = np.argsort(level_N, kind="stable")
    starts = np.flatnonzero(np.diff(level_N[order], prepend=-1))

    def ranks(weight_RN: FloatArray) -> FloatArray:
        held_RL = np.add.reduceat(weight_RN[:, order], starts, axis=1)
        rank_RL = np.cumsum(held_RL, axis=1) - held_RL / 2
        return np.asarray((rank_RL - weight_RN.sum(axis=1, keepdims=True) / 2)[:, level_N])

    return ranks
