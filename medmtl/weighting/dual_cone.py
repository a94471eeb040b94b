"""UPGrad and DualProj: projections to where no task is made worse."""

from __future__ import annotations

from collections.abc import Mapping

from medmtl.weighting import torchjd_methods
from medmtl.weighting.jacobian import Array, GramMethod


class Upgrad(GramMethod):
    """Mean of the gradients, each projected to the directions that no gradient disagrees with.

    Quinton and Rey 2024, https://arxiv.org/abs/2406.16232.
    """

    kind = "upgrad"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights of 1 / T or more."""
        return torchjd_methods.upgrad(gram_TT)


class Dualproj(GramMethod):
    """The mean gradient, projected to the directions that no gradient disagrees with.

    Lopez-Paz and Ranzato 2017, https://arxiv.org/abs/1706.08840, equation 11, as a balance of tasks.
    """

    kind = "dualproj"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights of 1 / T or more."""
        return torchjd_methods.dualproj(gram_TT)
