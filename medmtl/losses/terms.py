"""What segmentation losses are made of: sums of probabilities per channel, and the mean entropy of the voxels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

FOCAL_GAMMA = 2.0  # the best of the paper's table 1b


@dataclass(frozen=True)
class Terms:
    """Sums over the voxels that count, per sample and channel.

    Attributes:
        overlap_BC: I = sum_v p y, fp32.
        predicted_BC: P = sum_v p, fp32.
        reference_BC: Y = sum_v y.
        entropy_B: mean cross-entropy of the voxels (and regions), focal where asked for; 0 where no voxel counts.
        known_BC: bool; channels that somebody annotated in a sample. None where all are.
    """

    overlap_BC: torch.Tensor
    predicted_BC: torch.Tensor
    reference_BC: torch.Tensor
    entropy_B: torch.Tensor
    known_BC: torch.Tensor | None = None


def label_terms(
    logits_BKDHW: torch.Tensor,
    target_BDHW: torch.Tensor,
    counted_BDHW: torch.Tensor | None = None,
    gamma: float = 0.0,
    hidden_BC: torch.Tensor | None = None,
) -> Terms:
    """For labels that exclude each other: softmax, channels are the classes but the background.

    ::

        entropy_b = mean_v [-(1 - p_bv)^gamma log p_bv],   p_bv = softmax(z_bv)_{t_bv}

    No one-hot target is made: the overlap needs only each voxel's probability of its own class.

    Where nobody looked for some labels, their voxels hide in the background: there ``p`` is the sum of the
    probabilities of the background and of these labels, whose channels do not count. That is the marginal loss of Shi
    et al. 2021 (https://doi.org/10.1016/j.media.2021.101979), a label-set loss in the sense of Fidon et al. 2021
    (https://arxiv.org/abs/2107.03846).

    Args:
        logits_BKDHW: of any floating type; class 0 is the background, K >= 2. Computed in fp32.
        target_BDHW: class indices 0 to K - 1, an integer type; any valid index where a voxel does not count.
        counted_BDHW: bool; voxels that are False enter neither the sums nor the mean. None counts all.
        gamma: of the focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002), without its class weight; 0 is
            cross-entropy.
        hidden_BC: bool; classes 1 to K - 1 that nobody looked for in a sample, of which its target holds none. None
            where all were annotated.
    """
    classes = logits_BKDHW.shape[1]
    target_BV = target_BDHW.flatten(1)
    log_probability_BKV = functional.log_softmax(logits_BKDHW.float().flatten(2), dim=1)
    log_likelihood_BV = log_probability_BKV.gather(1, target_BV[:, None].long())[:, 0]
    if hidden_BC is not None:
        apart_BK = functional.pad(~hidden_BC, (1, 0), value=False)
        background_BV = log_probability_BKV.masked_fill(apart_BK[:, :, None], -torch.inf).logsumexp(dim=1)
        log_likelihood_BV = torch.where(target_BV == 0, background_BV, log_likelihood_BV)
    likelihood_BV = log_likelihood_BV.exp()
    entropy_BV = -_focal(log_likelihood_BV, likelihood_BV, gamma)
    # Class by class, because a scatter is not deterministic on a GPU.
    members = [target_BV == index for index in range(1, classes)]
    probability_BCV = log_probability_BKV[:, 1:].exp()
    if counted_BDHW is not None:
        counted_BV = counted_BDHW.flatten(1)
        members = [member_BV & counted_BV for member_BV in members]
        probability_BCV = probability_BCV * counted_BV[:, None]
        entropy_B = _mean(entropy_BV, counted_BV)
    else:
        entropy_B = entropy_BV.mean(dim=1)
    return Terms(
        overlap_BC=torch.stack([(likelihood_BV * member_BV).sum(dim=1) for member_BV in members], dim=1),
        predicted_BC=probability_BCV.sum(dim=2),
        reference_BC=torch.stack([member_BV.sum(dim=1) for member_BV in members], dim=1),
        entropy_B=entropy_B,
        known_BC=None if hidden_BC is None else ~hidden_BC,
    )


def region_terms(
    logits_BRDHW: torch.Tensor,
    target_BDHW: torch.Tensor,
    membership_KR: torch.Tensor,
    counted_BDHW: torch.Tensor | None = None,
    gamma: float = 0.0,
    hidden_BR: torch.Tensor | None = None,
) -> Terms:
    """For regions that may overlap: one sigmoid per region, channels are the regions.

    ::

        entropy_b = mean_rv [-(1 - q_brv)^gamma log q_brv],   q = p where y, 1 - p elsewhere,   p = sigmoid(z)

    What nnU-Net does for region-based training (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z).

    Args:
        logits_BRDHW: one channel per region, of any floating type. Computed in fp32.
        target_BDHW: class indices 0 to K - 1, an integer type; any valid index where a voxel does not count.
        membership_KR: bool; whether class k belongs to region r.
        counted_BDHW, gamma: as in :func:`label_terms`.
        hidden_BR: bool; regions that are not known in a sample, because nobody looked for one of their labels. They
            enter nothing. None where all are known.
    """
    logits_BRV = logits_BRDHW.float().flatten(2)
    member_BRV = membership_KR.float()[target_BDHW.flatten(1).long()].movedim(2, 1)
    entropy_BRV = functional.binary_cross_entropy_with_logits(logits_BRV, member_BRV, reduction="none")
    if gamma:
        entropy_BRV = -_focal(-entropy_BRV, (-entropy_BRV).exp(), gamma)
    probability_BRV = logits_BRV.sigmoid()
    known_BR = None if hidden_BR is None else ~hidden_BR
    entropy_BV = channel_mean(entropy_BRV, known_BR)
    if counted_BDHW is not None:
        counted_BV = counted_BDHW.flatten(1)
        member_BRV, probability_BRV = member_BRV * counted_BV[:, None], probability_BRV * counted_BV[:, None]
        entropy_B = _mean(entropy_BV, counted_BV)
    else:
        entropy_B = entropy_BV.mean(dim=1)
    return Terms(
        overlap_BC=(probability_BRV * member_BRV).sum(dim=2),
        predicted_BC=probability_BRV.sum(dim=2),
        reference_BC=member_BRV.sum(dim=2),
        entropy_B=entropy_B,
        known_BC=known_BR,
    )


def channel_mean(value: torch.Tensor, known_BC: torch.Tensor | None) -> torch.Tensor:
    """Mean over the channels that are known; 0 for a sample of which none is.

    Args:
        value: (B, C) or (B, C, V), finite.
        known_BC: as in :class:`Terms`.

    Returns:
        (B,) or (B, V).
    """
    if known_BC is None:
        return value.mean(dim=1)
    known = known_BC.reshape(*known_BC.shape, *(1,) * (value.ndim - 2))
    return (value * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def _focal(log_likelihood: torch.Tensor, likelihood: torch.Tensor, gamma: float) -> torch.Tensor:
    """The log-likelihood, less where the answer is right already."""
    # clamped, because rounding puts a likelihood above 1, of which a power with a fraction would be NaN
    return (1 - likelihood).clamp(min=0) ** gamma * log_likelihood if gamma else log_likelihood


def _mean(value_BV: torch.Tensor, counted_BV: torch.Tensor) -> torch.Tensor:
    """Mean over the voxels that count; 0 where none does."""
    return (value_BV * counted_BV).sum(dim=1) / counted_BV.sum(dim=1).clamp(min=1)
