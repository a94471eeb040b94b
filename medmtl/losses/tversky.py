"""The Tversky loss: Dice with separate prices for what is missed and what is false."""

from __future__ import annotations

import torch

from medmtl.losses.dice import SMOOTHING
from medmtl.losses.terms import Terms, channel_mean


def tversky_loss(terms: Terms, beta: float) -> torch.Tensor:
    """1 minus the soft Tversky index, averaged over channels, per sample.

    ::

        loss_b = mean_c [1 - (I_bc + s) / (I_bc + alpha (P_bc - I_bc) + beta (Y_bc - I_bc) + s)],   alpha = 1 - beta

    P - I is what is false, Y - I what is missed, and s = 1/2 voxel, so that beta = 1/2 is
    :func:`medmtl.losses.dice.soft_dice_loss`. Salehi et al. 2017, https://arxiv.org/abs/1706.05721, who train with it
    alone and find beta = 0.7 best for small lesions. Unlike theirs alpha and beta always sum to 1, as in their
    experiments, and the background is no channel.

    Args:
        terms: of :mod:`medmtl.losses.terms`.
        beta: price of a missed voxel, in 0 to 1.

    Returns:
        Loss per sample, shape (B,), fp32, in 0 to 1.
    """
    false_BC, missed_BC = terms.predicted_BC - terms.overlap_BC, terms.reference_BC - terms.overlap_BC
    smoothed_BC = terms.overlap_BC + SMOOTHING / 2
    index_BC = smoothed_BC / (smoothed_BC + (1 - beta) * false_BC + beta * missed_BC)
    return channel_mean(1 - index_BC, terms.known_BC)
