"""GradVac: gradients are turned until they are as similar as they used to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from medmtl.weighting import torchjd_methods
from medmtl.weighting.base import WeightingOptions, same_tasks
from medmtl.weighting.jacobian import Array, GradientOptions, GramMethod


class GradvacOptions(GradientOptions):
    """Options of GradVac.

    Attributes:
        decay: share of the newest cosine in a pair's average.
    """

    decay: Annotated[float, Field(gt=0, le=1)] = 0.01


class Gradvac(GramMethod):
    """Sum of the gradients, each turned towards those with which its cosine is under the pair's running average.

    Wang et al. 2021, https://arxiv.org/abs/2010.05874. State: an average per ordered pair of tasks, from 0; a pair of
    which one is absent keeps it.
    """

    kind = "gradvac"
    Options = GradvacOptions

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        self.similarity = {name: {other: 0.0 for other in tasks if other != name} for name in tasks}

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights of 0 or more; the averages move."""
        assert isinstance(self.options, GradvacOptions)
        names = list(losses)
        before_TT = np.array([[self.similarity[name].get(other, 0.0) for other in names] for name in names])
        weights_T, after_TT = torchjd_methods.gradvac(gram_TT, before_TT, self.options.decay)
        for name, row in zip(names, after_TT, strict=True):
            self.similarity[name] |= {o: float(v) for o, v in zip(names, row, strict=True) if o != name}
        return weights_T

    def extra_state(self) -> dict[str, Any]:
        """The averages, task -> other task -> cosine."""
        return {"similarity": {name: dict(row) for name, row in self.similarity.items()}}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the averages."""
        self.similarity = {name: dict(row) for name, row in same_tasks(state["similarity"], self.tasks).items()}
