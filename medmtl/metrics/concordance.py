"""How well a risk orders patients whose event may not have been seen: Harrell's C, Uno's C, and the AUC at a time.

Each is the share of comparable pairs in which the case that is known to have had the event first has the higher risk,
equal risks counting half; they differ in which pairs are compared and how much each counts. As for every ranking, pairs
are formed within a fold only.

The variance is that of a ratio of two U-statistics, by each case's first-order influence, summed within patients: with
A_i the weight of the pairs of case i that are ranked rightly, B_i that of all its pairs, and D that of all pairs::

    Var(C) = sum over patients of (sum over their cases of (A_i - C B_i) / D)^2

Hoeffding 1948, https://doi.org/10.1214/aoms/1177730196; for C, Kang et al. 2015, https://doi.org/10.1002/sim.6370. The
interval is symmetric on the logit scale. Censoring weights count as known, as is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from medmtl.metrics.estimate import Estimate
from medmtl.metrics.intervals import (
    MINIMUM,
    TOO_FEW_EVENTS,
    TOO_FEW_PATIENTS,
    BoolArray,
    FloatArray,
    IntArray,
    Interval,
    logit_interval,
    patient_codes,
    too_few,
)

METHOD = "u-statistic-logit"
NOTHING_TO_RANK = "no fold holds two cases of which one is known to have had the event first"
NOTHING_COUNTS = "no event counts by its weight: all came after the horizon, or when fewer than a tenth were followed"
NOBODY_LATER = "no fold holds both an event by then and a case without one until then"

Later = Callable[[int, IntArray], BoolArray]
"""Which of these rows are known to have had no event when the case had its own."""


def harrell_c(
    time_N: FloatArray,
    event_N: BoolArray,
    risk_N: FloatArray,
    fold_N: IntArray | None = None,
    patients: Sequence[str] | None = None,
) -> Estimate:
    """Harrell's concordance index: of all pairs whose order is known, the share that the risk orders rightly.

    The order is known if the earlier time is an event; of equal times an event comes before a censoring, and two events
    have no order. Harrell et al. 1982, https://doi.org/10.1001/jama.1982.03320430047030.

    Args:
        time_N: time of the event or of the end of follow-up.
        event_N: whether it is an event.
        risk_N: higher means an earlier event; finite.
        fold_N: fold whose model scored the case; None means one model.
        patients: patient of each case; None means that each case is a patient.

    Returns:
        The index; no interval below 10 patients, or 10 with an event.

    Raises:
        ValueError: if lengths differ or a risk is not finite.
    """
    return uno_c(time_N, event_N, risk_N, np.ones(len(time_N)), fold_N, patients)


def uno_c(
    time_N: FloatArray,
    event_N: BoolArray,
    risk_N: FloatArray,
    weight_N: FloatArray,
    fold_N: IntArray | None = None,
    patients: Sequence[str] | None = None,
) -> Estimate:
    """Uno's concordance index: Harrell's with each pair weighted by the square of the earlier case's weight.

    With weights 1 / G(T-), G the probability to be still followed, it does not depend on how many were censored and
    when. Events with the weight 0 are not compared with later cases: so it is truncated. Uno et al. 2011,
    https://doi.org/10.1002/sim.4154.

    Args:
        weight_N: of each case, 0 or more; only events' weights matter.
        time_N, event_N, risk_N, fold_N, patients: as for :func:`harrell_c`.

    Returns:
        The index; no interval below 10 patients, or 10 with an event that counts.

    Raises:
        ValueError: if lengths differ or a risk is not finite.
    """
    first_N = np.where(event_N, weight_N, 0.0) ** 2

    def later(row: int, rows: IntArray) -> BoolArray:
        return np.asarray((time_N[rows] > time_N[row]) | ((time_N[rows] == time_N[row]) & ~event_N[rows]))

    patient_N = patient_codes(patients, len(time_N))
    few = TOO_FEW_PATIENTS if len(np.unique(patient_N)) < MINIMUM else None
    if few is None and len(np.unique(patient_N[first_N > 0])) < MINIMUM:
        few = TOO_FEW_EVENTS
    nothing = NOTHING_COUNTS if event_N.any() and not first_N.any() else NOTHING_TO_RANK
    return _concordance(risk_N, first_N, later, fold_N, patient_N, few, nothing)


def auc_at(
    horizon: float,
    time_N: FloatArray,
    event_N: BoolArray,
    risk_N: FloatArray,
    weight_N: FloatArray,
    fold_N: IntArray | None = None,
    patients: Sequence[str] | None = None,
) -> Estimate:
    """Cumulative/dynamic AUC at a time: who has the event by then against who is known to be without it.

    Events by ``horizon`` count by their weight 1 / G(T-); the weight of the others, 1 / G(horizon-), is one for all and
    cancels. Who is censored at ``horizon`` was still without the event then. Uno et al. 2007,
    https://doi.org/10.1198/016214507000000149; Hung and Chiang 2010, https://doi.org/10.1002/cjs.10046.

    Args:
        horizon: the time, in the unit of ``time_N``.
        weight_N: of each case, 0 or more; only the weights of events by ``horizon`` matter.
        time_N, event_N, risk_N, fold_N, patients: as for :func:`harrell_c`.

    Returns:
        The area; no interval below 10 patients, or 10 in the rarer of the two groups.

    Raises:
        ValueError: if lengths differ or a risk is not finite.
    """
    first_N = np.where(event_N & (time_N <= horizon), weight_N, 0.0)
    patient_N = patient_codes(patients, len(time_N))
    without_N = (time_N > horizon) | ((time_N == horizon) & ~event_N)
    told_N = (first_N > 0) | without_N
    few = too_few(first_N[told_N] > 0, patient_N[told_N]) if told_N.any() else None
    return _concordance(risk_N, first_N, lambda _, rows: without_N[rows], fold_N, patient_N, few, NOBODY_LATER)


def _concordance(
    risk_N: FloatArray,
    first_N: FloatArray,
    later: Later,
    fold_N: IntArray | None,
    patient_N: IntArray,
    few: str | None,
    nothing: str,
) -> Estimate:
    """The estimate of pairs (i, j) of one fold, j later than i, each with the weight ``first_N[i]``."""
    n = len(risk_N)
    fold_N = np.zeros(n, dtype=np.intp) if fold_N is None else fold_N
    if not n == len(first_N) == len(fold_N):
        raise ValueError(f"lengths differ: {n} risks, {len(first_N)} times, {len(fold_N)} folds")
    if not np.isfinite(risk_N).all():
        raise ValueError("risks must be finite to be ranked")
    right_N, all_N = np.zeros(n), np.zeros(n)
    for fold in np.unique(fold_N):
        rows = np.flatnonzero(fold_N == fold)
        for row in rows[first_N[rows] > 0].tolist():
            others = rows[later(row, rows)]
            win_M = (risk_N[row] > risk_N[others]) + 0.5 * (risk_N[row] == risk_N[others])
            right_N[others] += first_N[row] * win_M
            all_N[others] += first_N[row]
            right_N[row] += first_N[row] * win_M.sum()
            all_N[row] += first_N[row] * len(others)
    total = float(all_N.sum()) / 2  # a pair stands at both of its cases
    if total == 0:
        return Estimate(None, "higher", n=n, why=nothing)
    value = min(1.0, float(right_N.sum()) / 2 / total)
    influence_N = (right_N - value * all_N) / total
    interval = Interval(why=few) if few else logit_interval(value, influence_N, patient_N, METHOD)
    used = int(np.count_nonzero(all_N))
    return Estimate(value, "higher", None, used, interval.ci95, interval.method, interval.why)
