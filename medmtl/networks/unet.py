"""A 3D U-Net on MONAI's dynamic U-Net blocks: encoder and decoder.

Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597); block order, strided convolutions, instance norm and leaky ReLU
as in nnU-Net (Isensee et al. 2021).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock, UnetUpBlock
from pydantic import BaseModel, ConfigDict
from torch import nn

from medmtl.networks.shape import NetworkShape

ACTIVATION = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})


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


def _norm(channels: int) -> tuple[str, dict[str, Any]]:
    # one group per channel is instance norm, and the faster of torch's two implementations of it under bf16 on a CPU
    return ("group", {"num_groups": channels, "affine": True})


class UnetEncoder(nn.Module):
    """Image (B, C, D, H, W) -> one map per stage, finest first."""

    kind: ClassVar[str] = "unet"
    Options: ClassVar[type[UnetOptions]] = UnetOptions

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        block = UnetResBlock if shape.blocks == "residual" else UnetBasicBlock
        inputs = (shape.in_channels, *shape.channels[:-1])
        self.stages = nn.ModuleList(
            block(3, before, after, kernel, stride, norm_name=_norm(after), act_name=ACTIVATION)
            for before, after, kernel, stride in zip(inputs, shape.channels, shape.kernels, shape.strides, strict=True)
        )

    def forward(self, image_BCDHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All maps, finest first."""
        maps = []
        current = image_BCDHW
        for stage in self.stages:
            current = stage(current)
            maps.append(current)
        return tuple(maps)


class UnetDecoder(nn.Module):
    """Encoder maps -> decoder maps of the finest ``shape.levels`` stages, finest first."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.levels = shape.levels
        self.stages = nn.ModuleList(
            UnetUpBlock(
                3,
                shape.channels[stage + 1],
                shape.channels[stage],
                shape.kernels[stage],
                1,
                shape.strides[stage + 1],
                norm_name=_norm(shape.channels[stage]),
                act_name=ACTIVATION,
            )
            for stage in range(len(shape.channels) - 1)
        )

    def forward(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Decoder maps, finest first."""
        current = maps[-1]
        decoded: list[torch.Tensor] = []
        for stage in range(len(self.stages) - 1, -1, -1):
            current = self.stages[stage](current, maps[stage])
            if stage < self.levels:
                decoded.insert(0, current)
        return tuple(decoded)
