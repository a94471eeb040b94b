"""Random weights, drawn anew in every step: the baseline that a special method should beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from medmtl.weighting.base import Trained, Weighting, WeightingOptions
from medmtl.weighting.scalarise import softmax, weighted_backward


class RandomWeights(Weighting):
    """L = sum_t w_t L_t with w = K softmax(z), z drawn from a normal distribution in every step, for K present tasks.

    Lin et al. 2022, https://arxiv.org/abs/2111.10603. The weights sum to K, as equal ones do. Draws come from torch's
    generator, which a step seeds, so that a resumed run draws what the uninterrupted one does.
    """

    kind = "rlw"
    Options = WeightingOptions

    def backward(
        self,
        losses: Mapping[str, torch.Tensor],
        *,
        trained: Trained,
        scale: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> Mapping[str, float]:
        """Fill gradients with weights drawn now."""
        draws = dict(zip(losses, torch.randn(len(losses)).tolist(), strict=True))
        weights = {name: len(losses) * share for name, share in softmax(draws).items()}
        return weighted_backward(losses, weights, scale)
