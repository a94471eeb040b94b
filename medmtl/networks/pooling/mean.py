"""The mean over voxels."""

from __future__ import annotations

import torch

from medmtl.networks.pooling.base import Pooling, voxels_in_a_row


class Mean(Pooling):
    """The mean of each channel. Behind an instance norm it hardly differs between cases; see ``PooledHead``."""

    kind = "mean"

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, C)."""
        return voxels_in_a_row(map_BCDHW).mean(dim=1, dtype=torch.float32)
