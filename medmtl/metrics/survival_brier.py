"""Squared error of predicted survival curves, with censored cases made up for by the others' weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medmtl.metrics.estimate import Estimate
from medmtl.metrics.intervals import FloatArray, bootstrap_estimate, divide, patient_codes
from medmtl.metrics.kaplan_meier import StepCurve


def integrated_brier(
    survival_G: FloatArray, grid_G: FloatArray, time: float, event: bool, followed: StepCurve
) -> float:
    """Integrated Brier score of one case; its mean over cases is that of the cohort.

    ::

        BS(t) = S(t)^2 [T <= t, event] / G(T-) + (1 - S(t))^2 [T > t] / G(t)
        IBS = integral of BS over the grid (trapezoids) / its length

    Graf et al. 1999, https://doi.org/10.1002/(SICI)1097-0258(19990915/30)18:17/18%3C2529::AID-SIM274%3E3.0.CO;2-5. A
    case that was censored by t adds nothing from then on; the weights of the others make up for it.

    Args:
        survival_G: predicted probability to be without the event at each time of the grid.
        grid_G: at least two times, increasing, at which ``followed`` is above 0.
        time: of the event or of the end of follow-up.
        event: whether it is an event.
        followed: G, the probability to be still followed, of the training fold.
    """
    alive_G = (1 - survival_G) ** 2 / followed.at(grid_G)
    # an event after the grid has no weight to be asked for
    weight = float(followed.at(np.array([time]), before=True)[0]) if event and time <= grid_G[-1] else 1.0
    dead_G = survival_G**2 / weight if event else np.zeros(len(grid_G))
    score_G = np.where(time > grid_G, alive_G, dead_G)
    return float(np.trapezoid(score_G, grid_G) / (grid_G[-1] - grid_G[0]))


def brier_skill(score_N: FloatArray, reference_N: FloatArray, patients: Sequence[str]) -> Estimate:
    """1 - mean score / mean score of a reference, such as the training fold's Kaplan-Meier curve for everybody.

    1 is perfect, 0 no better than the reference, below 0 worse. The interval is BCa over patients.

    Args:
        score_N, reference_N: integrated Brier scores of each case.
        patients: patient of each case.
    """
    patient_N = patient_codes(patients, len(score_N))
    if not reference_N.any():
        why = "Kaplan-Meier is never wrong" if len(score_N) else "no case has a value"
        return Estimate(None, "higher", n=len(score_N), why=why)

    def statistic(weight_RN: FloatArray) -> FloatArray:
        return 1 - divide(weight_RN @ score_N, weight_RN @ reference_N)

    return bootstrap_estimate(statistic, patient_N, "higher")
