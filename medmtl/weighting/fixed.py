"""Fixed weights, one per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.scalarise import LossMethod


class FixedOptions(WeightingOptions):
    """Options of fixed weights.

    Attributes:
        weights: task -> weight, 0 or more; every task is named.
    """

    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]


class Fixed(LossMethod):
    """L = sum_t w_t L_t over the tasks present in the step.

    Raises:
        ValueError: if the weights do not name exactly the tasks, or are all 0.
    """

    kind = "fixed"
    Options = FixedOptions

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        assert isinstance(options, FixedOptions)
        if set(options.weights) != set(tasks):
            raise ValueError(
                f"weighting.weights must name every task once: expected {sorted(tasks)}, "
                f"found {sorted(options.weights)}"
            )
        if not any(options.weights.values()):
            raise ValueError("weighting.weights are all 0: nothing would be trained")
        self.weights = dict(options.weights)

    def weigh(self, losses: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """The configured weights."""
        return self.weights
