"""Cross-entropy of case-level classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional


def cross_entropy_loss(
    logits_BK: torch.Tensor, target_B: torch.Tensor, weight_K: torch.Tensor | None = None, smoothing: float = 0.0
) -> torch.Tensor:
    """``w[t] * sum_k -y_k log softmax(z)_k`` per sample, where y is 1 for its class t and 0 for the others.

    With label smoothing e (Szegedy et al. 2016, https://doi.org/10.1109/CVPR.2016.308) y is ``1 - e + e / K`` for its
    class and ``e / K`` for the others. A weight is that of the sample. torch instead weighs every ``-log`` by its own
    class: with balanced weights that would ask of a case of the frequent class a large probability of the rare one.

    Args:
        logits_BK: of any floating type; computed in fp32.
        target_B: class indices, int64.
        weight_K: weight of each class; None means 1.
        smoothing: e, at least 0 and below 1.

    Returns:
        Loss per sample, shape (B,), fp32. Its mean is *not* divided by the sum of the weights, so that a sample's share
        does not depend on who else is in the batch.
    """
    loss_B = functional.cross_entropy(logits_BK.float(), target_B, reduction="none", label_smoothing=smoothing)
    return loss_B if weight_K is None else weight_K[target_B] * loss_B


def best_constant_distribution(counts: Sequence[int], weights: Sequence[float], smoothing: float = 0.0) -> list[float]:
    """The class distribution that, predicted for every case, has the least weighted cross-entropy.

    It is proportional to count times weight: the class prior without weights, uniform with balanced ones. Smoothing
    brings it nearer to the uniform one.
    """
    mass_K = _mass(counts, weights, smoothing)
    return [float(share) for share in mass_K / mass_K.sum()]


def best_constant_cross_entropy(counts: Sequence[int], weights: Sequence[float], smoothing: float = 0.0) -> float:
    """Mean weighted cross-entropy of :func:`best_constant_distribution`; without weights the prior's entropy, in nats.

    Args:
        counts: cases per class, all above 0.
        weights: weight of each class.
        smoothing: as in :func:`cross_entropy_loss`.
    """
    mass_K = _mass(counts, weights, smoothing)
    log_share_K = np.log(mass_K / mass_K.sum())
    return float(-(mass_K * log_share_K).sum() / np.sum(counts))


def _mass(counts: Sequence[int], weights: Sequence[float], smoothing: float) -> npt.NDArray[np.float64]:
    """What each class's ``-log`` weighs over all cases."""
    mass_K = np.multiply(counts, weights, dtype=np.float64)
    smoothed_K: npt.NDArray[np.float64] = (1 - smoothing) * mass_K + smoothing * mass_K.mean()
    return smoothed_K
