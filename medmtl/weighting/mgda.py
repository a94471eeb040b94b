"""MGDA: the shortest convex combination of the gradients, times their number."""

from __future__ import annotations

from collections.abc import Mapping

from medmtl.weighting.jacobian import Array, GramMethod
from medmtl.weighting.quadratic import minimum_norm, unit_rows


class Mgda(GramMethod):
    """min_w ||sum_t w_t g_t|| over w >= 0 with sum_t w_t = T for T tasks.

    Désidéri 2012, https://doi.org/10.1016/j.crma.2012.03.014; Sener and Koltun 2018, https://arxiv.org/abs/1810.04650.
    Solved exactly, not by Frank and Wolfe's steps. The paper's weights sum to 1, a mean; here a task does not weigh
    less where more tasks are present.
    """

    kind = "mgda"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights of 0 or more that sum to the number of tasks."""
        return len(gram_TT) * minimum_norm(*unit_rows(gram_TT))
