"""Equal weights: the sum of the tasks' losses on their frozen scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from medmtl.weighting.base import Trained, Weighting, WeightingOptions
from medmtl.weighting.scalarise import weighted_backward


class Equal(Weighting):
    """L = sum_t L_t over the tasks present in the step.

    With ``loss_scale: prior`` each L_t is 1 for the best constant predictor, which makes equal weights comparable.
    The plain sum matches most special methods (Kurin et al. 2022, https://arxiv.org/abs/2201.04122).
    """

    kind = "equal"
    Options = WeightingOptions

    def backward(
        self,
        losses: Mapping[str, torch.Tensor],
        *,
        trained: Trained,
        scale: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> Mapping[str, float]:
        """Fill gradients; every present task has weight 1."""
        return weighted_backward(losses, dict.fromkeys(losses, 1.0), scale)
