"""Mean and maximum over voxels."""

from __future__ import annotations

import torch

from medmtl.networks.pooling.base import Pooling
from medmtl.networks.pooling.mean import channel_means


class MeanMax(Pooling):
    """The means of all channels, then their maxima.

    Args:
        channels: of the map.
    """

    kind = "mean_max"

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.width = 2 * channels

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, 2 C)."""
        # torch's amax shares a gradient among equal maxima, which takes several passes over the map; and over this axis
        # the gradient of a map that is channels last is so too
        highest_BC = map_BCDHW.flatten(2).transpose(1, 2).max(dim=1).values
        return torch.cat([channel_means(map_BCDHW), highest_BC.float()], dim=1)
