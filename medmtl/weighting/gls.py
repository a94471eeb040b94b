"""Geometric loss strategy: the geometric mean of the losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from medmtl.weighting.base import Trained, Weighting, WeightingOptions
from medmtl.weighting.scalarise import read_positive, weighted_backward


class GeometricMean(Weighting):
    """L = K (prod_t L_t)^(1 / K) over the K tasks present in the step, so that a task has weight G / L_t.

    Chennupati et al. 2019, https://arxiv.org/abs/1904.08492; G is the geometric mean. The factor K makes it as large as
    the sum of equal losses. A loss below 1e-6 counts as 1e-6 in the weights.
    """

    kind = "gls"
    Options = WeightingOptions
    positive_losses = True

    def backward(
        self,
        losses: Mapping[str, torch.Tensor],
        *,
        trained: Trained,
        scale: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> Mapping[str, float]:
        """Fill the gradient of the geometric mean; the weights are its derivatives."""
        values = read_positive(losses)
        mean = math.exp(sum(map(math.log, values.values())) / len(values))
        return weighted_backward(losses, {name: mean / value for name, value in values.items()}, scale)
