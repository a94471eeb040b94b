"""The part that the methods on losses share: a weighted sum and one backward pass, and losses as numbers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch

from medmtl.weighting.base import Trained, Weighting

FLOOR = 1e-6  # a loss is 1 for the best constant predictor; below this one a head has nothing left to learn


class LossMethod(Weighting):
    """A method that weighs losses: a weighted sum of them, and one backward pass."""

    @abstractmethod
    def weigh(self, losses: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """Weights, 0 or more, of the present tasks at least."""

    def backward(
        self,
        losses: Mapping[str, torch.Tensor],
        *,
        trained: Trained,
        scale: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> Mapping[str, float]:
        """Fill gradients with the method's weights."""
        return weighted_backward(losses, self.weigh(losses), scale)


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


def read_positive(losses: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The losses as numbers, with one wait for the device; a loss below 1e-6, such as one of exactly 0, counts as 1e-6.

    A logarithm or a quotient of it is then finite. The loss itself, and so its gradient, is left as it is.
    """
    values: list[float] = torch.stack([loss.detach() for loss in losses.values()]).tolist()
    return {name: max(value, FLOOR) for name, value in zip(losses, values, strict=True)}


def softmax(logits: Mapping[str, float]) -> dict[str, float]:
    """exp(x_t) / sum_i exp(x_i), which cannot overflow; ``logits`` holds at least one."""
    largest = max(logits.values())
    powers = {name: math.exp(value - largest) for name, value in logits.items()}
    total = sum(powers.values())
    return {name: power / total for name, power in powers.items()}
