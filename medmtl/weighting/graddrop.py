"""GradDrop: of each coordinate, only the tasks that pull to one side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field

from medmtl.weighting import torchjd_methods
from medmtl.weighting.base import Trained, WeightingOptions
from medmtl.weighting.jacobian import GradientMethod, GradientOptions, all_rows, trainable


class GraddropOptions(GradientOptions):
    """Options of GradDrop.

    Attributes:
        gradient: only ``shared``: there are no weights that those of the ``last_stage`` could give.
        leak: share of the dropped side that still counts; 1 is the plain sum.
    """

    leak: Annotated[float, Field(ge=0, le=1)] = 0.0


class Graddrop(GradientMethod):
    """Per coordinate, + is drawn with probability (1 + sum_t g_t / sum_t |g_t|) / 2; the parts of - are then dropped.

    Chen et al. 2020, https://arxiv.org/abs/2010.06808, algorithm 1. It works on coordinates and so has no weights.
    """

    kind = "graddrop"
    Options = GraddropOptions

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        assert isinstance(options, GraddropOptions)
        if options.gradient != "shared":
            raise ValueError(
                f"weighting.kind 'graddrop' gives no weights, which weighting.gradient {options.gradient!r} is for; "
                "set it to shared"
            )

    def backward(
        self,
        losses: Mapping[str, torch.Tensor],
        *,
        trained: Trained,
        scale: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> None:
        """Fill gradients."""
        assert isinstance(self.options, GraddropOptions)
        shared, own = trainable(trained.shared), trainable(trained.own)
        losses = {name: losses[name] for name in self.tasks if name in losses}
        for parameter, *column in zip(shared, *all_rows(losses, shared, own, trained.reduce), strict=True):
            parts = [part for part in column if isinstance(part, torch.Tensor)]
            if parts:
                rows_TN = torch.stack([part.flatten() for part in parts])
                found = torchjd_methods.graddrop(rows_TN, self.options.leak)
                parameter.grad = torch.zeros_like(parameter).add_(found.view_as(parameter))
