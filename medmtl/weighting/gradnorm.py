"""GradNorm: weights that learn to give slow tasks larger gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from medmtl.weighting.base import WeightingOptions, same_tasks
from medmtl.weighting.jacobian import Array, GradientOptions, GramMethod

LEAST = 1e-3  # a weight of 0 would never come back


class GradnormOptions(GradientOptions):
    """Options of GradNorm.

    Attributes:
        gradient: where the norms are taken: ``last_stage``, as in the paper, or all ``shared`` parameters.
        alpha: how much larger the gradient of a task is to be that learns more slowly; 0 makes all alike.
        lr: step of the weights.
    """

    gradient: Literal["shared", "last_stage"] = "last_stage"
    alpha: Annotated[float, Field(ge=0, le=10)] = 1.5
    lr: Annotated[float, Field(gt=0, le=1)] = 0.025


class Gradnorm(GramMethod):
    """w_t descends sum_t |w_t ||g_t|| - mean_s(w_s ||g_s||) r_t ^ alpha|, r_t = (L_t / L_t(0)) / mean_s(L_s / L_s(0)).

    Chen et al. 2018, https://arxiv.org/abs/1711.02257. The slope is divided by the mean norm, so that the weights do
    not depend on the gradients' unit. L_t(0) is 1 under ``loss_scale: prior``, the loss of the best constant, and
    otherwise the first loss that was seen, before its ramp. State: a weight per task, from 1, and the first losses; a
    step moves those of its tasks and keeps their sum.
    """

    kind = "gradnorm"
    Options = GradnormOptions
    positive_losses = True
    weighs_one = True  # a weight is learned over the steps, and scales a task's gradient in each

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        self.weights = dict.fromkeys(tasks, 1.0)
        self.first: dict[str, float] = dict.fromkeys(tasks, 1.0) if options.loss_scale == "prior" else {}

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights as they are in this step; then they move."""
        assert isinstance(self.options, GradnormOptions)
        used_T = np.array([self.weights[name] for name in losses])
        norms_T = np.sqrt(np.diagonal(gram_TT))
        level = float((used_T * norms_T).mean())
        first = {name: loss for name, loss in losses.items() if loss > 0} | self.first
        left_T = np.array([max(loss, 0.0) / first.get(name, 1.0) for name, loss in losses.items()])
        rate_T = left_T / left_T.mean() if left_T.any() else np.ones_like(left_T)
        too_large_T = np.sign(used_T * norms_T - level * rate_T**self.options.alpha)
        moved_T = np.clip(used_T - self.options.lr * too_large_T * norms_T / level, LEAST, None)
        moved_T *= used_T.sum() / moved_T.sum()
        self.weights |= dict(zip(losses, moved_T.tolist(), strict=True))
        return used_T

    def after_step(self, losses: Mapping[str, float], again: Mapping[str, float], epoch: int) -> None:
        """Keep the first loss of a task; these ones are before a ramp, which would make the first one small."""
        self.first = {name: loss for name, loss in losses.items() if loss > 0} | self.first

    def extra_state(self) -> dict[str, Any]:
        """Weights and first losses by task."""
        return {"weights": dict(self.weights), "first": dict(self.first)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.weights, self.first = dict(same_tasks(state["weights"], self.tasks)), dict(state["first"])
