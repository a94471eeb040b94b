"""ConFIG: the direction with one cosine to every gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medmtl.weighting.jacobian import Array, GramMethod
from medmtl.weighting.quadratic import unit_rows

SMALLEST = 1e-6  # singular value of unit rows, of the largest; the root of float64's rounding is 1e-8
NO_DIRECTION = 1e-9  # length of what is 1 / cosine where there is one; rounding over SMALLEST is 1e-10


class Config(GramMethod):
    """The unit vector u with the same cosine to all gradients, times sum_t g_t . u.

    Liu et al. 2024, https://arxiv.org/abs/2408.11104, equation 2. It is a combination of the rows, so its weights
    follow from the Gram matrix, and the whole Jacobian is not needed. Of two opposite rows it is 0.
    """

    kind = "config"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights, of which one may be negative."""
        units, lengths_T = unit_rows(gram_TT)
        direction = np.linalg.lstsq(units.T, np.ones(len(gram_TT)), rcond=SMALLEST)[0]
        size = np.linalg.norm(direction)
        if size <= NO_DIRECTION:
            return np.zeros(len(gram_TT))
        length = float((units * lengths_T).sum(axis=1) @ direction / size)
        combination_T = np.linalg.lstsq(units, direction, rcond=SMALLEST)[0]
        weights: Array = length / size * combination_T / lengths_T
        return weights
