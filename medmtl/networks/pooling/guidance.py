"""What a case head pools under the mask of a voxel task (mask-guided pooling)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from medmtl.networks.features import Guide
from medmtl.networks.pooling.base import voxels_in_a_row

FLOOR = 1e-6


def mean_under(map_BCDHW: torch.Tensor, guide_B1DHW: torch.Tensor) -> torch.Tensor:
    """The mean of each channel, weighted by a mask's probabilities, (B, C), fp32.

    ::

        sum_v (m_v + 1e-6) f_v / sum_v (m_v + 1e-6)

    with the mask's average m_v over what voxel v of the map covers. Where nothing is found, m = 0, this is the plain
    mean of the map.

    Args:
        map_BCDHW: of any floating type.
        guide_B1DHW: probabilities of the foreground, fp32, on the finest grid.
    """
    depth, height, width = map_BCDHW.shape[2:]
    weight_B1DHW = functional.adaptive_avg_pool3d(guide_B1DHW, (depth, height, width)) + FLOOR
    weight_B1N = weight_B1DHW.flatten(2)
    sum_BC = torch.bmm(weight_B1N, voxels_in_a_row(map_BCDHW.float()))[:, 0]
    return sum_BC / weight_B1N.sum(dim=2)


def extents(guides: Sequence[Guide]) -> torch.Tensor:
    """How large the labels of all guides are, one after the other: ``log(1 + voxels)``, (B, labels), fp32.

    A logarithm, because a ratio of volumes, such as an ejection fraction's, is a difference then.
    """
    return torch.cat([guide.total_BL for guide in guides], dim=1).log1p()
