"""From the features of a case's tiles to those of the case."""

from __future__ import annotations

import torch
from torch import nn

GATES = 32
INITIAL_WEIGHT = 1e-3


class BagAttention(nn.Module):
    """The mean of a bag under weights that each member's own features decide; at first all alike.

    ::

        a_t = softmax over t of  w . (tanh(V s_t) * sigmoid(U s_t)),    s = sum_t a_t s_t

    Ilse et al. 2018, https://arxiv.org/abs/1802.04712.

    Args:
        width: number of features s.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.content = nn.Linear(width, GATES)
        self.gate = nn.Linear(width, GATES)
        self.weight = nn.Linear(GATES, 1)
        nn.init.normal_(self.weight.weight, std=INITIAL_WEIGHT)

    def forward(self, bag_BTF: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> (B, F)."""
        gated = torch.tanh(self.content(bag_BTF)) * torch.sigmoid(self.gate(bag_BTF))
        share_BT1 = self.weight(gated).softmax(dim=1)
        pooled_BF: torch.Tensor = (share_BT1 * bag_BTF).sum(dim=1)
        return pooled_BF
