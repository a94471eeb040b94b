"""Mean and maximum over voxels."""

from __future__ import annotations

import torch

from medmtl.networks.pooling.base import Pooling, voxels_in_a_row


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
        map_BNC = voxels_in_a_row(map_BCDHW)
        # not amax, which shares a gradient among equal maxima, in several passes over the map
        return torch.cat([map_BNC.mean(dim=1, dtype=torch.float32), map_BNC.max(dim=1).values.float()], dim=1)
