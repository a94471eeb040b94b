"""The focal loss of case-level classes, and the constant answer that has the least of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import brentq
from torch.nn import functional

SMALLEST = 1e-12


def focal_loss(
    logits_BK: torch.Tensor, target_B: torch.Tensor, gamma: float, weight_K: torch.Tensor | None = None
) -> torch.Tensor:
    """``w[t] * (1 - p)^gamma * -log p`` per sample, where p is the softmax probability of its class t.

    Cross-entropy that dwells on the cases which are still wrong; at ``gamma`` 0 it is cross-entropy (Lin et al. 2017,
    https://arxiv.org/abs/1708.02002).

    Args:
        logits_BK: of any floating type; computed in fp32.
        target_B: class indices, int64.
        gamma: 0 or more.
        weight_K: weight of each class; None means 1.

    Returns:
        Loss per sample, shape (B,), fp32; as in :func:`medmtl.losses.cross_entropy.cross_entropy_loss` not divided by
        the sum of the weights.
    """
    log_likelihood_B = functional.log_softmax(logits_BK.float(), dim=1).gather(1, target_B[:, None])[:, 0]
    # clamped, because the power of an exact 0 has no finite slope where gamma is below 1
    wrong_B = (-torch.expm1(log_likelihood_B)).clamp(min=SMALLEST)
    loss_B = -(wrong_B**gamma) * log_likelihood_B
    return loss_B if weight_K is None else weight_K[target_B] * loss_B


def best_constant_focal(counts: Sequence[int], weights: Sequence[float], gamma: float) -> tuple[list[float], float]:
    """The class distribution that, predicted for every case, has the least weighted focal loss, and that loss.

    ::

        minimise sum_k m_k f(p_k) / n  over  sum_k p_k = 1,   f(p) = -(1 - p)^gamma log p,   m_k = n_k w_k

    f is convex and falls, so that in the minimum every ``-m_k f'(p_k)`` is one number, for which the sum is 1.

    Args:
        counts: cases per class, all above 0.
        weights: weight of each class.
        gamma: 0 or more; at 0 the result is that of cross-entropy.
    """
    mass_K = np.multiply(counts, weights, dtype=np.float64)

    def fall(p: float) -> float:
        return float((1 - p) ** gamma / p - gamma * (1 - p) ** (gamma - 1) * np.log(p))

    def share(mass: float, level: float) -> float:
        # at gamma 0 f falls by 1 or more everywhere
        least, most = SMALLEST, 1 - SMALLEST
        return most if fall(most) >= level / mass else float(brentq(lambda p: fall(p) - level / mass, least, most))

    def shares(level: float) -> list[float]:
        return [share(mass, level) for mass in mass_K.tolist()]

    even = fall(1 / len(mass_K))
    # at the lower end every class has an even share or more, at the upper one or less
    low, high = mass_K.min() * even * (1 - 1e-6), mass_K.max() * even * (1 + 1e-6)
    share_K = np.array(shares(brentq(lambda level: sum(shares(level)) - 1, low, high, xtol=1e-14, rtol=1e-14)))
    share_K /= share_K.sum()
    loss = float((mass_K * (1 - share_K) ** gamma * -np.log(share_K)).sum() / np.sum(counts))
    return [float(share) for share in share_K], loss
