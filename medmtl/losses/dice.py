"""Soft Dice from sums over voxels: what both segmentation losses have in common."""

from __future__ import annotations

import torch

SMOOTHING = 1e-5


def soft_dice_loss(overlap_BC: torch.Tensor, predicted_BC: torch.Tensor, reference_BC: torch.Tensor) -> torch.Tensor:
    """1 minus soft Dice, averaged over channels, per sample.

    ::

        loss_b = mean_c [1 - (2 I_bc + s) / (P_bc + Y_bc + s)],   I = sum_v p y,  P = sum_v p,  Y = sum_v y,  s = 1e-5

    Dice is taken per sample, not over the batch, and the smoothing stands in numerator and denominator, as in MONAI's
    ``DiceLoss(smooth_nr=1e-5, smooth_dr=1e-5)`` and nnU-Net's ``MemoryEfficientSoftDiceLoss`` (Milletari et al. 2016,
    https://arxiv.org/abs/1606.04797; Drozdzal et al. 2016, https://arxiv.org/abs/1608.04117).

    A channel whose reference is empty costs P / (P + s): about 1 whatever is predicted, with next to no gradient until
    the predicted volume is of the order of s. Cross-entropy, which stands beside it, is what empties such a channel.

    Args:
        overlap_BC: I, fp32.
        predicted_BC: P, fp32.
        reference_BC: Y.

    Returns:
        Loss per sample, shape (B,), in 0 to 1.
    """
    dice_BC = (2 * overlap_BC + SMOOTHING) / (predicted_BC + reference_BC + SMOOTHING)
    return (1 - dice_BC).mean(dim=1)
