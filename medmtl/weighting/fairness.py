"""Nash-MTL and FairGrad: the direction whose gains of the tasks are a bargain, or alpha-fair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from medmtl.weighting.jacobian import Array, GradientOptions, GramMethod

RIDGE = 1e-14  # on rows of length 1: rows that cancel out exactly have no finite answer
STEPS = 100
CLOSE = 1e-18  # Newton's decrement, squared


class FairgradOptions(GradientOptions):
    """Options of FairGrad.

    Attributes:
        alpha: 1 is proportional fairness (Nash's bargain); the larger, the more the task counts that gains least.
    """

    alpha: Annotated[float, Field(ge=0.5, le=10)] = 2.0


class Fairgrad(GramMethod):
    """G w = w ^ (-1 / alpha), so that the direction maximises the tasks' alpha-fair utility.

    Ban and Ji 2024, https://arxiv.org/abs/2402.15638. The weights are divided by their mean: the direction is the
    paper's, and its length that of a combination of as many gradients as there are tasks.
    """

    kind = "fairgrad"
    Options = FairgradOptions

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Positive weights with the mean 1."""
        assert isinstance(self.options, FairgradOptions)
        return fair_weights(gram_TT, self.options.alpha)


class Nash(GramMethod):
    """G w = 1 / w, Nash's bargaining solution.

    Navon et al. 2022, https://arxiv.org/abs/2202.01017. Solved exactly and not by linearisation, and without state. The
    weights are divided by their mean: the direction is the paper's, and its length that of a combination of as many
    gradients as there are tasks.
    """

    kind = "nash"

    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Positive weights with the mean 1."""
        return fair_weights(gram_TT, 1.0)


def fair_weights(gram_TT: Array, alpha: float) -> Array:
    """The w > 0 with G w = w ^ (-1 / alpha), divided by its mean.

    For v_t = w_t ||g_t|| and the cosines C of the rows it is C v = k v ^ (-1 / alpha), k_t = ||g_t|| ^ (1 / alpha - 1):
    the stationary point of a strictly convex function of v, found by Newton's method from the answer for rows at right
    angles.

    Args:
        gram_TT: with a positive diagonal; rows of length 0 get the weight 0.
        alpha: of the fairness.
    """
    lengths_T = np.sqrt(np.clip(np.diagonal(gram_TT), 0, None))
    kept = np.flatnonzero(lengths_T)
    weights_T = np.zeros(len(gram_TT))
    if not len(kept):
        return weights_T
    lengths_K = lengths_T[kept] / np.exp(np.log(lengths_T[kept]).mean())
    cosines_KK = gram_TT[np.ix_(kept, kept)] / np.outer(lengths_T[kept], lengths_T[kept])
    cosines_KK = cosines_KK + RIDGE * np.eye(len(kept))
    factor_K = lengths_K ** (1 / alpha - 1)
    found_K = _newton(cosines_KK, factor_K, 1 / alpha) / lengths_K
    weights_T[kept] = found_K / found_K.mean()
    return weights_T


def _newton(matrix_KK: Array, factor_K: Array, power: float) -> Array:
    """v > 0 with M v = k v ^ -power."""
    point_K: Array = factor_K ** (1 / (1 + power))
    for _ in range(STEPS):
        pull_K = factor_K * point_K**-power
        slope_K = matrix_KK @ point_K - pull_K
        # in relative steps, so that the system is well scaled where v is not
        curve_KK = matrix_KK * np.outer(point_K, point_K) + np.diag(power * pull_K * point_K)
        scale_K = 1 / np.sqrt(np.diagonal(curve_KK))
        step_K = -scale_K * np.linalg.solve(curve_KK * np.outer(scale_K, scale_K), scale_K * slope_K * point_K)
        decrement = -float(step_K @ (slope_K * point_K))
        if decrement <= CLOSE * float(point_K @ pull_K):
            break
        point_K = point_K * (1 + _length(matrix_KK, factor_K, power, point_K, step_K) * step_K)
    return point_K


def _length(matrix_KK: Array, factor_K: Array, power: float, point_K: Array, step_K: Array) -> float:
    """Of the step: halved until the slope along it has not turned beyond a tenth of what it was."""
    along_K = step_K * point_K
    before = float(along_K @ (matrix_KK @ point_K - factor_K * point_K**-power))
    length = 1.0
    if step_K.min() < 0:
        length = min(1.0, -0.99 / float(step_K.min()))
    while length > 1e-12:
        there_K = point_K * (1 + length * step_K)
        if float(along_K @ (matrix_KK @ there_K - factor_K * there_K**-power)) <= -0.9 * before:
            break
        length /= 2
    return length
