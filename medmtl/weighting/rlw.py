"""Random weights, drawn anew in every step: the baseline that a special method should beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.scalarise import LossMethod, softmax


class RandomWeights(LossMethod):
    """L = sum_t w_t L_t with w = K softmax(z), z drawn from a normal distribution in every step, for K present tasks.

    Lin et al. 2022, https://arxiv.org/abs/2111.10603. The weights sum to K, as equal ones do. Draws come from torch's
    generator, which a step seeds, so that a resumed run draws what the uninterrupted one does.
    """

    kind = "rlw"
    Options = WeightingOptions
    weighs_alone = False

    def weigh(self, losses: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """Weights drawn now."""
        draws = dict(zip(losses, torch.randn(len(losses)).tolist(), strict=True))
        weights = {name: len(losses) * share for name, share in softmax(draws).items()}
        return weights
