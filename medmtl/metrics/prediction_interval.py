"""How good predicted 95 % intervals of values are: how often they hold the truth, and how wide they are for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medmtl.metrics.estimate import NO_CASE, Estimate
from medmtl.metrics.intervals import (
    FloatArray,
    bootstrap_estimate,
    patient_codes,
    proportion_estimate,
    weighted_mean,
)

MISS_RATE = 0.05


def coverage(observed_N: FloatArray, lower_N: FloatArray, upper_N: FloatArray, patients: Sequence[str]) -> Estimate:
    """Share of the cases whose value lies in its predicted interval, bounds included; it should be near 0.95.

    The Wilson interval is over patients; see :func:`medmtl.metrics.intervals.proportion_estimate`.

    Args:
        observed_N: observed values.
        lower_N: lower bound of each case's interval.
        upper_N: upper bound.
        patients: patient of each case.

    Returns:
        The share; no interval below 10 patients.
    """
    patient_N = patient_codes(patients, len(observed_N))
    inside_N = (lower_N <= observed_N) & (observed_N <= upper_N)
    return proportion_estimate(inside_N, patient_N, "nominal", NO_CASE)


def interval_score(
    observed_N: FloatArray,
    lower_N: FloatArray,
    upper_N: FloatArray,
    patients: Sequence[str],
    unit: str | None = None,
) -> Estimate:
    """Mean width of the predicted 95 % intervals, plus 40 times how far the missed values lie outside.

    ::

        (u - l) + (2 / a) max(l - y, 0) + (2 / a) max(y - u, 0),   a = 0.05

    Winkler's score, which is least for the true quantiles (Gneiting and Raftery 2007, section 6.2,
    https://doi.org/10.1198/016214506000001437): neither wide intervals that hold everything nor narrow ones that miss
    are good. Unlike a likelihood it is in the unit of the values, and is the same whatever scale they were learned on.

    Args:
        observed_N: observed values.
        lower_N: lower bound of each case's interval.
        upper_N: upper bound.
        patients: patient of each case.
        unit: of the values.

    Returns:
        The mean with its BCa interval over patients.
    """
    patient_N = patient_codes(patients, len(observed_N))
    outside_N = np.maximum(lower_N - observed_N, 0) + np.maximum(observed_N - upper_N, 0)
    score_N = upper_N - lower_N + 2 / MISS_RATE * outside_N
    return bootstrap_estimate(weighted_mean(score_N), patient_N, "lower", unit)
