"""DB-MTL: gradients of the losses' logarithms, brought to one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from medmtl.weighting.base import WeightingOptions, same_tasks
from medmtl.weighting.jacobian import Array, GradientOptions, GramMethod

SMALLEST = 1e-8  # added to a loss, as in the paper


class DbMtlOptions(GradientOptions):
    """Options of DB-MTL.

    Attributes:
        decay: share that a step keeps of the running mean of a gradient's norm.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9


class DbMtl(GramMethod):
    """sum_t max_s(n_s) / n_t d log(L_t), n_t the running mean of the norm of d log(L_t).

    Lin et al. 2023, https://arxiv.org/abs/2308.12029. The paper averages the gradients themselves, which is one copy of
    the shared parameters per task; here only their norms are. State: mean and number of steps of each task, which a
    step without the task leaves alone.
    """

    kind = "db_mtl"
    Options = DbMtlOptions
    positive_losses = True
    weighs_one = True  # the gradient is of the loss's logarithm, whoever else is there

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        self.mean = dict.fromkeys(tasks, 0.0)
        self.steps = dict.fromkeys(tasks, 0)

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Positive weights; the means move."""
        assert isinstance(self.options, DbMtlOptions)
        decay = self.options.decay
        loss_T = np.array(list(losses.values())).clip(0) + SMALLEST
        for name, norm in zip(losses, np.sqrt(np.diagonal(gram_TT)) / loss_T, strict=True):
            self.mean[name] = decay * self.mean[name] + (1 - decay) * float(norm)
            self.steps[name] += 1
        usual_T = np.array([self.mean[name] / (1 - decay ** self.steps[name]) for name in losses])
        weights: Array = usual_T.max() / usual_T / loss_T
        return weights

    def extra_state(self) -> dict[str, Any]:
        """Mean and number of steps by task."""
        return {"mean": dict(self.mean), "steps": dict(self.steps)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.mean, self.steps = (dict(same_tasks(state[key], self.tasks)) for key in ("mean", "steps"))
