"""The encoder of SegResNet: pre-activation residual blocks with group norm.

Myronenko 2018, https://arxiv.org/abs/1810.11654. MONAI's encoder of that name has the same stride on every axis, or a
kernel that follows from the stride; so this one is built of its blocks, with the planned strides and kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from monai.networks.nets.segresnet_ds import SegResBlock
from torch import nn

from medmtl.networks.encoder import Blocks, Convolution, Encoder, EncoderOptions, chosen_blocks
from medmtl.networks.features import Stride
from medmtl.networks.norm import GROUP_NORM
from medmtl.networks.shape import NetworkShape

BLOCKS = (1, 2, 2, 4)
GROUPS = 8
MAPS_OF_A_BLOCK = 4.0  # each of two norms and each of two convolutions
MAPS_BESIDE = 1.5  # the first convolution's, and what the backward pass adds; as for the U-Net


class SegresnetOptions(EncoderOptions):
    """Options of the encoder of SegResNet.

    Attributes:
        blocks_per_stage: residual blocks of each stage, finest first; the last number stands for all deeper stages,
            and numbers beyond the planned stages are not used. None takes the paper's 1, 2, 2, 4.
    """

    blocks_per_stage: Blocks | None = None

    def measured(self, shape: NetworkShape) -> NetworkShape:
        """Planned measurements, completed by what these options decide."""
        blocks = chosen_blocks(self.blocks_per_stage or BLOCKS, len(shape.channels))
        return replace(super().measured(shape), blocks_per_stage=blocks)


class SegresnetEncoder(Encoder):
    """A convolution per stage, then residual blocks that normalise first, by groups of channels (SegResNet).

    Maps are sums, neither normalised nor rectified. Norms have 8 groups, or where 8 does not divide the channels the
    largest common divisor.

    Args:
        shape: measurements of the network.
    """

    kind = "segresnet"
    Options = SegresnetOptions

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__(shape)
        stages: list[nn.Module] = []
        before = shape.in_channels
        for after, kernel, stride, count in zip(
            shape.channels, shape.kernels, shape.strides, _blocks(shape), strict=True
        ):
            blocks = (_residual_block(after, kernel) for _ in range(count))
            padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
            stages.append(nn.Sequential(nn.Conv3d(before, after, kernel, stride, padding, bias=False), *blocks))
            before = after
        self.stages = nn.ModuleList(stages)

    @classmethod
    def layers(cls, shape: NetworkShape) -> Iterator[Convolution]:
        """One per stage, and two per block."""
        before = shape.in_channels
        for stage, (after, kernel, count) in enumerate(zip(shape.channels, shape.kernels, _blocks(shape), strict=True)):
            yield Convolution(before * after * math.prod(kernel), stage, 0)
            for _ in range(2 * count):
                yield Convolution(after * after * math.prod(kernel), stage, after)
            before = after

    @classmethod
    def maps_per_stage(cls, shape: NetworkShape) -> tuple[float, ...]:
        """By analogy with the U-Net's: the same per block.

        Of one training the prediction was 1.25 times the peak (``benchmarks/memory_model.py``).
        """
        return tuple(MAPS_OF_A_BLOCK * count + MAPS_BESIDE for count in _blocks(shape))


def _residual_block(channels: int, kernel: Stride) -> SegResBlock:
    return SegResBlock(
        3, channels, (GROUP_NORM, {"groups": GROUPS}), kernel_size=kernel, act=("relu", {"inplace": True})
    )


def _blocks(shape: NetworkShape) -> tuple[int, ...]:
    return shape.blocks_per_stage or chosen_blocks(BLOCKS, len(shape.channels))
