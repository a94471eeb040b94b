"""A loss per voxel at every resolution of the decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

VoxelLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def deep_supervision(loss: VoxelLoss, outputs: Sequence[torch.Tensor], target_BDHW: torch.Tensor) -> torch.Tensor:
    """The loss of each level, weighted 1, 1/2, 1/4, ... and divided by the sum of the weights.

    Deeply supervised nets (Lee et al. 2015, https://arxiv.org/abs/1409.5185), with nnU-Net's halving weights; unlike
    nnU-Net the coarsest level counts too. The target of a coarser level takes every stride-th voxel: the one that lies
    under the centre of the strided convolutions which made that level.

    Args:
        loss: of outputs (B, C, D, H, W) and a target (B, D, H, W), per sample: shape (B,), fp32.
        outputs: of the head, finest first, each a whole fraction of the target's shape.
        target_BDHW: class indices, or numbers, at full resolution; they are picked, never averaged.

    Returns:
        Loss per sample, shape (B,), fp32.

    Raises:
        ValueError: if the target's shape is no multiple of a level's.
    """
    weights = [0.5**level for level in range(len(outputs))]
    terms = [
        weight * loss(level_BCDHW, _nearest(target_BDHW, level_BCDHW.shape[2:]))
        for weight, level_BCDHW in zip(weights, outputs, strict=True)
    ]
    return torch.stack(terms).sum(dim=0) / sum(weights)


def _nearest(target_BDHW: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    full = target_BDHW.shape[1:]
    if any(fine % coarse for fine, coarse in zip(full, shape, strict=True)):
        raise ValueError(f"a target of {tuple(full)} voxels cannot be reduced to {tuple(shape)} by whole strides")
    d, h, w = (fine // coarse for fine, coarse in zip(full, shape, strict=True))
    return target_BDHW[:, ::d, ::h, ::w]
