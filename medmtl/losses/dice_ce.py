"""Dice and cross-entropy for labels that exclude each other."""

from __future__ import annotations

import torch
from torch.nn import functional

from medmtl.losses.dice import soft_dice_loss


def dice_ce_loss(logits_BKDHW: torch.Tensor, target_BDHW: torch.Tensor) -> torch.Tensor:
    """Soft Dice over the foreground classes plus the mean cross-entropy of all voxels, per sample.

    ::

        loss_b = soft_dice_b(softmax(z)_1..K-1) + mean_v [-log softmax(z_bv)_{t_bv}]

    Both terms have weight 1, as in nnU-Net (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z). See
    :func:`medmtl.losses.dice.soft_dice_loss` for its smoothing and for classes that a sample does not hold. No one-hot
    target is made: the overlap needs only each voxel's probability of its own class.

    Args:
        logits_BKDHW: of any floating type; class 0 is the background, K >= 2. Computed in fp32.
        target_BDHW: class indices 0 to K - 1, an integer type.

    Returns:
        Loss per sample, shape (B,), fp32.
    """
    classes = logits_BKDHW.shape[1]
    target_BV = target_BDHW.flatten(1)
    log_probability_BKV = functional.log_softmax(logits_BKDHW.float().flatten(2), dim=1)
    log_likelihood_BV = log_probability_BKV.gather(1, target_BV[:, None].long())[:, 0]
    likelihood_BV = log_likelihood_BV.exp()
    predicted_BK = log_probability_BKV.exp().sum(dim=2)
    # Class by class, because a scatter is not deterministic on a GPU.
    members = [target_BV == index for index in range(1, classes)]
    overlap = torch.stack([(likelihood_BV * member_BV).sum(dim=1) for member_BV in members], dim=1)
    reference = torch.stack([member_BV.sum(dim=1) for member_BV in members], dim=1)
    return soft_dice_loss(overlap, predicted_BK[:, 1:], reference) - log_likelihood_BV.mean(dim=1)
