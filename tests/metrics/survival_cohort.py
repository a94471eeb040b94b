"""Simulated follow-up for the tests of survival metrics."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

with warnings.catch_warnings():
    # torchsurv scripts a function with torch.jit, which newer torch warns of
    warnings.simplefilter("ignore")
    from torchsurv.metrics.auc import Auc
    from torchsurv.metrics.brier_score import BrierScore
    from torchsurv.metrics.cindex import ConcordanceIndex

__all__ = ["Auc", "BrierScore", "ConcordanceIndex", "follow_up"]


def follow_up(seed: int, n: int = 80, *, whole_days: bool = True) -> tuple[Any, Any, Any]:
    """Times, events and a risk that orders them somewhat; with whole days many times and risks are equal."""
    random = np.random.default_rng(seed)
    risk_N = random.normal(size=n)
    died, left = random.exponential(40 * np.exp(-risk_N)), random.uniform(5, 90, n)
    time_N, event_N = np.minimum(died, left), died <= left
    if whole_days:
        time_N, risk_N = np.ceil(time_N), np.round(risk_N, 1)
    return time_N, event_N, risk_N
