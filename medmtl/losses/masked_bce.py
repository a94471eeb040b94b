"""Binary cross-entropy of several findings per case, each of which may be unknown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

UNKNOWN = -1.0


def masked_bce_loss(logits_BF: torch.Tensor, target_BF: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy over the findings of a sample that are known.

    Args:
        logits_BF: of any floating type; computed in fp32.
        target_BF: 0 or 1, and -1 where a finding is not known, which gives it no gradient; fp32.

    Returns:
        Loss per sample, shape (B,), fp32; 0 for a sample of which nothing is known.
    """
    known_BF = target_BF != UNKNOWN
    entropy_BF = functional.binary_cross_entropy_with_logits(
        logits_BF.float(), target_BF.clamp(min=0), reduction="none"
    )
    return torch.where(known_BF, entropy_BF, 0.0).sum(dim=1) / known_BF.sum(dim=1).clamp(min=1)


def best_constant_findings(target_NF: npt.NDArray[np.float64]) -> tuple[list[float], float]:
    """The probability of each finding that, predicted for every case, has the least loss, and that loss.

    A case of which m findings are known weighs each of them by 1 / m, so the best constant is the share of positives
    among the known, weighted likewise.

    Args:
        target_NF: as in :func:`masked_bce_loss`; every finding occurs and is absent, every case has a known one.
    """
    known_NF = target_NF != UNKNOWN
    weight_NF = known_NF / known_NF.sum(axis=1, keepdims=True)
    share_F = (weight_NF * (target_NF == 1)).sum(axis=0) / weight_NF.sum(axis=0)
    entropy_NF = -np.log(np.where(target_NF == 1, share_F, 1 - share_F))
    return [float(share) for share in share_F], float((weight_NF * entropy_NF).sum() / len(target_NF))
