"""Dice and binary cross-entropy for regions that may overlap."""

from __future__ import annotations

import torch
from torch.nn import functional

from medmtl.losses.dice import soft_dice_loss


def dice_bce_loss(logits_BRDHW: torch.Tensor, target_BDHW: torch.Tensor, membership_KR: torch.Tensor) -> torch.Tensor:
    """Soft Dice over the regions plus the mean binary cross-entropy of all voxels and regions, per sample.

    ::

        loss_b = soft_dice_b(sigmoid(z)) + mean_rv [-y log sigmoid(z) - (1 - y) log(1 - sigmoid(z))]

    What nnU-Net does for region-based training. See :func:`medmtl.losses.dice.soft_dice_loss` for the smoothing and for
    regions that a sample does not hold.

    Args:
        logits_BRDHW: one channel per region, of any floating type. Computed in fp32.
        target_BDHW: class indices 0 to K - 1, an integer type.
        membership_KR: bool; whether class k belongs to region r.

    Returns:
        Loss per sample, shape (B,), fp32.
    """
    logits_BRV = logits_BRDHW.float().flatten(2)
    member_BRV = membership_KR.float()[target_BDHW.flatten(1).long()].movedim(2, 1)
    entropy_BRV = functional.binary_cross_entropy_with_logits(logits_BRV, member_BRV, reduction="none")
    probability_BRV = logits_BRV.sigmoid()
    dice_B = soft_dice_loss(
        (probability_BRV * member_BRV).sum(dim=2), probability_BRV.sum(dim=2), member_BRV.sum(dim=2)
    )
    return dice_B + entropy_BRV.mean(dim=(1, 2))
