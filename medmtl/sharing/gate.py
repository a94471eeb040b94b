"""Mixing the maps of several encoders by numbers that depend on the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medmtl.sharing.decoders import Maps


class Gate(nn.Module):
    """One task's weights of its experts, per sample, and their mixed maps::

        y_s = sum_e g_e x_es,    g = softmax(W p + b) over the experts,

    with p the means over all voxels of the experts' deepest maps: a fixed number of features for any size of image.
    They are detached, so that experts learn from what they contribute and not from being chosen. At first all weights
    are equal.

    Args:
        channels: of an expert's deepest map.
        experts: how many there are.
    """

    def __init__(self, channels: int, experts: int) -> None:
        super().__init__()
        self.linear = nn.utils.skip_init(nn.Linear, channels * experts, experts)  # type: ignore[no-untyped-call]
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def weights(self, experts: Sequence[Maps]) -> torch.Tensor:
        """(B, experts) in fp32, also under autocast; each row sums to 1.

        Args:
            experts: maps of each expert, finest first.
        """
        pooled_BF = torch.cat([maps[-1].detach().float().mean((2, 3, 4)) for maps in experts], 1)
        with torch.autocast(pooled_BF.device.type, enabled=False):
            logits: torch.Tensor = self.linear(pooled_BF)
            return logits.softmax(1)

    def forward(self, experts: Sequence[Maps]) -> Maps:
        """The mixed maps, finest first; arguments as of :meth:`weights`."""
        weights_BE = self.weights(experts)
        mixed = []
        for level in zip(*experts, strict=True):
            shares = weights_BE.to(level[0].dtype).view(*weights_BE.shape, 1, 1, 1, 1).unbind(1)
            mixed.append(
                sum(share * one for share, one in zip(shares[1:], level[1:], strict=True)) + shares[0] * level[0]
            )
        return tuple(mixed)
