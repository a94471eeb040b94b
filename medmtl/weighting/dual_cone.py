"""UPGrad and DualProj: projections to where no task is made worse."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medmtl.weighting.jacobian import Array, GramMethod
from medmtl.weighting.quadratic import dual_cone, unit_rows


class Upgrad(GramMethod):
    """Sum of the gradients, each projected to the directions that no gradient disagrees with.

    Quinton and Rey 2024, https://arxiv.org/abs/2406.16232. The paper's mean is taken as a sum, so that a task does not
    weigh less where more tasks are present.
    """

    kind = "upgrad"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights of 1 or more."""
        units, lengths_T = unit_rows(gram_TT)
        weights: Array = np.sum([dual_cone(units, lengths_T, one_T) for one_T in np.eye(len(gram_TT))], axis=0)
        return weights


class Dualproj(GramMethod):
    """The sum of the gradients, projected to the directions that no gradient disagrees with.

    Lopez-Paz and Ranzato 2017, https://arxiv.org/abs/1706.08840, equation 11, as a balance of tasks; for the sum, see
    :class:`Upgrad`.
    """

    kind = "dualproj"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights of 1 or more."""
        return dual_cone(*unit_rows(gram_TT), np.ones(len(gram_TT)))
