"""The decoder of a 3D U-Net: from the deepest map back to the finest, with a skip connection at each stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks.dynunet_block import UnetUpBlock
from torch import nn

from medmtl.networks.norm import ACTIVATION, NORM
from medmtl.networks.shape import NetworkShape


class UnetDecoder(nn.Module):
    """Encoder maps -> decoder maps of the finest ``shape.levels`` stages, finest first.

    A transposed convolution doubles each map, the encoder's map of that size is put beside it, and two convolutions
    join them, as in nnU-Net. Where as many levels are asked for as there are stages, the last is the encoder's
    deepest map.

    Args:
        shape: measurements of the network.
    """

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
                norm_name=NORM,
                act_name=ACTIVATION,
            )
            for stage in range(len(shape.channels) - 1)
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Decoder maps; level i is (B, channels[i], D, H, W) / cumulative stride i."""
        decoded = [maps[-1]]
        for stage, skip in zip(reversed(self.stages), reversed(maps[:-1]), strict=True):
            decoded.insert(0, stage(decoded[0], skip))
        return tuple(decoded[: self.levels])
