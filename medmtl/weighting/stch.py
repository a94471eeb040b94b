"""Smooth Tchebycheff scalarisation: the task that is furthest behind counts most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field

from medmtl.weighting.base import WeightingOptions, same_tasks
from medmtl.weighting.scalarise import FLOOR, LossMethod, read_positive, softmax


class StchOptions(WeightingOptions):
    """Options of the smooth Tchebycheff scalarisation.

    Attributes:
        mu: smoothness; towards 0 the worst task alone counts, and the larger it is, the more alike are all.
        warm_up: epochs with equal weights; the last of them tells where each loss starts from.
    """

    mu: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    warm_up: int = Field(default=1, ge=1)


class Stch(LossMethod):
    """L = K mu log sum_t exp(L_t / (n_t mu)) over the K tasks present in the step, a smooth maximum of L_t / n_t.

    Lin et al. 2024, https://arxiv.org/abs/2402.19078, with the reference point 0, the least that a positive loss can
    be, and the preferences 1 / n_t; n_t, the nadir, is the task's mean loss in the last epoch of the warm-up. A task
    that was not seen there is measured by its first loss. The factor K makes it as steep as the sum of L_t / n_t, so
    that weights are large where nadirs are small. The first step after the warm-up still has equal weights, because an
    epoch's end is known when the next has begun.
    """

    kind = "stch"
    Options = StchOptions
    positive_losses = True

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        assert isinstance(options, StchOptions)
        self.mu, self.warm_up = options.mu, options.warm_up
        self.epoch = 0
        self.sums = dict.fromkeys(tasks, 0.0)
        self.counts = dict.fromkeys(tasks, 0)

    def weigh(self, losses: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """The derivatives of the smooth maximum, or 1 during the warm-up."""
        if self.epoch < self.warm_up:
            return dict.fromkeys(losses, 1.0)
        values = read_positive(losses)
        nadirs = {name: self._nadir(name, value) for name, value in values.items()}
        shares = softmax({name: value / nadirs[name] / self.mu for name, value in values.items()})
        return {name: len(shares) * share / nadirs[name] for name, share in shares.items()}

    def _nadir(self, task: str, loss: float) -> float:
        return max(self.sums[task] / self.counts[task], FLOOR) if self.counts[task] else loss

    def after_step(self, losses: Mapping[str, float], again: Mapping[str, float], epoch: int) -> None:
        """Measure the losses of the last epoch of the warm-up, and the first one of a task that was absent there."""
        self.epoch = epoch
        for name, loss in losses.items():
            if epoch == self.warm_up - 1 or (epoch >= self.warm_up and not self.counts[name]):
                self.sums[name] += loss
                self.counts[name] += 1

    def extra_state(self) -> dict[str, Any]:
        """The epoch, and per task the sum and count of the losses that are its nadir."""
        return {"epoch": self.epoch, "tasks": {name: [self.sums[name], self.counts[name]] for name in self.tasks}}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned.

        Raises:
            ValueError: if it is that of other tasks.
        """
        kept = same_tasks(state["tasks"], self.tasks)
        self.epoch = state["epoch"]
        for name, (total, count) in kept.items():
            self.sums[name], self.counts[name] = total, count
