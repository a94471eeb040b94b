"""The part that methods with one learned number per task share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from medmtl.weighting.base import Trained, Weighting, WeightingOptions


class LearnedScale(Weighting):
    """L = sum_t (f(s_t) L_t + p(s_t)) over the tasks present in the step, with s_t learned beside the network, from 0.

    The optimiser steps s_t at ``training.head_lr`` without decay. An absent task's s_t has no gradient, so that neither
    it nor its moments change. A loss that stays at or below 0 would send s_t to infinity.
    """

    positive_losses = True

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        for name in tasks:
            # not a ParameterDict, which refuses a task called like an attribute of a module, such as ``type``
            self.register_parameter(f"log_scale_{name}", nn.Parameter(torch.zeros(())))

    @abstractmethod
    def terms(self, log_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """f(s), the weight of a loss, and p(s), what keeps it from going to 0; both scalars."""

    def backward(
        self,
        losses: Mapping[str, torch.Tensor],
        *,
        trained: Trained,
        scale: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> Mapping[str, float]:
        """Fill gradients, those of the present tasks' s_t too; the weights are f(s_t)."""
        factors, sums = [], []
        for name, loss in losses.items():
            factor, price = self.terms(self.get_parameter(f"log_scale_{name}"))
            factors.append(factor.detach())
            sums.append(factor * loss + price)
        scale(torch.stack(sums).sum()).backward()  # type: ignore[no-untyped-call]
        return dict(zip(losses, torch.stack(factors).tolist(), strict=True))
