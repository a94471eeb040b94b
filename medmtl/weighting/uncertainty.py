"""Uncertainty weighting: each task's noise is learned, and noisy tasks count less."""

from __future__ import annotations

import torch

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.learned_scale import LearnedScale


class Uncertainty(LearnedScale):
    """L = sum_t (exp(-s_t) L_t + s_t / 2) over the tasks present in the step, with s_t = log sigma_t^2 learned.

    Kendall et al. 2018, https://arxiv.org/abs/1705.07115. Their two forms, this one for a classification and
    exp(-s) L / 2 + s / 2 for a regression, are one: the second is the first at s + log 2, up to a constant. They differ
    only in where s starts, and here every task starts at weight 1. At its best s a task has weight 1 / (2 L_t).
    """

    kind = "uncertainty"
    Options = WeightingOptions

    def terms(self, log_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """exp(-s) and s / 2."""
        return torch.exp(-log_scale), log_scale / 2
