"""CAGrad: near the mean gradient, the direction that serves its worst task best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.optimize import brentq

from medmtl.weighting.jacobian import Array, GradientOptions, GramMethod
from medmtl.weighting.quadratic import dual_cone, minimum_norm, unit_rows

STATIONARY = 1e-7  # of the lengths that are combined: a shorter combination is rounding


class CagradOptions(GradientOptions):
    """Options of CAGrad.

    Attributes:
        c: how far the direction may be from the mean gradient, as a share of its length; 0 is the mean gradient.
    """

    c: Annotated[float, Field(ge=0, lt=1)] = 0.4


class Cagrad(GramMethod):
    """T / (1 + c) d, with d of max_d min_t g_t . d with ||d - g_0|| <= c ||g_0||, g_0 the mean of T gradients.

    Liu et al. 2021, https://arxiv.org/abs/2110.14048, algorithm 1. The paper's d is at most 1 + c times as long as a
    mean; the factor, whose denominator is one that the authors' code offers, makes it at most as long as the sum, so
    that a task does not weigh less where more tasks are present. Where the g_w of the dual problem vanishes, no
    direction serves all tasks, and of those that harm none d is the nearest to g_0.
    """

    kind = "cagrad"
    Options = CagradOptions

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """T / (1 + c) (1 / T + sqrt(phi) / ||g_w|| w_t), with the w of the dual problem."""
        assert isinstance(self.options, CagradOptions)
        return len(gram_TT) / (1 + self.options.c) * conflict_averse(gram_TT, self.options.c)


def conflict_averse(gram_TT: Array, c: float) -> Array:
    """Weights of CAGrad's direction, as long as in the paper.

    The dual min_w g_0 . g_w + r ||g_w||, r = c ||g_0||, is min over tau of half of min_w r / tau ||g_w + tau / r
    g_0||^2 - tau ||g_0||^2 / r + r tau, which is convex in tau and has its minimum where ||g_w|| = tau. For one tau, w
    is the minimum-norm point of the rows moved by tau / r g_0.
    """
    tasks = len(gram_TT)
    mean_T = np.full(tasks, 1 / tasks)
    units, lengths_T = unit_rows(gram_TT)
    rows = units * lengths_T
    mean = rows @ mean_T
    size = float(np.linalg.norm(mean))
    radius = c * size
    if c == 0:
        return mean_T
    if size <= STATIONARY * float(mean_T @ lengths_T):
        return np.zeros(tasks)

    def point(tau: float) -> Array:
        moved = rows + (tau / radius) * mean[:, None]
        moved_T = np.linalg.norm(moved, axis=0)
        return minimum_norm(moved / np.where(moved_T > 0, moved_T, 1), moved_T)

    def excess(tau: float) -> float:
        return float(np.linalg.norm(rows @ point(tau))) / tau - 1

    least, most = STATIONARY * lengths_T.min(), lengths_T.max() * 1.001
    tau = least if excess(least) <= 0 else brentq(excess, least, most, xtol=1e-8 * least, rtol=1e-14, maxiter=500)
    best_T = point(tau)
    length = float(np.linalg.norm(rows @ best_T))
    if length <= STATIONARY * float(best_T @ lengths_T):
        return dual_cone(units, lengths_T, mean_T)
    weights: Array = mean_T + radius / length * best_T
    return weights
