"""Likelihood of ordered grades through conditional probabilities: CORN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional


def corn_loss(logits_BT: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of each threshold a case has reached, summed per sample.

    ::

        L = sum over k <= min(y, K - 2) of BCE(z_k, [y > k]),   sigmoid(z_k) = P(y > k | y >= k)

    Shi, Cao and Raschka 2023, "Deep neural networks for rank-consistent ordinal regression based on conditional
    probabilities", https://doi.org/10.1007/s10044-023-01181-9: threshold k learns from the cases of grade k or above
    only, so that the chain's products can never contradict the order. The sum is -log P(y) of the chain. The paper
    divides the batch's sum by the number of its terms; here a sample's share does not depend on who else is in the
    batch.

    Args:
        logits_BT: K - 1 logits, of any floating type; computed in fp32.
        target_B: grades from 0, int64.

    Returns:
        Loss per sample, shape (B,), fp32.
    """
    threshold_T = torch.arange(logits_BT.shape[1], device=logits_BT.device)
    above_BT = target_B[:, None] > threshold_T
    reached_BT = target_B[:, None] >= threshold_T
    entropy_BT = functional.binary_cross_entropy_with_logits(logits_BT.float(), above_BT.float(), reduction="none")
    return (entropy_BT * reached_BT).sum(dim=1)


def chain_probabilities(logits_BT: torch.Tensor) -> torch.Tensor:
    """P(y = k) for k = 0 to K - 1 from the conditional logits, by P(y > k) = product over j <= k of sigmoid(z_j).

    Args:
        logits_BT: K - 1 logits.

    Returns:
        (B, K), fp32.
    """
    log_above_BT = functional.logsigmoid(logits_BT.float()).cumsum(dim=1)
    above_BK = functional.pad(log_above_BT.exp(), (1, 0), value=1.0)
    stop_BK = functional.pad(torch.sigmoid(-logits_BT.float()), (0, 1), value=1.0)
    return above_BK * stop_BK


def best_constant_chain(counts: Sequence[int]) -> list[float]:
    """The K - 1 conditional logits whose chain gives each grade its share.

    Args:
        counts: cases per grade, all above 0.
    """
    count_K = np.asarray(counts, dtype=np.float64)
    above_K = count_K[::-1].cumsum()[::-1] - count_K
    return [float(logit) for logit in np.log(above_K[:-1] / count_K[:-1])]
