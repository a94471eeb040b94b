"""Huber loss of case-level values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


def huber_loss(predicted_B: torch.Tensor, target_B: torch.Tensor, delta: float = 1.0) -> torch.Tensor:
    """``r^2 / 2`` where ``|r| <= delta``, else ``delta (|r| - delta / 2)``, per sample, of r = predicted - target.

    Huber 1964, "Robust estimation of a location parameter", https://doi.org/10.1214/aoms/1177703732.

    Args:
        predicted_B: of any floating type; computed in fp32.
        target_B: fp32.
        delta: residual from which the loss grows linearly, in units of the target.

    Returns:
        Loss per sample, shape (B,), fp32.
    """
    return functional.huber_loss(predicted_B.float(), target_B, reduction="none", delta=delta)


def constant_huber(targets: Sequence[float], constant: float, delta: float = 1.0) -> float:
    """Mean Huber loss of predicting ``constant`` for every case."""
    target_N = torch.tensor(targets, dtype=torch.float64)
    return float(functional.huber_loss(torch.full_like(target_N, constant), target_N, delta=delta))
