"""The mean over voxels."""

from __future__ import annotations

import torch

from medmtl.networks.pooling.base import Pooling


class Mean(Pooling):
    """The mean of each channel. Behind an instance norm it hardly differs between cases; see ``PooledHead``."""

    kind = "mean"

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, C)."""
        return channel_means(map_BCDHW)


def channel_means(map_BCDHW: torch.Tensor) -> torch.Tensor:
    """(B, C, D, H, W) of any floating type -> (B, C), fp32.

    A product of matrices reads a map that is channels last as it lies, and so does its gradient: with it, torch's own
    mean takes twice the time on such a map.
    """
    map_BCN = map_BCDHW.flatten(2).float()
    share_B1N = map_BCN.new_full((len(map_BCN), 1, map_BCN.shape[2]), 1 / map_BCN.shape[2])
    return torch.bmm(share_B1N, map_BCN.transpose(1, 2))[:, 0]
