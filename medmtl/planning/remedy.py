"""Which settings would fit the memory budget, computed and not guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from medmtl.config import Config
from medmtl.data.crop import Triple, norms_hold, round_up
from medmtl.data.fingerprint import Fingerprint
from medmtl.device import Device
from medmtl.planning.outline import Outline, outline
from medmtl.planning.sample import seeing_tasks, smallest_batch
from medmtl.planning.spacing import coarser
from medmtl.tasks.base import Task


def remedy(config: Config, tasks: Mapping[str, Task], fingerprints: Sequence[Fingerprint], device: Device) -> str:
    """The end of a refusal: a spacing, a crop, a batch and a budget with which the same plan is made.

    Args:
        config: the configuration that does not fit.
        tasks: the unfitted tasks.
        fingerprints: of all cases but the test split.
        device: the machine.
    """
    search = _Search(config, tasks, fingerprints, device)
    found = search.outline(config)
    fitting = []
    if (spacing := search.spacing(found)) is not None:
        fitting.append(f"plan.spacing: {list(spacing)}")
    if (shape := search.shape(found)) is not None:
        fitting.append(f"plan.shape: {list(shape)} (the centre of each case)")
    if (batch := search.batch(found)) is not None:
        fitting.append(f"plan.batch: {batch}")
    need = found.budget.need(round_up(found.whole, found.divisor), search.smallest)
    words = f": set {' or '.join(fitting)}, which fits" if fitting else ": no coarser spacing and no crop fits"
    words += f", or raise plan.memory_gb to {math.ceil(need / 1e8) / 10:g}"
    if seeing_tasks(tasks):
        words += ", or declare evidence: anywhere where it holds, or set views.kind: tiles"
    return words


class _Search:
    """Tries settings on the same cohort and machine."""

    def __init__(
        self, config: Config, tasks: Mapping[str, Task], fingerprints: Sequence[Fingerprint], device: Device
    ) -> None:
        self._config, self._tasks, self._fingerprints, self._device = config, tasks, fingerprints, device
        self.smallest = smallest_batch(config, tasks)

    def outline(self, config: Config) -> Outline:
        return outline(config, self._tasks, self._fingerprints, self._device, {})

    def spacing(self, found: Outline) -> tuple[float, float, float] | None:
        """The finest one that fits: the finest axes are coarsened until they meet the coarser ones."""
        if self._config.plan.shape is not None:
            return None
        return next((spacing for spacing in coarser(found.spacing) if self._fits("spacing", spacing)), None)

    def shape(self, found: Outline) -> Triple | None:
        """The largest crop that fits, its longest axis being shortened first."""
        shape = round_up(found.whole, found.divisor)
        while True:
            axis = max(range(3), key=lambda axis: shape[axis] / found.divisor[axis])
            if shape[axis] <= found.divisor[axis]:
                return None
            x, y, z = (n - found.divisor[i] if i == axis else n for i, n in enumerate(shape))
            shape = (x, y, z)
            if self._fits("shape", shape):
                return shape

    def batch(self, found: Outline) -> int | None:
        """The largest below the set one that fits."""
        shape = round_up(found.whole, found.divisor)
        batch = found.budget.largest_batch(shape, self.smallest - 1) if self.smallest > 1 else 0
        return batch if batch and self._config.plan.batch and found.budget.fits(shape, batch) else None

    def _fits(self, key: str, value: tuple[float, float, float]) -> bool:
        plan = self._config.plan.model_copy(update={key: value})
        found = self.outline(self._config.model_copy(update={"plan": plan}))
        shape = round_up(found.whole, found.divisor)
        possible = norms_hold(shape, found.divisor) and (key != "shape" or shape == value)
        return possible and found.budget.fits(shape, self.smallest)
