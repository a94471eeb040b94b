"""Which tasks a step trains and how much each counts: a pure function of the step, so that a resume is exact.

The schedule of the learning rates is :class:`medmtl.training.optimiser.Schedule`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from medmtl.data.batch import Batch
from medmtl.rng import generator
from medmtl.sections import TimesSection
from medmtl.training.optimiser import WARM_UP


@dataclass(frozen=True)
class TaskSchedule:
    """When each task trains. A task that does not is absent from the step, as if nobody were labelled for it.

    Attributes:
        tasks: names in the configured order.
        times: task -> when it trains; a task without an entry always does.
        alternate: ``none``: all of them in each step. ``cycle``: one per step, in turn. ``sample``: one per step, each
            with the same probability. Where nobody in the batch is labelled for that one, the next is taken.
        seed: of ``sample``.
        steps: length of the training; None while it is still being measured.
        timed: whether the length was given in minutes. Such a training counts as at its very beginning during the 50
            steps of its warm-up, whether or not its length is known already: a resume may know it earlier than the
            start did, and must not train other tasks.
    """

    tasks: tuple[str, ...] = ()
    times: Mapping[str, TimesSection] = field(default_factory=dict)
    alternate: Literal["none", "cycle", "sample"] = "none"
    seed: int = 0
    steps: int | None = None
    timed: bool = False

    def factors(self, step: int) -> dict[str, float]:
        """Task -> factor on its loss, above 0 and up to 1, of those whose time the 0-based ``step`` is."""
        found = {name: self._factor(self.times.get(name), step) for name in self.tasks}
        return {name: factor for name, factor in found.items() if factor > 0}

    def _factor(self, times: TimesSection | None, step: int) -> float:
        if times is None:
            return 1.0
        if self.steps is None or (self.timed and step < WARM_UP):
            return 1.0 if times.at_once else 0.0
        first, end = times.span(self.steps)
        if not first <= step < end:
            return 0.0
        return min(1.0, (step - first + 1) / max(1, round(times.ramp * self.steps)))

    def mostly(self, steps: int) -> tuple[str, ...]:
        """Tasks whose time at least half of the first ``steps`` steps are."""
        counts = Counter(name for step in range(steps) for name in self.factors(step))
        return tuple(name for name in self.tasks if 2 * counts[name] >= steps)

    def chosen(self, step: int, labelled: Collection[str]) -> tuple[str, ...]:
        """The tasks that a step trains.

        Args:
            step: from 0.
            labelled: tasks that somebody in the batch is labelled for.
        """
        timely = list(self.factors(step))
        if self.alternate == "cycle" and timely:
            start = step % len(timely)
            timely = timely[start:] + timely[:start]
        elif self.alternate == "sample":
            order = generator(self.seed, "task of a step", step).permutation(len(timely))
            timely = [timely[place] for place in order]
        present = [name for name in timely if name in labelled]
        return tuple(present if self.alternate == "none" else present[:1])

    def active(self, batch: Batch) -> Batch:
        """The batch without the labels of tasks that its step does not train."""
        if not self.times and self.alternate == "none":
            return batch
        chosen = self.chosen(batch.step, {name for view in batch.views.values() for name in view.labelled()})
        views = {
            kind: replace(view, present={name: held for name, held in view.present.items() if name in chosen})
            for kind, view in batch.views.items()
        }
        return replace(batch, views=views)

    def ramped(self, losses: Mapping[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """Losses of a step's tasks as the weighting gets them."""
        if not self.times:
            return dict(losses)
        factors = self.factors(step)
        return {name: loss if factors[name] == 1 else loss * factors[name] for name, loss in losses.items()}
