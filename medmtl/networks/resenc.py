"""The residual encoder of nnU-Net's ResEnc presets.

Isensee et al. 2024, https://arxiv.org/abs/2404.09556: few blocks at the fine stages, many at the coarse ones. Blocks
are those of He et al. 2016 (https://arxiv.org/abs/1512.03385) with the shortcut of ResNet-D (He et al. 2019,
https://arxiv.org/abs/1812.01187), which averages before it changes the channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Self

from monai.networks.blocks.convolutions import Convolution as ConvolutionBlock
from monai.networks.blocks.dynunet_block import UnetResBlock, get_conv_layer
from torch import nn

from medmtl.networks.encoder import Blocks, Convolution, Encoder, EncoderOptions, chosen_blocks
from medmtl.networks.features import Stride
from medmtl.networks.norm import ACTIVATION, NORM
from medmtl.networks.shape import NetworkShape

BLOCKS = (1, 3, 4, 6, 6, 6)
MAPS_OF_A_BLOCK = 4.0  # two convolutions' outputs, the first one normalised, and the sum
MAPS_BESIDE = 0.5  # what the backward pass adds; as for the U-Net


class ResencOptions(EncoderOptions):
    """Options of the residual encoder.

    Attributes:
        blocks_per_stage: residual blocks of each stage, finest first; the last number stands for all deeper stages,
            and numbers beyond the planned stages are not used. None takes nnU-Net's 1, 3, 4, 6, 6, 6.
    """

    blocks_per_stage: Blocks | None = None

    def measured(self, shape: NetworkShape) -> NetworkShape:
        """Planned measurements, completed by what these options decide."""
        blocks = chosen_blocks(self.blocks_per_stage or BLOCKS, len(shape.channels))
        return replace(super().measured(shape), blocks_per_stage=blocks)

    def as_in_nnunet(self, network: str, blocks: tuple[int, ...]) -> Self:
        """The plan's blocks, unless they are set."""
        if network != "ResidualEncoderUNet":
            fix = "set network.kind: unet" if network == "PlainConvUNet" else "leave plan.nnunet away"
            raise ValueError(f"the plan has a {network}, and network.kind is {self.kind}; {fix}")
        return self if self.blocks_per_stage else self.model_copy(update={"blocks_per_stage": blocks})


class ResencEncoder(Encoder):
    """A stem, then stages of residual blocks, as in nnU-Net's ResEnc presets; the decoder is that of all kinds.

    nnU-Net's own decoder has one convolution per stage there, this one two.

    Args:
        shape: measurements of the network.
    """

    kind = "resenc"
    Options = ResencOptions

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__(shape)
        stem = ConvolutionBlock(
            3, shape.in_channels, shape.channels[0], 1, shape.kernels[0], act=ACTIVATION, norm=NORM, bias=False
        )
        stages: list[nn.Module] = []
        before = shape.channels[0]
        for stage, after in enumerate(shape.channels):
            kernel = shape.kernels[stage]
            blocks: list[nn.Module] = [] if stage else [stem]
            blocks.append(_ResidualBlock(before, after, kernel, shape.strides[stage]))
            blocks += (_ResidualBlock(after, after, kernel, (1, 1, 1)) for _ in range(_blocks(shape)[stage] - 1))
            stages.append(nn.Sequential(*blocks))
            before = after
        self.stages = nn.ModuleList(stages)

    @classmethod
    def layers(cls, shape: NetworkShape) -> Iterator[Convolution]:
        """The stem's, two per block, and the shortcut's where the channels change."""
        before = shape.channels[0]
        yield Convolution(shape.in_channels * before * math.prod(shape.kernels[0]), 0, before)
        for stage, after in enumerate(shape.channels):
            volume = math.prod(shape.kernels[stage])
            if before != after:
                yield Convolution(before * after, stage, after)
            yield Convolution(before * after * volume, stage, after)
            for _ in range(2 * _blocks(shape)[stage] - 1):
                yield Convolution(after * after * volume, stage, after)
            before = after

    @classmethod
    def maps_per_stage(cls, shape: NetworkShape) -> tuple[float, ...]:
        """By analogy with the U-Net's: the same per block, two for the stem, and the shortcut's where there is one.

        Of one training the prediction was 1.20 times the peak (``benchmarks/memory_model.py``).
        """
        before = (shape.channels[0], *shape.channels[:-1])
        beside = [2.0 * (not stage) + (before[stage] != after) for stage, after in enumerate(shape.channels)]
        return tuple(
            MAPS_OF_A_BLOCK * blocks + more + MAPS_BESIDE for blocks, more in zip(_blocks(shape), beside, strict=True)
        )


class _ResidualBlock(UnetResBlock):
    """MONAI's block, but with nnU-Net's shortcut: averaged where the stride is not 1, a convolution and a norm only
    where the channels change."""

    def __init__(self, before: int, after: int, kernel: Stride, stride: Stride) -> None:
        super().__init__(3, before, after, kernel, stride, norm_name=NORM, act_name=ACTIVATION)
        if not self.downsample:
            return
        pool = nn.AvgPool3d(stride, stride) if math.prod(stride) > 1 else nn.Identity()
        if before == after:
            self.conv3, self.norm3 = pool, nn.Identity()
        else:
            join = get_conv_layer(3, before, after, 1, 1, act=None, norm=None, conv_only=False)
            self.conv3 = nn.Sequential(pool, join)


def _blocks(shape: NetworkShape) -> tuple[int, ...]:
    return shape.blocks_per_stage or chosen_blocks(BLOCKS, len(shape.channels))
