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
