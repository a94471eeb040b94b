"""What a regression's head answers and by which loss it learns: a value, or a value with its uncertainty.

Both work on a scale that makes the training fold's values comparable over tasks: ``(value - centre) / spread``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

from medmtl.losses.beta_nll import beta_nll_loss, bounded_log_variance
from medmtl.losses.huber import constant_huber, huber_loss
from medmtl.metrics.intervals import Z95


class Objective(ABC):
    """One way to learn a value.

    Attributes:
        outputs: numbers that the head answers.
        centre: key of the centre in what :meth:`fit` returns; ``spread`` stands beside it.
        positive: whether the loss is above zero.
    """

    outputs: ClassVar[int]
    centre: ClassVar[str]
    positive: ClassVar[bool]

    @abstractmethod
    def fit(self, value_N: npt.NDArray[np.float64]) -> dict[str, Any]:
        """Centre, spread and ``loss_scale`` of values, not all equal, on the scale that ``transform`` makes."""

    @abstractmethod
    def loss(self, output_BO: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
        """Loss per sample, shape (B,), fp32."""

    @abstractmethod
    def quantiles(self, output_BO: torch.Tensor) -> torch.Tensor:
        """The middle of what is answered, (B, 1), and where there are any the bounds of its 95 % interval, (B, 3)."""


class Huber(Objective):
    """A value, by a Huber loss on the scale of the median and the interquartile range.

    Args:
        delta: residual from which the loss grows linearly.
    """

    outputs, centre, positive = 1, "median", True

    def __init__(self, delta: float) -> None:
        self.delta = delta

    def fit(self, value_N: npt.NDArray[np.float64]) -> dict[str, Any]:
        """The best constant is taken to be the median, 0 on the head's scale."""
        low, median, high = np.quantile(value_N, [0.25, 0.5, 0.75])
        spread = float(high - low) or float(value_N.std())
        scaled = ((value_N - median) / spread).tolist()
        return {"median": float(median), "spread": spread, "loss_scale": constant_huber(scaled, 0.0, self.delta)}

    def loss(self, output_BO: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
        """See :func:`medmtl.losses.huber.huber_loss`."""
        return huber_loss(output_BO[:, 0], target_B, self.delta)

    def quantiles(self, output_BO: torch.Tensor) -> torch.Tensor:
        """The value alone."""
        return output_BO.float()


class BetaNll(Objective):
    """Mean and log-variance of a normal distribution, by a likelihood on the scale of mean and standard deviation.

    The scale decides how large a likelihood is, and a loss scale must be above zero. On this one the best constant
    answer is the standard normal distribution, mean 0 and log-variance 0, whose loss is one half for any data.
    """

    outputs, centre, positive = 2, "mean", False

    def fit(self, value_N: npt.NDArray[np.float64]) -> dict[str, Any]:
        """Mean, standard deviation, and one half."""
        return {"mean": float(value_N.mean()), "spread": float(value_N.std()), "loss_scale": 0.5}

    def loss(self, output_BO: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
        """See :func:`medmtl.losses.beta_nll.beta_nll_loss`."""
        return beta_nll_loss(output_BO[:, 0], bounded_log_variance(output_BO[:, 1]), target_B)

    def quantiles(self, output_BO: torch.Tensor) -> torch.Tensor:
        """Mean and mean -+ 1.96 standard deviations."""
        mean_B = output_BO[:, 0].float()
        half_B = Z95 * torch.exp(bounded_log_variance(output_BO[:, 1]) / 2)
        return torch.stack([mean_B, mean_B - half_B, mean_B + half_B], dim=1)


def objective_of(loss: Literal["huber", "beta_nll"], huber_delta: float) -> Objective:
    """The objective that the options name."""
    return Huber(huber_delta) if loss == "huber" else BetaNll()
