"""Dynamic weight average: a task whose loss falls slowly counts more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field

from medmtl.weighting.base import WeightingOptions, same_tasks
from medmtl.weighting.scalarise import FLOOR, LossMethod, softmax


class DwaOptions(WeightingOptions):
    """Options of the dynamic weight average.

    Attributes:
        temperature: the larger, the more alike are the weights.
    """

    temperature: float = Field(default=2.0, gt=0, allow_inf_nan=False)


class Dwa(LossMethod):
    """L = sum_t w_t L_t with w = T softmax(r / temperature) over all T tasks; r_t is how a task's loss changes.

    Liu et al. 2019, https://arxiv.org/abs/1803.10704. r_t is the mean loss of the newest complete epoch in which the
    task was seen over that of the one before; a task that was seen in fewer than two has r_t = 1, as all have in the
    first two epochs. The first step of an epoch still has the weights of the one before, because what an epoch was is
    known when the next has begun.
    """

    kind = "dwa"
    Options = DwaOptions
    positive_losses = True

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        assert isinstance(options, DwaOptions)
        self.temperature = options.temperature
        self.epoch = 0
        self.sums = dict.fromkeys(tasks, 0.0)
        self.counts = dict.fromkeys(tasks, 0)
        self.means: dict[str, float | None] = dict.fromkeys(tasks)
        self.ratios = dict.fromkeys(tasks, 1.0)

    def weigh(self, losses: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """The epoch's weights."""
        shares = softmax({name: ratio / self.temperature for name, ratio in self.ratios.items()})
        return {name: len(shares) * share for name, share in shares.items()}

    def after_step(self, losses: Mapping[str, float], again: Mapping[str, float], epoch: int) -> None:
        """Add the losses to their epoch's; a new epoch closes the one before."""
        if epoch != self.epoch:
            self._close()
            self.epoch = epoch
        for name, loss in losses.items():
            self.sums[name] += loss
            self.counts[name] += 1

    def _close(self) -> None:
        for name, count in self.counts.items():
            if count:
                mean, before = max(self.sums[name] / count, FLOOR), self.means[name]
                if before is not None:
                    self.ratios[name] = mean / before
                self.means[name] = mean
                self.sums[name], self.counts[name] = 0.0, 0

    def extra_state(self) -> dict[str, Any]:
        """The epoch, and per task its sum, count, last mean and ratio."""
        kept = {name: [self.sums[name], self.counts[name], self.means[name], self.ratios[name]] for name in self.tasks}
        return {"epoch": self.epoch, "tasks": kept}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned.

        Raises:
            ValueError: if it is that of other tasks.
        """
        kept = same_tasks(state["tasks"], self.tasks)
        self.epoch = state["epoch"]
        for name, (total, count, mean, ratio) in kept.items():
            self.sums[name], self.counts[name], self.means[name], self.ratios[name] = total, count, mean, ratio
