"""The encoder of a 3D U-Net on MONAI's dynamic U-Net blocks.

Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597); block order, strided convolutions, instance norm and leaky
ReLU as in nnU-Net (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock
from pydantic import BaseModel, ConfigDict
from torch import nn

from medmtl.networks.norm import ACTIVATION, NORM
from medmtl.networks.shape import NetworkShape


class UnetOptions(BaseModel):
    """Options of the U-Net.

    Attributes:
        kind: ``unet``.
        blocks: ``plain`` has two convolutions per stage; ``residual`` adds a shortcut around them.
        decoder: one decoder ``shared`` by all voxel tasks, or one ``per_task``.
        deep_supervision: voxel heads read the three finest decoder maps in training instead of the finest one alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    blocks: Literal["plain", "residual"] = "plain"
    decoder: Literal["shared", "per_task"] = "shared"
    deep_supervision: bool = True


class UnetEncoder(nn.Module):
    """Image (B, C, D, H, W) -> one map per stage, finest first.

    Args:
        shape: measurements of the network.
    """

    kind: ClassVar[str] = "unet"
    Options: ClassVar[type[UnetOptions]] = UnetOptions

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        block = UnetResBlock if shape.blocks == "residual" else UnetBasicBlock
        inputs = (shape.in_channels, *shape.channels[:-1])
        self.stages = nn.ModuleList(
            block(3, before, after, kernel, stride, norm_name=NORM, act_name=ACTIVATION)
            for before, after, kernel, stride in zip(inputs, shape.channels, shape.kernels, shape.strides, strict=True)
        )

    def forward(self, image_BCDHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All maps, finest first; stage i is (B, channels[i], D, H, W) / cumulative stride i."""
        current = channels_last(image_BCDHW)
        maps = []
        for stage in self.stages:
            current = stage(current)
            maps.append(current)
        return tuple(maps)


def channels_last(image_BCDHW: torch.Tensor) -> torch.Tensor:
    """An image as the first stage reads it: on a CPU, whose convolutions need no reordering then, channels last."""
    if image_BCDHW.device.type != "cpu":
        return image_BCDHW
    # A copy, because ``contiguous`` leaves the strides of a one-channel image as they are, and the first convolution
    # would not recognise them.
    return torch.empty_like(image_BCDHW, memory_format=torch.channels_last_3d).copy_(image_BCDHW)
