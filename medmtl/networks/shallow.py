"""Convolutions of shallow maps on a CPU, whose gradient torch gets wrong in bfloat16."""

from __future__ import annotations

import torch
from torch import nn


class ShallowConv3d(nn.Conv3d):
    """The same numbers as :class:`torch.nn.Conv3d`, also where a bfloat16 map on a CPU is shallower than the kernel.

    There the gradient of the weights is made of memory that nothing was written to: found with torch 2.13 for maps of
    two slices under a kernel of three, in every format and at every width and height; other axes and fp32 are right.
    So these maps, small ones, are convolved in fp32.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # torch's name for it
        """(B, C, D, H, W) -> (B, C', D', H', W'), of the type that autocast asks for."""
        if input.device.type != "cpu" or not 1 < input.shape[2] < self.kernel_size[0]:
            return super().forward(input)
        wanted = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        # torch returns a few slices contiguous, and every layer behind them would reorder what it gets
        given = torch.channels_last_3d if input.is_contiguous(memory_format=torch.channels_last_3d) else None
        with torch.autocast("cpu", enabled=False):
            found = super().forward(input.to(self.weight.dtype))
        return found.to(wanted, memory_format=given or torch.preserve_format)


def with_right_gradients(network: nn.Module) -> None:
    """Make every 3D convolution of a network a :class:`ShallowConv3d`; parameters and their names stay as they are."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = ShallowConv3d
