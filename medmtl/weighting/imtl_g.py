"""IMTL-G: the combination onto which all gradients project alike."""

from __future__ import annotations

from collections.abc import Mapping

from medmtl.weighting import torchjd_methods
from medmtl.weighting.jacobian import Array, GramMethod


class ImtlG(GramMethod):
    """The direction with the same projection onto every g_t / ||g_t||, with weights that sum to the number of tasks.

    Liu et al. 2021, https://openreview.net/forum?id=IMPnRXEWpvr, with the pseudo-inverse of the Gram matrix for rows
    that depend on each other (https://arxiv.org/abs/2406.16232). The paper's weights sum to 1, a mean; here a task does
    not weigh less where more tasks are present.
    """

    kind = "imtl_g"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights that sum to the number of tasks; one may be negative."""
        return len(gram_TT) * torchjd_methods.imtl_g(gram_TT)
