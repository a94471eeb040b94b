"""PCGrad: each gradient without what conflicts with the others."""

from __future__ import annotations

from collections.abc import Mapping

from medmtl.weighting import torchjd_methods
from medmtl.weighting.jacobian import Array, GramMethod


class Pcgrad(GramMethod):
    """Sum of the gradients, each projected to the normal plane of every other one that it conflicts with.

    Yu et al. 2020, https://arxiv.org/abs/2001.06782, algorithm 1. The order of the others is drawn in each step.
    """

    kind = "pcgrad"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights of 0 or more."""
        return torchjd_methods.pcgrad(gram_TT)
