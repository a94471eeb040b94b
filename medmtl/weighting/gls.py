"""Geometric loss strategy: the geometric mean of the losses."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.scalarise import LossMethod, read_positive


class GeometricMean(LossMethod):
    """L = K (prod_t L_t)^(1 / K) over the K tasks present in the step, so that a task has weight G / L_t.

    Chennupati et al. 2019, https://arxiv.org/abs/1904.08492; G is the geometric mean. The factor K makes it as large as
    the sum of equal losses. A loss below 1e-6 counts as 1e-6 in the weights.
    """

    kind = "gls"
    Options = WeightingOptions
    positive_losses = True
    weighs_alone = False

    def weigh(self, losses: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """The derivatives of the geometric mean."""
        values = read_positive(losses)
        mean = math.exp(sum(map(math.log, values.values())) / len(values))
        return {name: mean / value for name, value in values.items()}
