"""By what a survival learns: what its head answers, the loss of that, and the curve that follows from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from medmtl.metrics.intervals import BoolArray, FloatArray
from medmtl.tasks.learning import Samples, labelled


class Objective(ABC):
    """One way to learn a time to an event.

    Args:
        horizon: follow-up of interest.
        fitted: what :meth:`fit` learned; empty before planning.

    Attributes:
        positive: whether the loss is always above zero.
        needs_finish: whether the curve needs :meth:`finish`.
        per_sample: whether the loss of a batch is the mean over its labelled samples.
    """

    positive: ClassVar[bool]
    needs_finish: ClassVar[bool] = False
    per_sample: ClassVar[bool] = True

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
    def loss(self, output_BK: torch.Tensor, time_B: torch.Tensor, event_B: torch.Tensor) -> torch.Tensor:
        """Loss per sample, shape (B,), fp32."""

    def batch_loss(
        self,
        output_BK: torch.Tensor,
        time_B: torch.Tensor,
        event_B: torch.Tensor,
        present_B: torch.Tensor,
        samples: Samples,
    ) -> torch.Tensor:
        """See :meth:`medmtl.tasks.learning.Learning.batch_loss`."""
        return labelled(self.loss(output_BK, time_B, event_B), present_B).mean()

    @abstractmethod
    def curve(self, output_BK: torch.Tensor) -> torch.Tensor:
        """Probability to be without the event at each time of the horizon's grid, (B, GRID), fp32."""

    def extra_state(self) -> dict[str, Any]:
        """See :meth:`medmtl.tasks.learning.Learning.extra_state`."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """See :meth:`medmtl.tasks.learning.Learning.load_extra_state`."""
        if state:
            raise ValueError("a survival without memory is given one")

    def finish(self, output_NK: torch.Tensor, time_N: FloatArray, event_N: BoolArray) -> None:
        """See :meth:`medmtl.tasks.learning.Learning.finish`."""
        raise NotImplementedError

    @property
    def is_finished(self) -> bool:
        """Whether :meth:`curve` can be asked for."""
        return True
