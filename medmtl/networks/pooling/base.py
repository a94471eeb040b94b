"""What every way to pool a map provides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn


class Pooling(nn.Module, ABC):
    """One map -> some features per sample, whatever the map's size.

    Args:
        channels: of the map.

    Attributes:
        width: number of features.
    """

    kind: ClassVar[str]

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = channels

    @abstractmethod
    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, channels, D, H, W) of any floating type -> (B, width), fp32; called outside autocast."""


def voxels_in_a_row(map_BCDHW: torch.Tensor) -> torch.Tensor:
    """A view, (B, D * H * W, C).

    Of a map that is channels last it is contiguous, and so is a gradient that comes back through it; reduced over three
    axes instead, it takes several times as long to come back.
    """
    return map_BCDHW.flatten(2).transpose(1, 2)
