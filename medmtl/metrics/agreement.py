"""How predicted and observed values agree: the calibration slope, and the bias with its limits of agreement.

Both are about errors that a mean absolute error hides: answers drawn towards the mean, and answers that are too high or
too low for everybody. Every interval is BCa over patients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medmtl.metrics.estimate import NO_CASE, Estimate
from medmtl.metrics.figures import BlandAltmanFigure
from medmtl.metrics.intervals import Z95, FloatArray, Statistic, bootstrap_estimate, divide, patient_codes

ONE_CASE = "a single case has no spread"


def calibration_slope(observed_N: FloatArray, predicted_N: FloatArray, patients: Sequence[str]) -> Estimate:
    """Slope of the least-squares line of the observed on the predicted values, cov(p, o) / var(p).

    1 is ideal. Below 1 the predictions are too far apart, above 1 they are drawn too much towards their mean, and near
    0 they say nothing of the observed values (Cox 1958, https://doi.org/10.1093/biomet/45.3-4.562).

    Args:
        observed_N: observed values.
        predicted_N: predicted values, in the same unit.
        patients: patient of each case.

    Returns:
        The slope; no value where the predictions do not vary.
    """
    patient_N = patient_codes(patients, len(observed_N))
    if len(predicted_N) == 0:
        return Estimate(None, "one", why=NO_CASE)
    if np.ptp(predicted_N) == 0:
        return Estimate(None, "one", n=len(predicted_N), why="the predicted values do not vary")
    # centred first, so that the products below keep their digits
    x_N, y_N = predicted_N - predicted_N.mean(), observed_N - observed_N.mean()
    rounding = 1e-12 * float((x_N**2).sum())

    def statistic(weight_RN: FloatArray) -> FloatArray:
        total_R = weight_RN.sum(axis=1)
        covariance_R = weight_RN @ (x_N * y_N) - (weight_RN @ x_N) * (weight_RN @ y_N) / total_R
        variance_R = weight_RN @ x_N**2 - (weight_RN @ x_N) ** 2 / total_R
        variance_R[variance_R < rounding] = 0.0
        return divide(covariance_R, variance_R)

    return bootstrap_estimate(statistic, patient_N, "one")


def bland_altman(
    observed_N: FloatArray, predicted_N: FloatArray, patients: Sequence[str], unit: str | None = None
) -> dict[str, Estimate]:
    """Mean of predicted - observed, and the limits between which 95 % of such differences are expected to lie.

    ::

        bias = mean(d),   limits = bias -+ 1.96 SD(d),   d = predicted - observed

    Bland and Altman 1986, https://doi.org/10.1016/S0140-6736(86)90837-8. The limits assume differences that are roughly
    normal and that do not grow with the value; the figure shows whether they do. Where a patient has several cases, the
    limits are those of a case, and the intervals take patients as wholes.

    Args:
        observed_N: observed values.
        predicted_N: predicted values.
        patients: patient of each case.
        unit: of both.

    Returns:
        ``bias``, ``loa_lower`` and ``loa_upper``, in ``unit``; the limits have no value for a single case.
    """
    names = {"bias": 0.0, "loa_lower": -Z95, "loa_upper": Z95}
    patient_N = patient_codes(patients, len(observed_N))
    difference_N = predicted_N - observed_N
    if len(difference_N) == 0:
        return {name: Estimate(None, "zero", unit, why=NO_CASE) for name in names}
    found = {}
    for name, deviations in names.items():
        if deviations and len(difference_N) == 1:
            found[name] = Estimate(None, "zero", unit, n=1, why=ONE_CASE)
        else:
            found[name] = bootstrap_estimate(_shifted_mean(difference_N, deviations), patient_N, "zero", unit)
    return found


def bland_altman_figure(
    title: str, observed: Sequence[float], predicted: Sequence[float], unit: str | None = None
) -> BlandAltmanFigure:
    """What :func:`bland_altman` says, as a figure; at least one case."""
    observed_N, predicted_N = np.array(observed, dtype=np.float64), np.array(predicted, dtype=np.float64)
    difference_N = predicted_N - observed_N
    bias, half = float(difference_N.mean()), Z95 * float(difference_N.std(ddof=1)) if len(difference_N) > 1 else 0.0
    return BlandAltmanFigure(
        title,
        tuple(((observed_N + predicted_N) / 2).tolist()),
        tuple(difference_N.tolist()),
        (bias - half, bias, bias + half) if len(difference_N) > 1 else (bias,),
        unit,
    )


def _shifted_mean(value_N: FloatArray, deviations: float) -> Statistic:
    """Mean plus so many sample standard deviations."""
    centre = value_N.mean()
    centred_N = value_N - centre

    def statistic(weight_RN: FloatArray) -> FloatArray:
        total_R = weight_RN.sum(axis=1)
        mean_R = (weight_RN @ centred_N) / total_R
        if not deviations:
            return np.asarray(centre + mean_R)
        square_R = np.maximum(weight_RN @ centred_N**2 - total_R * mean_R**2, 0.0)
        return np.asarray(centre + mean_R + deviations * np.sqrt(divide(square_R, total_R - 1)))

    return statistic
