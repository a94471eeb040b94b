from __future__ import annotations

import itertools

import numpy as np
import pytest

from medmtl.weighting.cagrad import conflict_averse
from medmtl.weighting.quadratic import Array, minimum_norm, unit_rows
from tests.weighting.jacobians import jacobians, seeded


def gain(rows: Array, direction: Array) -> float:
    """Of the worst task."""
    return float((rows @ direction).min())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("c", [0.2, 0.8])
def test_the_dual_is_least_over_a_grid_of_the_simplex_and_equals_the_primal(seed: int, c: float) -> None:
    rows = seeded(seed, 3, 4)
    mean = rows.mean(axis=0)
    radius = c * np.linalg.norm(mean)
    direction = conflict_averse(rows @ rows.T, c) @ rows
    assert np.linalg.norm(direction - mean) == pytest.approx(radius, rel=1e-9)
    steps = np.linspace(0, 1, 101)
    grid = np.array([(a, b, 1 - a - b) for a, b in itertools.product(steps, steps) if a + b <= 1])
    duals = grid @ rows @ mean + radius * np.linalg.norm(grid @ rows, axis=1)
    # strong duality: no point of the simplex is under what the direction gains
    assert gain(rows, direction) <= duals.min() + 1e-9 * abs(duals).max()
    assert gain(rows, direction) == pytest.approx(duals.min(), abs=2e-3 * abs(duals).max())


@pytest.mark.parametrize("name", list(jacobians()))
def test_primal_and_dual_meet(name: str) -> None:
    rows, c = jacobians()[name], 0.4
    mean = rows.mean(axis=0)
    radius = c * float(np.linalg.norm(mean))
    weights = conflict_averse(rows @ rows.T, c)
    simplex, direction = weights - 1 / len(rows), weights @ rows
    assert simplex.min() >= -1e-12
    moved = np.linalg.norm(direction - mean)
    if moved < radius * (1 - 1e-6):  # both are 0: no direction serves all tasks
        shortest = np.linalg.norm(minimum_norm(*unit_rows(rows @ rows.T)) @ rows)
        assert shortest <= 1e-6 * np.linalg.norm(rows, axis=1).min()
        assert gain(rows, direction) >= -1e-7 * radius * np.linalg.norm(rows, axis=1).max()
        return
    assert moved == pytest.approx(radius, rel=1e-6)
    simplex /= simplex.sum()
    dual = float(simplex @ rows @ mean) + radius * float(np.linalg.norm(simplex @ rows))
    scale = radius * float(np.linalg.norm(rows, axis=1).max())
    assert gain(rows, weights @ rows) == pytest.approx(dual, abs=1e-7 * scale)


def test_two_tasks_by_hand() -> None:
    # mirror images: w is 1/2 each, g_w the mean, and the direction (1 + c) times it
    rows = np.array([[1.0, 2], [1, -2]])
    np.testing.assert_allclose(conflict_averse(rows @ rows.T, 0.5), [0.75, 0.75], atol=1e-9)


def test_without_a_radius_it_is_the_mean() -> None:
    rows = jacobians()["opposed"]
    np.testing.assert_array_equal(conflict_averse(rows @ rows.T, 0.0), np.full(3, 1 / 3))


@pytest.mark.parametrize("factor", [1e-12, 1.0])
@pytest.mark.parametrize(("second", "expected"), [(-1.0, [0, 0]), (-2.0, [0.7, 0.5])])
def test_opposite_gradients_by_hand(second: float, expected: list[float], factor: float) -> None:
    # the ball around a mean of -0.5 ends at -0.3, where the first task loses least; around a mean of 0 it is a point
    rows = factor * np.array([[1.0, 0], [second, 0]])
    np.testing.assert_allclose(conflict_averse(rows @ rows.T, 0.4), expected, atol=1e-9)


@pytest.mark.parametrize("length", [1e-6, 1e-8, 1e-12])
def test_a_short_row_does_not_stop_the_others(length: float) -> None:
    """As that of a classifier which is sure and right."""
    rows = np.array([[1.0, 0.2, 0], [0.3, 1, 0.1]])
    units, rows = rows / np.linalg.norm(rows, axis=1, keepdims=True), rows * np.array([[1.0], [length]])
    mean = rows.mean(axis=0)
    direction = conflict_averse(rows @ rows.T, 0.4) @ rows
    # the whole radius for the task that gains least
    expected = mean + 0.4 * np.linalg.norm(mean) * units[1]
    np.testing.assert_allclose(direction, expected, rtol=1e-6)


def test_where_two_tasks_cannot_both_gain_a_third_one_still_does() -> None:
    rows = np.array([[1.0, 0, 0], [-0.9, 0, 0], [0, 1, 0]])
    # the mean is (0.1, 1, 0) / 3, and without its first part, which is within the radius, it harms nobody
    np.testing.assert_allclose(conflict_averse(rows @ rows.T, 0.4) @ rows, [0, 1 / 3, 0], atol=1e-7)


def test_trap_4_small_gradients_are_not_taken_for_none() -> None:
    """torchjd normalises with an absolute tolerance."""
    rows = jacobians()["opposed"]
    expected = conflict_averse(rows @ rows.T, 0.4)
    np.testing.assert_allclose(conflict_averse(1e-24 * rows @ rows.T, 0.4), expected, rtol=1e-7)
