"""A weighted mean over voxels, whose weights are learned (gated attention).

Ilse, Tomczak and Welling 2018, https://arxiv.org/abs/1802.04712, equation 9, with voxels in place of instances.
"""

from __future__ import annotations

import torch
from torch import nn

from medmtl.networks.pooling.base import Pooling, voxels_in_a_row

HIDDEN = 16


class GatedAttention(Pooling):
    """``sum_v a_v f_v`` with ``a = softmax_v(w . (tanh(V f_v) * sigmoid(U f_v)))``; V, U and w of each map's own.

    The hidden layer has 16 units: a head has tens to hundreds of cases to learn it from.

    Args:
        channels: of the map.
    """

    kind = "attention"

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.content = nn.Linear(channels, HIDDEN)
        self.gate = nn.Linear(channels, HIDDEN)
        # without a bias, which a softmax does not see
        self.score = nn.Linear(HIDDEN, 1, bias=False)

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, C)."""
        voxels_BNC = voxels_in_a_row(map_BCDHW.float())
        return torch.einsum("bn,bnc->bc", self._weights(voxels_BNC), voxels_BNC)

    def weights(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """The weight of each voxel, (B, D, H, W); those of a sample sum to 1."""
        return self._weights(voxels_in_a_row(map_BCDHW.float())).reshape(len(map_BCDHW), *map_BCDHW.shape[2:])

    def _weights(self, voxels_BNC: torch.Tensor) -> torch.Tensor:
        hidden_BNH = self.content(voxels_BNC).tanh() * self.gate(voxels_BNC).sigmoid()
        weight_BN: torch.Tensor = self.score(hidden_BNH)[..., 0].softmax(dim=1)
        return weight_BN
