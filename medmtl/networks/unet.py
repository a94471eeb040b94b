"""The encoder of a 3D U-Net on MONAI's dynamic U-Net blocks.

Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597); block order, strided convolutions, instance norm and leaky
ReLU as in nnU-Net (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, Self

from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock
from torch import nn

from medmtl.networks.encoder import Convolution, Encoder, EncoderOptions
from medmtl.networks.norm import ACTIVATION, NORM
from medmtl.networks.shape import NetworkShape

MAPS = 4.5  # two convolutions' outputs, each also normalised, and what the backward pass adds; fitted, see Budget


class UnetOptions(EncoderOptions):
    """Options of the U-Net.

    Attributes:
        blocks: ``plain`` has two convolutions per stage; ``residual`` adds a shortcut around them.
    """

    blocks: Literal["plain", "residual"] = "plain"

    def measured(self, shape: NetworkShape) -> NetworkShape:
        """Planned measurements, completed by what these options decide."""
        return replace(super().measured(shape), blocks=self.blocks)

    def as_in_nnunet(self, network: str, blocks: tuple[int, ...]) -> Self:
        """The same options, which are those of nnU-Net's plain U-Net with two convolutions per stage."""
        if network != "PlainConvUNet":
            fix = "set network.kind: resenc" if network == "ResidualEncoderUNet" else "leave plan.nnunet away"
            raise ValueError(f"the plan has a {network}, and network.kind is {self.kind}; {fix}")
        if self.blocks != "plain":
            raise ValueError(f"the plan has a {network}, and network.blocks is {self.blocks}; leave one away")
        if set(blocks) != {2}:
            raise ValueError(f"network.kind {self.kind} has 2 convolutions per stage, found {list(blocks)}")
        return self


class UnetEncoder(Encoder):
    """Two convolutions per stage, the first of them strided.

    Args:
        shape: measurements of the network.
    """

    kind = "unet"
    Options = UnetOptions

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__(shape)
        block = UnetResBlock if shape.blocks == "residual" else UnetBasicBlock
        inputs = (shape.in_channels, *shape.channels[:-1])
        self.stages = nn.ModuleList(
            block(3, before, after, kernel, stride, norm_name=NORM, act_name=ACTIVATION)
            for before, after, kernel, stride in zip(inputs, shape.channels, shape.kernels, shape.strides, strict=True)
        )

    @classmethod
    def layers(cls, shape: NetworkShape) -> Iterator[Convolution]:
        """Two per stage, and of residual blocks the shortcut where the map changes its size."""
        before = shape.in_channels
        for stage, after in enumerate(shape.channels):
            volume = math.prod(shape.kernels[stage])
            yield Convolution(before * after * volume, stage, after)
            yield Convolution(after * after * volume, stage, after)
            if shape.blocks == "residual" and (before != after or math.prod(shape.strides[stage]) > 1):
                yield Convolution(before * after, stage, after)
            before = after

    @classmethod
    def maps_per_stage(cls, shape: NetworkShape) -> tuple[float, ...]:
        """The same for every stage; residual blocks were measured to need no more."""
        return (MAPS,) * len(shape.channels)
