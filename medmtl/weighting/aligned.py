"""Aligned-MTL: gradients made orthogonal and of one length."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medmtl.weighting.jacobian import Array, GramMethod
from medmtl.weighting.quadratic import SMALLEST, unit_rows


class Aligned(GramMethod):
    """Sum of the gradients after all singular values of the Jacobian are set to the smallest that is not 0.

    Senushkin et al. 2023, https://arxiv.org/abs/2305.19000, algorithm 1. Which of them are 0 is seen in the unit rows,
    so that a short row is not taken for none. The paper's mean is taken as a sum, so that a task does not weigh less
    where more tasks are present.
    """

    kind = "aligned"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights, of which one may be negative."""
        units, lengths_T = unit_rows(gram_TT)
        _, sizes_T, directions_TT = np.linalg.svd(units)
        kept = sizes_T > SMALLEST * sizes_T[0]
        # the rows in as many coordinates as they span
        rows_RT = sizes_T[kept, None] * directions_TT[kept] * lengths_T
        _, sizes_R, directions_RT = np.linalg.svd(rows_RT, full_matrices=False)
        sizes_R = np.maximum(sizes_R, np.finfo(float).tiny)
        weights: Array = directions_RT.T @ (sizes_R[-1] / sizes_R * directions_RT.sum(axis=1))
        return weights
