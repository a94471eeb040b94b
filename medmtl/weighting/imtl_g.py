"""IMTL-G: the combination onto which all gradients project alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medmtl.weighting.jacobian import Array, GramMethod
from medmtl.weighting.quadratic import equal_cosines, unit_rows

NO_SUM = 1e-9  # of weights, as a share of their sizes: rounding


class ImtlG(GramMethod):
    """The direction with the same projection onto every g_t / ||g_t||, with weights that sum to the number of tasks.

    Liu et al. 2021, https://openreview.net/forum?id=IMPnRXEWpvr, with the pseudo-inverse of the cosines for rows that
    depend on each other; 0 where the unit rows cancel out, as two opposite ones do, or where the weights of that
    direction sum to 0. The paper's weights sum to 1, a mean; here a task does not weigh less where more tasks are
    present.
    """

    kind = "imtl_g"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights that sum to the number of tasks; one may be negative."""
        units, lengths_T = unit_rows(gram_TT)
        found_T = equal_cosines(units)[1] / lengths_T
        total = found_T.sum()
        if abs(total) <= NO_SUM * np.abs(found_T).sum():
            return np.zeros_like(found_T)
        weights: Array = len(gram_TT) / total * found_T
        return weights
