"""IMTL-L: each task's scale is learned so that all scaled losses are alike."""

from __future__ import annotations

import torch

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.learned_scale import LearnedScale


class ImtlL(LearnedScale):
    """L = sum_t (exp(s_t) L_t - s_t) over the tasks present in the step, with s_t learned.

    Liu et al. 2021, Towards Impartial Multi-task Learning, ICLR, https://openreview.net/forum?id=IMPnRXEWpvr. At its
    best s a task has weight 1 / L_t. It is uncertainty weighting at -s with the price of s doubled.
    """

    kind = "imtl_l"
    Options = WeightingOptions

    def terms(self, log_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """exp(s) and -s."""
        return torch.exp(log_scale), -log_scale
