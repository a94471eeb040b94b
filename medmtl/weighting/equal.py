"""Equal weights: the sum of the tasks' losses on their frozen scale."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.scalarise import LossMethod


class Equal(LossMethod):
    """L = sum_t L_t over the tasks present in the step.

    With ``loss_scale: prior`` each L_t is 1 for the best constant predictor, which makes equal weights comparable.
    The plain sum matches most special methods (Kurin et al. 2022, https://arxiv.org/abs/2201.04122).
    """

    kind = "equal"
    Options = WeightingOptions

    def weigh(self, losses: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """1 for every task."""
        return dict.fromkeys(losses, 1.0)
