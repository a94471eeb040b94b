"""The part that every method on losses shares: a weighted sum, and one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch


def weighted_backward(
    losses: Mapping[str, torch.Tensor],
    weights: Mapping[str, float],
    scale: Callable[[torch.Tensor], torch.Tensor],
) -> dict[str, float]:
    """Backward through sum_t w_t L_t over the present tasks; a task of weight 0 gets no gradient at all.

    Weights are not rescaled when tasks are absent: a step with fewer labels is a smaller step, not a larger one for
    those that happen to be there.
    """
    used = {name: weights[name] for name in losses if weights[name] > 0}
    terms = [losses[name] * weight for name, weight in used.items()]
    if terms:
        scale(torch.stack(terms).sum()).backward()  # type: ignore[no-untyped-call]
    return used
