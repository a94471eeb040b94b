"""Confidence intervals, and estimates that carry one.

Cases of one patient are not independent, so whole patients are resampled. A statistic is a function of *weights*: row r
of ``weight_RN`` says how often resample r holds each of the N cases, and the statistic answers all R resamples at once,
with NaN where it is undefined. The point estimate is its answer to weights of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtr, ndtri

from medmtl.metrics.estimate import NO_CASE, Better, Estimate
from medmtl.rng import generator

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]
Statistic = Callable[[FloatArray], FloatArray]

MINIMUM = 10
Z95 = float(ndtri(0.975))
TOO_FEW_PATIENTS = f"fewer than {MINIMUM} patients"
TOO_FEW_EVENTS = f"fewer than {MINIMUM} patients with an event"
TOO_FEW_OF_A_CLASS = f"fewer than {MINIMUM} patients in the rarest class"

# Weights of one block of resamples: 32 MiB however large the cohort.
BLOCK = 2**22


@dataclass(frozen=True)
class Interval:
    """A two-sided 95 % interval, or why there is none.

    Attributes:
        ci95: lower and upper bound, or None.
        method: how it was made; None where there is none.
        why: why there is none.
    """

    ci95: tuple[float, float] | None = None
    method: str | None = None
    why: str | None = None


def bca(statistic: Statistic, patient_N: IntArray, *, draws: int = 2000) -> Interval:
    """Bias-corrected and accelerated bootstrap interval over patients.

    Efron 1987, "Better bootstrap confidence intervals", https://doi.org/10.1080/01621459.1987.10478410; the
    acceleration is the jackknife's, leaving out one patient at a time. Deterministic.

    Args:
        statistic: see the module's docstring.
        patient_N: patient of each case, numbered from 0 without gaps, as :func:`patient_codes` gives.
        draws: number of resamples.

    Returns:
        An interval; without bounds below 10 patients, where the resamples do not vary (a width of zero would claim
        certainty), and where the statistic is undefined in a jackknife sample or in more than 1 in 20 resamples.
    """
    n_patients = int(patient_N.max(initial=-1)) + 1
    if n_patients < MINIMUM:
        return Interval(why=TOO_FEW_PATIENTS)
    random = generator(0, "bca")

    def resample(start: int, stop: int) -> FloatArray:
        rows = stop - start
        picks = random.integers(n_patients, size=(rows, n_patients)) + n_patients * np.arange(rows)[:, None]
        return np.bincount(picks.ravel(), minlength=rows * n_patients).reshape(rows, n_patients).astype(np.float64)

    def leave_one_out(start: int, stop: int) -> FloatArray:
        return 1 - np.eye(stop - start, n_patients, k=start)

    value = float(statistic(np.ones((1, len(patient_N))))[0])
    replicate_R = _in_blocks(statistic, patient_N, draws, resample)
    jackknife_P = _in_blocks(statistic, patient_N, n_patients, leave_one_out)
    replicate_R = replicate_R[np.isfinite(replicate_R)]
    if len(replicate_R) < 0.95 * draws or not np.isfinite(jackknife_P).all():
        return Interval(why="undefined in too many resamples")
    rounding = 1e-12 * float(np.abs(replicate_R).max())
    if np.ptp(replicate_R) <= rounding:
        return Interval(why="the resamples do not vary")
    lower, upper = np.quantile(replicate_R, _bca_levels(value, replicate_R, jackknife_P, rounding))
    return Interval((float(lower), float(upper)), "bca")


def _in_blocks(
    statistic: Statistic, patient_N: IntArray, rows: int, count_of: Callable[[int, int], FloatArray]
) -> FloatArray:
    """The statistic of resamples 0 to ``rows``; ``count_of(start, stop)`` says how often each holds each patient."""
    size = max(1, BLOCK // len(patient_N))
    blocks = (count_of(start, min(start + size, rows)) for start in range(0, rows, size))
    return np.concatenate([statistic(count_RP[:, patient_N]) for count_RP in blocks])


def _bca_levels(value: float, replicate_R: FloatArray, jackknife_P: FloatArray, rounding: float) -> FloatArray:
    """The two quantiles of the resamples that bound the interval."""
    below = np.mean(replicate_R < value - rounding)
    tied = np.mean(np.abs(replicate_R - value) <= rounding)
    # Beyond all resamples the bias correction would be infinite; it is as large as so many resamples can tell.
    limit = 1 / (len(replicate_R) + 1)
    bias = ndtri(np.clip(below + tied / 2, limit, 1 - limit))
    deviation_P = jackknife_P.mean() - jackknife_P
    scale = float((deviation_P**2).sum() ** 1.5)
    acceleration = float((deviation_P**3).sum()) / (6 * scale) if scale > 0 else 0.0
    shifted = bias + np.array([-Z95, Z95])
    return np.asarray(ndtr(bias + shifted / (1 - acceleration * shifted)))


def wilson(share: float, n: float) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953), for n > 0."""
    centre = share + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    # At 0 and at 1 the bound is exact; rounding would leave it a little off.
    lower = 0.0 if share == 0 else (centre - half) / scale
    upper = 1.0 if share == 1 else (centre + half) / scale
    return lower, upper


def proportion_interval(share: float, patient_N: IntArray) -> tuple[float, float]:
    """Wilson's interval of a share of cases, as if a patient's cases said nothing new, which is safe.

    With m cases of each patient the share then varies as that of (sum m)^2 / sum m^2 independent cases does (Kish 1965,
    "Survey Sampling"): of as many as there are patients where all have equally many, and of fewer otherwise.

    Args:
        share: of the cases.
        patient_N: patient of each case; at least one case.
    """
    count_P = np.unique(patient_N, return_counts=True)[1]
    return wilson(share, float(count_P.sum() ** 2 / (count_P**2).sum()))


def logit_interval(value: float, influence_N: FloatArray, patient_N: IntArray, method: str) -> Interval:
    """Symmetric on the logit scale, by the delta method: d logit(A) = dA / (A (1 - A)).

    Args:
        value: A, in 0 to 1.
        influence_N: how far each case moves it; the variance is the sum of squares of the patients' sums.
        patient_N: as in :func:`bca`.
        method: its name.

    Returns:
        An interval; without bounds where the variance is zero, as it is of 0 and of 1, which have no logit.
    """
    error = float(np.sqrt((np.bincount(patient_N, weights=influence_N) ** 2).sum()))
    if error < 1e-12:
        return Interval(why="its estimated variance is zero")
    half = Z95 * error / (value * (1 - value))
    return Interval((float(expit(logit(value) - half)), float(expit(logit(value) + half))), method)


def patient_codes(patients: Sequence[str] | None, n: int) -> npt.NDArray[np.intp]:
    """Number of each case's patient, from 0 without gaps; None means that each of ``n`` cases is a patient.

    Raises:
        ValueError: if there are not ``n`` patients.
    """
    if patients is None:
        return np.arange(n)
    if len(patients) != n:
        raise ValueError(f"{n} cases need {n} patients, got {len(patients)}")
    return np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)[1]


def too_few(class_N: npt.NDArray[Any], patient_N: IntArray) -> str | None:
    """Why there are too few patients for an interval: below 10, or 10 in the rarest class that occurs; else None."""
    if len(np.unique(patient_N)) < MINIMUM:
        return TOO_FEW_PATIENTS
    rarest = min(len(np.unique(patient_N[class_N == value])) for value in np.unique(class_N))
    return TOO_FEW_OF_A_CLASS if rarest < MINIMUM else None


def divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Elementwise ratio; NaN where the denominator is 0."""
    ratio = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator != 0)
    return ratio


def weighted_mean(value_N: FloatArray) -> Statistic:
    """The mean, as a statistic."""
    return lambda weight_RN: (weight_RN @ value_N) / weight_RN.sum(axis=1)


def bootstrap_estimate(
    statistic: Statistic,
    patient_N: IntArray,
    better: Better,
    unit: str | None = None,
    extra: Mapping[str, Any] | None = None,
    refused: str | None = None,
) -> Estimate:
    """A statistic over cases with its BCa interval.

    Args:
        statistic: see the module's docstring; defined on the cases themselves.
        patient_N: as in :func:`bca`.
        better: which direction is better.
        unit: unit of the statistic.
        extra: further figures for :attr:`Estimate.extra`.
        refused: why there shall be no interval, if so.

    Returns:
        The statistic; no value without a case, and then the statistic is not asked.
    """
    n = len(patient_N)
    if n == 0:
        return Estimate(None, better, unit, why=NO_CASE, extra=dict(extra or {}))
    value = float(statistic(np.ones((1, n)))[0])
    interval = Interval(why=refused) if refused else bca(statistic, patient_N)
    return Estimate(value, better, unit, n, interval.ci95, interval.method, interval.why, dict(extra or {}))


def mean_estimate(
    values: Sequence[float | None],
    patients: Sequence[str],
    better: Better,
    unit: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Estimate:
    """Mean of a per-case metric with its BCa interval over patients.

    Args:
        values: one per case; None where the case has none, which leaves the case out.
        patients: patient of each case.
        better: which direction is better.
        unit: unit of the values.
        extra: further figures for :attr:`Estimate.extra`, such as ``n_missed``.

    Returns:
        The mean over the cases that have a value, which ``n`` counts; no value where none has.
    """
    pairs = [(value, patient) for value, patient in zip(values, patients, strict=True) if value is not None]
    if not pairs:
        return Estimate(None, better, unit, why="no case has a value", extra=dict(extra or {}))
    value_N = np.array([value for value, _ in pairs], dtype=np.float64)
    patient_N = patient_codes([patient for _, patient in pairs], len(pairs))
    return bootstrap_estimate(weighted_mean(value_N), patient_N, better, unit, extra)


def proportion_estimate(right_N: BoolArray, patient_N: IntArray, better: Better, none: str) -> Estimate:
    """Share of cases of which something is so, with its interval; see :func:`proportion_interval`.

    Args:
        right_N: of which cases it is so.
        patient_N: patient of each case.
        better: which direction is better.
        none: why there is no value without a case.

    Returns:
        The share; no interval below 10 patients.
    """
    n, n_patients = len(right_N), len(np.unique(patient_N))
    if n == 0:
        return Estimate(None, better, why=none)
    share = float(np.count_nonzero(right_N) / n)
    if n_patients < MINIMUM:
        return Estimate(share, better, n=n, why=TOO_FEW_PATIENTS)
    return Estimate(share, better, n=n, ci95=proportion_interval(share, patient_N), ci="wilson")
