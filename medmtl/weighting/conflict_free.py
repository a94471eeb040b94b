"""ConFIG: the direction with one cosine to every gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medmtl.weighting.jacobian import Array, GramMethod
from medmtl.weighting.quadratic import equal_cosines, unit_rows


class ConflictFree(GramMethod):
    """The unit vector u with the same cosine to all gradients, times sum_t g_t . u.

    Liu et al. 2024, https://arxiv.org/abs/2408.11104, equation 2. It is a combination of the rows, so its weights
    follow from the Gram matrix, and the whole Jacobian is not needed. Of two opposite rows it is 0.
    """

    kind = "config"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights, of which one may be negative."""
        units, lengths_T = unit_rows(gram_TT)
        direction, combination_T = equal_cosines(units)
        size = np.linalg.norm(direction)
        if size == 0:
            return combination_T
        length = float((units * lengths_T).sum(axis=1) @ direction / size)
        weights: Array = length / size * combination_T / lengths_T
        return weights
