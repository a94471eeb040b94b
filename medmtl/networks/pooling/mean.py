"""The mean over voxels."""

from __future__ import annotations

import torch

from medmtl.networks.pooling.base import Pooling

VOXELS = (2, 3, 4)


class Mean(Pooling):
    """The mean of each channel. Behind an instance norm it hardly differs between cases; see ``PooledHead``."""

    kind = "mean"

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, C)."""
        return map_BCDHW.mean(dim=VOXELS, dtype=torch.float32)
