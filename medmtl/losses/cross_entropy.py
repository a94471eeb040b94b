"""Cross-entropy of case-level classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional


def cross_entropy_loss(
    logits_BK: torch.Tensor, target_B: torch.Tensor, weight_K: torch.Tensor | None = None
) -> torch.Tensor:
    """``w[t] * -log softmax(z)[t]`` per sample.

    Args:
        logits_BK: of any floating type; computed in fp32.
        target_B: class indices, int64.
        weight_K: weight of each class; None means 1.

    Returns:
        Loss per sample, shape (B,), fp32. Its mean is *not* divided by the sum of the weights, so that a sample's share
        does not depend on who else is in the batch.
    """
    return functional.cross_entropy(logits_BK.float(), target_B, weight=weight_K, reduction="none")


def best_constant_distribution(counts: Sequence[int], weights: Sequence[float]) -> list[float]:
    """The class distribution that, predicted for every case, has the least weighted cross-entropy.

    It is proportional to count times weight: the class prior without weights, uniform with balanced ones.
    """
    mass_K = np.multiply(counts, weights)
    return [float(share) for share in mass_K / mass_K.sum()]


def best_constant_cross_entropy(counts: Sequence[int], weights: Sequence[float]) -> float:
    """Mean weighted cross-entropy of :func:`best_constant_distribution`; without weights the prior's entropy, in nats.

    Args:
        counts: cases per class, all above 0.
        weights: weight of each class.
    """
    mass_K = np.multiply(counts, weights)
    log_share_K = np.log(mass_K / mass_K.sum())
    return float(-(mass_K * log_share_K).sum() / np.sum(counts))
