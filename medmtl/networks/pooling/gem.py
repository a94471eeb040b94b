"""The generalised mean over voxels (GeM), between mean and maximum.

Radenovic, Tolias and Chum 2018, https://doi.org/10.1109/TPAMI.2018.2846566.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from medmtl.networks.pooling.base import Pooling

INITIAL_EXPONENT = 3.0
FLOOR = 1e-6


class GeneralisedMean(Pooling):
    """``(mean_v max(f, 1e-6) ^ p) ^ (1 / p)`` of each channel, with one learned exponent p per map, at first 3.

    A power wants positive values, so those below 1e-6 count as 1e-6, as in the paper. Behind a leaky ReLU of slope 0.01
    little is lost: what is below zero there is at most a hundredth of what it was.

    p is ``1 + softplus(raw)``, so that it stays above 1 (the mean) and can be as large as it wants (the maximum).

    Args:
        channels: of the map.
    """

    kind = "gem"

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        # of one dimension, so that no weight decay pulls at it
        self.raw = nn.Parameter(torch.tensor([math.log(math.expm1(INITIAL_EXPONENT - 1))]))

    @property
    def exponent(self) -> torch.Tensor:
        """p, shape (1,)."""
        return 1 + functional.softplus(self.raw)

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, C)."""
        return generalised_mean(map_BCDHW, self.exponent)


def generalised_mean(map_BCDHW: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """The mean of each channel under ``exponent``, (B, C), fp32.

    Computed on logarithms, whose sum of exponentials is taken relative to the largest: no power can overflow or vanish.
    """
    log_BCN = map_BCDHW.float().clamp(min=FLOOR).log().flatten(2)
    log_sum_BC = torch.logsumexp(exponent * log_BCN, dim=2)
    return ((log_sum_BC - math.log(log_BCN.shape[2])) / exponent).exp()
