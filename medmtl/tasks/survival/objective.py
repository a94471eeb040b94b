"""By what a survival learns: what its head answers, the loss of that, and the curve that follows from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from medmtl.metrics.intervals import BoolArray, FloatArray
from medmtl.tasks.learning import Learning


class Objective(Learning):
    """One way to learn a time to an event; a target is the time and the event, (B, 2).

    Args:
        horizon: follow-up of interest.
        fitted: what :meth:`fit` learned; empty before planning.

    Attributes:
        positive: whether the loss is always above zero.
    """

    positive: ClassVar[bool]

    def __init__(self, horizon: float, fitted: Mapping[str, Any]) -> None:
        self.horizon = horizon
        self.fitted = fitted

    @abstractmethod
    def fit(self, time_N: FloatArray, event_N: BoolArray) -> dict[str, Any]:
        """``loss_scale`` and what else it needs of a training fold with an event; 0 if that teaches nothing."""

    @abstractmethod
    def first_output(self) -> list[float]:
        """What the head says at first, whatever the image: the best constant answer."""

    @abstractmethod
    def curve(self, output_BK: torch.Tensor) -> torch.Tensor:
        """Probability to be without the event at each time of the horizon's grid, (B, GRID), fp32."""
