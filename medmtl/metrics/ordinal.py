"""How close predicted grades are to observed ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medmtl.metrics.estimate import NO_CASE, Estimate
from medmtl.metrics.intervals import FloatArray, IntArray, bootstrap_estimate, patient_codes


def kappa_quadratic(
    grade_N: IntArray, predicted_N: IntArray, n_grades: int, patients: Sequence[str] | None = None
) -> Estimate:
    """Cohen's kappa with quadratic weights: agreement beyond chance, where an error counts by its square.

    ::

        1 - sum w O / sum w E,   w_ij = (i - j)^2

    with O the counts of observed grade i and predicted grade j, and E what their margins give by chance. Cohen 1968,
    https://doi.org/10.1037/h0026256. 1 is perfect, 0 no better than chance with the same margins. As in scikit-learn.

    Args:
        grade_N: index of each case's grade.
        predicted_N: index of the predicted grade.
        n_grades: number of grades.
        patients: patient of each case; None means that each case is a patient.

    Returns:
        Kappa with its BCa interval over patients; no value where one grade alone occurs and is predicted.
    """
    patient_N = patient_codes(patients, len(grade_N))
    if len(grade_N) == 0:
        return Estimate(None, "higher", why=NO_CASE)
    if len(np.unique(np.concatenate([grade_N, predicted_N]))) < 2:
        return Estimate(None, "higher", n=len(grade_N), why="a single grade occurs and is predicted")
    cell_NC = np.eye(n_grades**2)[grade_N * n_grades + predicted_N]
    step_K = np.arange(n_grades)
    weight_KK = (step_K[:, None] - step_K).astype(np.float64) ** 2

    def statistic(weight_RN: FloatArray) -> FloatArray:
        count_RKK = (weight_RN @ cell_NC).reshape(-1, n_grades, n_grades)
        disagreed_R = (count_RKK * weight_KK).sum(axis=(1, 2))
        row_RK, column_RK = count_RKK.sum(axis=2), count_RKK.sum(axis=1)
        chance_R = np.einsum("ri,ij,rj->r", row_RK, weight_KK, column_RK) / weight_RN.sum(axis=1)
        found_R = np.full(len(chance_R), np.nan)
        np.divide(disagreed_R, chance_R, out=found_R, where=chance_R > 0)
        return 1 - found_R

    return bootstrap_estimate(statistic, patient_N, "higher")
