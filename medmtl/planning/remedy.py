"""Which settings would fit the memory budget, found by planning with them and not guessed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from medmtl.config import Config
from medmtl.data.crop import Triple, round_up
from medmtl.planning.outline import Outline
from medmtl.planning.plan import Plan
from medmtl.planning.sample import seeing_tasks, smallest_batch
from medmtl.planning.spacing import coarser
from medmtl.tasks.base import Task

MORE = 1.1  # budget that is tried behind one that is not enough: what a second view takes grows with it
TRIES = 40


def remedy(
    config: Config,
    tasks: Mapping[str, Task],
    drawn: Outline,
    need: int,
    plan_with: Callable[[Config], Plan | None],
) -> str:
    """The end of a refusal: a spacing, a shape, a batch and a budget with which a plan is made.

    Args:
        config: the configuration that does not fit.
        tasks: those of the samples that do not fit.
        drawn: its plan before samples are chosen.
        need: bytes that it would take.
        plan_with: the plan of another configuration, or None where that is refused too.
    """
    search = _Search(config, drawn, plan_with)
    fitting = []
    if (spacing := search.spacing()) is not None:
        fitting.append(f"plan.spacing: {list(spacing)}")
    if (found := search.shape()) is not None:
        centre = " (the centre of each case)" if found.view == "case" else ""
        fitting.append(f"plan.shape: {list(found.shape)}{centre}")
    if (batch := search.batch(smallest_batch(config, tasks))) is not None:
        fitting.append(f"plan.batch: {batch}")
    words = f": set {' or '.join(fitting)}, which fits" if fitting else ": no coarser spacing and no crop fits"
    if (enough := search.memory(need)) is not None:
        words += f", or raise plan.memory_gb to {enough:g}"
    if seeing_tasks(tasks):
        words += ", or declare evidence: anywhere where it holds, or set views.kind: tiles"
    return words


class _Search:
    """Tries settings on the same cohort and machine."""

    def __init__(self, config: Config, drawn: Outline, plan_with: Callable[[Config], Plan | None]) -> None:
        self._config, self._drawn, self._plan_with = config, drawn, plan_with

    def spacing(self) -> tuple[float, float, float] | None:
        """The finest one that fits: the finest axes are coarsened until they meet the coarser ones."""
        if self._config.plan.shape is not None:
            return None
        return next((spacing for spacing in coarser(self._drawn.spacing) if self._with(spacing=spacing)), None)

    def shape(self) -> Plan | None:
        """The plan with the largest crop that fits, its longest axis being shortened first."""
        divisor = self._drawn.divisor
        shape: Triple = round_up(self._drawn.whole, divisor)
        while True:
            axis = max(range(3), key=lambda axis: shape[axis] / divisor[axis])
            if shape[axis] <= divisor[axis]:
                return None
            x, y, z = (n - divisor[i] if i == axis else n for i, n in enumerate(shape))
            shape = (x, y, z)
            if (found := self._with(shape=shape)) is not None:
                return found

    def batch(self, smallest: int) -> int | None:
        """The largest below the set one that fits."""
        if self._config.plan.batch is None:
            return None
        return next((batch for batch in range(smallest - 1, 0, -1) if self._with(batch=batch)), None)

    def memory(self, need: int) -> float | None:
        """A budget in GB that is enough."""
        for _ in range(TRIES):
            budget = math.ceil(need / 1e8) / 10
            if self._with(memory_gb=budget):
                return budget
            need = math.ceil(need * MORE)
        return None

    def _with(self, **values: Any) -> Plan | None:
        plan = self._config.plan.model_copy(update=values)
        return self._plan_with(self._config.model_copy(update={"plan": plan}))
