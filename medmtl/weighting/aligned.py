"""Aligned-MTL: gradients made orthogonal and of one length."""

from __future__ import annotations

from collections.abc import Mapping

from medmtl.weighting import torchjd_methods
from medmtl.weighting.jacobian import Array, GramMethod


class Aligned(GramMethod):
    """Sum of the gradients after all singular values of the Jacobian are set to the smallest that is not 0.

    Senushkin et al. 2023, https://arxiv.org/abs/2305.19000, algorithm 1. The paper's mean is taken as a sum, so that a
    task does not weigh less where more tasks are present.
    """

    kind = "aligned"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights, of which one may be negative."""
        return len(gram_TT) * torchjd_methods.aligned(gram_TT)
