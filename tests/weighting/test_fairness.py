from __future__ import annotations

import numpy as np
import pytest
import torch
from torchjd.aggregation import FairGradWeighting

from medmtl.weighting.fairness import fair_weights
from tests.weighting.jacobians import jacobians, seeded

ALPHAS = [0.5, 1.0, 2.0, 5.0]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", list(jacobians()))
def test_the_gains_are_a_power_of_the_weights(name: str, alpha: float) -> None:
    rows = jacobians()[name]
    weights = fair_weights(rows @ rows.T, alpha)
    assert weights.min() > 0 and weights.mean() == pytest.approx(1)
    gains, parts = rows @ (weights @ rows), np.linalg.norm(weights[:, None] * rows, axis=1)
    if name in ("rank two", "sixteen in four"):
        # no direction serves every task: the combination vanishes
        assert np.linalg.norm(weights @ rows) <= 1e-4 * parts.max()
        return
    # G w = k w ^ (-1 / alpha) for one k
    constants = gains * weights ** (1 / alpha)
    np.testing.assert_allclose(constants, constants.mean(), rtol=1e-4 if name == "badly scaled" else 1e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("seed", range(4))
def test_the_direction_is_that_of_torchjd(seed: int, alpha: float) -> None:
    rows = seeded(seed, 3)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) * np.array([[1.0], [2], [0.5]])
    theirs = FairGradWeighting(alpha=alpha, max_iters=2000)(torch.from_numpy(rows @ rows.T)).numpy()
    np.testing.assert_allclose(fair_weights(rows @ rows.T, alpha), theirs / theirs.mean(), rtol=1e-4)


@pytest.mark.parametrize("lengths", [(1.0, 1.0), (1.0, 1e-5), (1e-9, 3e-9)])
def test_a_bargain_of_two_gives_both_the_same_cosine(lengths: tuple[float, float]) -> None:
    rows = np.array([[1.0, 0], [-0.6, 0.8]]) * np.array(lengths)[:, None]
    direction = fair_weights(rows @ rows.T, 1.0) @ rows
    cosines = rows @ direction / np.linalg.norm(rows, axis=1) / np.linalg.norm(direction)
    assert cosines[0] == pytest.approx(cosines[1], rel=1e-6)
    # w_t = 1 / ||g_t|| up to a factor
    weights = fair_weights(rows @ rows.T, 1.0)
    assert weights[0] / weights[1] == pytest.approx(lengths[1] / lengths[0], rel=1e-6)


def test_gradients_that_cancel_out_make_a_vanishing_combination() -> None:
    rows = np.array([[1.0, 0], [-2.0, 0]])
    weights = fair_weights(rows @ rows.T, 1.0)
    np.testing.assert_allclose(weights, [4 / 3, 2 / 3], rtol=1e-5)
    assert np.linalg.norm(weights @ rows) < 1e-5


def test_a_zero_row_has_no_weight() -> None:
    rows = np.array([[1.0, 0], [0, 0], [0, 1]])
    np.testing.assert_allclose(fair_weights(rows @ rows.T, 1.0), [1, 0, 1], rtol=1e-9)


def test_the_larger_alpha_the_more_the_worst_task_gains() -> None:
    rows = np.array([[4.0, 0], [0, 0.5]])
    worst = []
    for alpha in (0.5, 1.0, 4.0):
        direction = fair_weights(rows @ rows.T, alpha) @ rows
        worst.append(float((rows @ direction).min() / np.linalg.norm(direction)))
    assert worst == sorted(worst)
