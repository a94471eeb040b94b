"""The head of a task with an answer per voxel."""

from __future__ import annotations

import torch
from torch import nn

from medmtl.networks.features import Features, FeatureSpec


class VoxelHead(nn.Module):
    """A 1x1x1 convolution on each decoder map, finest first; in evaluation on the finest only.

    Args:
        spec: channels of the maps.
        outputs: channels of the answer.
    """

    def __init__(self, spec: FeatureSpec, outputs: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv3d(channels, outputs, 1) for channels in spec.decoder_channels)

    def forward(self, features: Features) -> tuple[torch.Tensor, ...]:
        """One map (B, ``outputs``, D, H, W) per level."""
        count = len(self.levels) if self.training else 1
        return tuple(self.levels[i](features.decoder[i]) for i in range(count))
