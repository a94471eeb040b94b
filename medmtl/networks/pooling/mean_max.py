"""Mean and maximum over voxels."""

from __future__ import annotations

import torch

from medmtl.networks.pooling.base import Pooling
from medmtl.networks.pooling.mean import VOXELS


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
        return torch.cat([map_BCDHW.mean(dim=VOXELS, dtype=torch.float32), map_BCDHW.amax(dim=VOXELS).float()], dim=1)
