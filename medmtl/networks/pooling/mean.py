"""The mean over voxels."""

from __future__ import annotations

import torch

from medmtl.networks.pooling.base import Pooling


class Mean(Pooling):
    """The mean of each channel. Behind an instance norm it hardly differs between cases; see ``PooledHead``."""

    kind = "mean"

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, C)."""
        return voxels_in_a_row(map_BCDHW).mean(dim=1, dtype=torch.float32)


def voxels_in_a_row(map_BCDHW: torch.Tensor) -> torch.Tensor:
    """A view, (B, D * H * W, C).

    Of a map that is channels last it is contiguous, and so is a gradient that comes back through it; reduced over three
    axes instead, it takes several times as long to come back.
    """
    return map_BCDHW.flatten(2).transpose(1, 2)
