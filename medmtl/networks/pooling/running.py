"""Features on one scale, by moments over the samples of many steps."""

from __future__ import annotations

import torch
from torch import nn

from medmtl.networks.joint import JointBatch

RATE = 0.05
EPSILON = 1e-5


class RunningStandardisation(nn.Module):
    """``(x - m) / sqrt(v + eps)`` with running moments over samples.

    The moments are those of all samples of the first 20 steps, then an exponential average with rate
    0.05 per step. They are updated in training, before they are used, and carry no gradient: a sample's gradient never
    reaches another sample.

    Args:
        width: number of features.
        eps: added to the variance.

    Attributes:
        joint: the batch that several processes hold together, whose moments are then meant; None for one process.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    steps: torch.Tensor
    joint: JointBatch | None = None

    def __init__(self, width: int, eps: float = EPSILON) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, value_BN: torch.Tensor) -> torch.Tensor:
        """(B, width) -> (B, width)."""
        if self.training:
            self._update(value_BN)
        return (value_BN - self.mean) * torch.rsqrt(self.variance + self.eps)

    @torch.no_grad()
    def _update(self, value_BN: torch.Tensor) -> None:
        self.steps += 1
        rate = (1 / self.steps).clamp(min=RATE)
        mean_N, variance_N = self._moments(value_BN)
        shift_N = mean_N - self.mean
        # the variance of a mixture of the old samples and the new ones
        spread_N = variance_N + (1 - rate) * shift_N**2
        self.variance += rate * (spread_N - self.variance)
        self.mean += rate * shift_N

    def _moments(self, value_BN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.joint is None:
            return value_BN.mean(dim=0), value_BN.var(dim=0, correction=0)
        value_BN = value_BN.double()
        own = torch.cat([value_BN.sum(0), value_BN.square().sum(0), value_BN.new_tensor([len(value_BN)])])
        *sums, count = torch.split(self.joint.sum(own), [self.mean.numel(), self.mean.numel(), 1])
        mean_N, square_N = (total / count for total in sums)
        return mean_N.to(self.mean), (square_N - mean_N**2).clamp(min=0).to(self.mean)
