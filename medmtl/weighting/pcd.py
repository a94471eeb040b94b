"""Priority-constrained descent: one task leads, the others are promised a share of their progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from medmtl.weighting.base import WeightingOptions, same_tasks
from medmtl.weighting.jacobian import Array, GradientOptions, GramMethod
from medmtl.weighting.quadratic import nearest_above, unit_rows


class PcdOptions(GradientOptions):
    """Options of priority-constrained descent.

    Attributes:
        first: the task that leads; by default the first of the file. In a step without it, the first present one leads.
        progress: what each other task is promised, as a share of what its own normalised gradient would give it.
        decay: share that a step keeps of the running mean of a task's squared gradient norm.
    """

    first: str | None = None
    progress: Annotated[float, Field(ge=0, le=1)] = 0.02
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999


class Pcd(GramMethod):
    """min_d ||d - n_1|| with n_t . d >= tau ||n_t||^2 for the others, n_t = g_t / sqrt(running mean of ||g_t||^2).

    https://arxiv.org/abs/2606.29521. Promises that contradict each other are dropped. The aggregate has the length of
    the leading gradient, however many tasks are present: the others bend its direction and make the step no longer.
    State: the mean and the number of steps of each task, which a step without the task leaves alone.

    Raises:
        ValueError: if ``first`` is no task.
    """

    kind = "pcd"
    Options = PcdOptions

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        assert isinstance(options, PcdOptions)
        if options.first is not None and options.first not in tasks:
            raise ValueError(f"weighting.first {options.first!r} is no task of this file; choose one of {list(tasks)}")
        self.mean = dict.fromkeys(tasks, 0.0)
        self.steps = dict.fromkeys(tasks, 0)

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights of 0 or more; the means move."""
        assert isinstance(self.options, PcdOptions)
        names, decay = list(losses), self.options.decay
        for name, square in zip(names, np.diagonal(gram_TT), strict=True):
            self.mean[name] = decay * self.mean[name] + (1 - decay) * float(square)
            self.steps[name] += 1
        usual_T = np.sqrt([self.mean[name] / (1 - decay ** self.steps[name]) for name in names])
        units, lengths_T = unit_rows(gram_TT)
        first = names.index(self.options.first) if self.options.first in names else 0
        others = np.delete(np.arange(len(names)), first)
        normal_T = lengths_T / usual_T
        leading = units[:, first] * normal_T[first]
        found = nearest_above(units[:, others], leading, self.options.progress * normal_T[others])
        weights_T = np.zeros(len(names))
        weights_T[first] = normal_T[first]
        if found is not None:
            weights_T[others] = found
        size = float(np.linalg.norm(units @ weights_T))
        if size <= 1e-8 * float(weights_T.sum()):
            return np.zeros(len(names))
        scaled: Array = weights_T * lengths_T[first] / size / lengths_T
        return scaled

    def extra_state(self) -> dict[str, Any]:
        """Mean and number of steps by task."""
        return {"mean": dict(self.mean), "steps": dict(self.steps)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.mean, self.steps = (dict(same_tasks(state[key], self.tasks)) for key in ("mean", "steps"))
