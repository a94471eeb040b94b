"""Soft Dice from sums over voxels, alone and with cross-entropy."""

from __future__ import annotations

import torch

from medmtl.losses.terms import Terms, channel_mean

SMOOTHING = 1.0  # voxels


def soft_dice_loss(
    overlap_BC: torch.Tensor,
    predicted_BC: torch.Tensor,
    reference_BC: torch.Tensor,
    known_BC: torch.Tensor | None = None,
) -> torch.Tensor:
    """1 minus soft Dice, averaged over channels, per sample.

    ::

        loss_b = mean_c [1 - (2 I_bc + s) / (P_bc + Y_bc + s)],   I = sum_v p y,  P = sum_v p,  Y = sum_v y,  s = 1

    Dice is taken per sample, not over the batch, and the smoothing stands in numerator and denominator, as in MONAI's
    ``DiceLoss(smooth_nr=1, smooth_dr=1)`` (Milletari et al. 2016, https://arxiv.org/abs/1606.04797; Drozdzal et al.
    2016, https://arxiv.org/abs/1608.04117).

    A channel whose reference is empty costs P / (P + s). With the usual s = 1e-5 that is 1 whatever is predicted, and
    has no gradient: nothing but cross-entropy empties a lesion-free case, and specks remain, each of which is a false
    lesion. One voxel of smoothing gives such specks a gradient of s / (P + s)^2 and changes nothing for structures of
    visible size.

    Args:
        overlap_BC: I, fp32.
        predicted_BC: P, fp32.
        reference_BC: Y.
        known_BC: bool; channels that enter a sample's average. None averages all.

    Returns:
        Loss per sample, shape (B,), in 0 to 1.
    """
    dice_BC = (2 * overlap_BC + SMOOTHING) / (predicted_BC + reference_BC + SMOOTHING)
    return channel_mean(1 - dice_BC, known_BC)


def dice_entropy_loss(terms: Terms) -> torch.Tensor:
    """Soft Dice plus the mean entropy of the voxels, per sample.

    Both terms have weight 1, as in nnU-Net (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z). See
    :func:`soft_dice_loss` for the smoothing and for channels that a sample does not hold.

    Args:
        terms: of :mod:`medmtl.losses.terms`, with cross-entropy or the focal loss as their entropy.

    Returns:
        Loss per sample, shape (B,), fp32.
    """
    dice_B = soft_dice_loss(terms.overlap_BC, terms.predicted_BC, terms.reference_BC, terms.known_BC)
    return dice_B + terms.entropy_B
