"""GradVac: gradients are turned until they are as similar as they used to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from medmtl.weighting.base import WeightingOptions, same_tasks
from medmtl.weighting.jacobian import Array, GradientOptions, GramMethod

NOTHING = 1e-7  # length that is left of a unit row: rounding
TINY = 1e-12  # beside the sine of an average


class GradvacOptions(GradientOptions):
    """Options of GradVac.

    Attributes:
        decay: share of the newest cosine in a pair's average.
    """

    decay: Annotated[float, Field(gt=0, le=1)] = 0.01


class Gradvac(GramMethod):
    """Sum of the gradients, each turned towards those with which its cosine is under the pair's running average.

    Wang et al. 2021, https://arxiv.org/abs/2010.05874, algorithm 1. The order of the others is drawn in each step.
    State: an average per ordered pair of tasks, from 0; a pair of which one is absent keeps it.
    """

    kind = "gradvac"
    Options = GradvacOptions

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        self.similarity = {name: {other: 0.0 for other in tasks if other != name} for name in tasks}

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights of 0 or more; the averages move."""
        assert isinstance(self.options, GradvacOptions)
        decay, names = self.options.decay, list(losses)
        lengths_T = np.sqrt(np.diagonal(gram_TT))
        cosines_TT = gram_TT / np.outer(lengths_T, lengths_T)
        weights_T = np.zeros(len(names))
        for index, usual in enumerate(self.similarity[name] for name in names):
            turned_T = np.eye(len(names))[index]  # as a combination of the unit rows
            others = np.delete(np.arange(len(names)), index)
            for other in others[torch.randperm(len(others)).numpy()]:
                length = math.sqrt(max(0.0, turned_T @ cosines_TT @ turned_T))
                cosine = float(cosines_TT[other] @ turned_T) / length if length > NOTHING else 0.0
                wanted = usual[names[other]]
                if cosine < wanted:
                    turned_T[other] += length * (wanted * _sine(cosine) / (_sine(wanted) + TINY) - cosine)
                usual[names[other]] = (1 - decay) * wanted + decay * cosine
            weights_T += turned_T * lengths_T[index] / lengths_T
        return weights_T

    def extra_state(self) -> dict[str, Any]:
        """The averages, task -> other task -> cosine."""
        return {"similarity": {name: dict(row) for name, row in self.similarity.items()}}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the averages."""
        self.similarity = {name: dict(row) for name, row in same_tasks(state["similarity"], self.tasks).items()}


def _sine(cosine: float) -> float:
    return math.sqrt(max(0.0, 1 - cosine**2))
