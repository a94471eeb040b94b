"""The small solvers against brute force over all supports, and against the conditions of Karush, Kuhn and Tucker."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from medmtl.weighting.quadratic import Array, dual_cone, minimum_norm, nearest_above, unit_rows
from tests.weighting.jacobians import jacobians, seeded

CASES = list(jacobians())


def factored(rows: Array) -> tuple[Array, Array]:
    return unit_rows(rows @ rows.T)


@pytest.mark.parametrize("name", CASES)
def test_unit_rows_have_the_inner_products_of_the_rows(name: str) -> None:
    rows = jacobians()[name]
    units, lengths = factored(rows)
    cosines = rows @ rows.T / np.outer(*[np.linalg.norm(rows, axis=1)] * 2)
    np.testing.assert_allclose(units.T @ units, cosines, atol=1e-13)
    np.testing.assert_allclose(lengths, np.linalg.norm(rows, axis=1), rtol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_the_shortest_combination_satisfies_its_conditions(name: str) -> None:
    rows = jacobians()[name]
    weights = minimum_norm(*factored(rows))
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
    shortest = weights @ rows
    # no row is more opposed to the point than the point itself, and those in use are exactly as long along it
    along, size = rows @ shortest, float(shortest @ shortest)
    tolerance = 1e-9 * np.linalg.norm(rows, axis=1) * np.linalg.norm(rows, axis=1).min()
    assert (along >= size - tolerance).all()
    assert (np.abs(along - size)[weights > 1e-9] <= tolerance[weights > 1e-9]).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_shortest_combination_is_that_of_a_grid_over_the_simplex(seed: int) -> None:
    rows = seeded(seed, 3, 4)
    steps = np.linspace(0, 1, 201)
    grid = np.array([(a, b, 1 - a - b) for a, b in itertools.product(steps, steps) if a + b <= 1])
    lengths = np.linalg.norm(grid @ rows, axis=1)
    found = float(np.linalg.norm(minimum_norm(*factored(rows)) @ rows))
    assert found <= lengths.min() * (1 + 1e-9)
    assert found == pytest.approx(lengths.min(), abs=0.02 * np.linalg.norm(rows, axis=1).max())


def test_a_zero_row_is_the_shortest_combination() -> None:
    rows = np.array([[1.0, 0], [0, 0], [0, 1]])
    np.testing.assert_array_equal(minimum_norm(*factored(rows)), [0, 1, 0])


@pytest.mark.parametrize("name", CASES)
def test_a_projection_to_the_dual_cone_satisfies_its_conditions(name: str) -> None:
    rows = jacobians()[name]
    sizes = np.linalg.norm(rows, axis=1)
    wanted = 1 / len(rows) * np.ones(len(rows))
    weights = dual_cone(*factored(rows), wanted)
    gained = (rows / sizes[:, None]) @ (weights @ rows)
    scale = float(np.linalg.norm(wanted[:, None] * rows, axis=1).max())
    assert (weights >= wanted).all()
    assert (gained >= -1e-9 * scale).all()
    assert np.abs(gained[(weights - wanted) * sizes > 1e-9 * scale]).max(initial=0) <= 1e-9 * scale


@pytest.mark.parametrize("seed", range(5))
def test_a_projection_to_the_dual_cone_is_that_of_brute_force(seed: int) -> None:
    rows = seeded(seed, 4)
    wanted = np.array([0.5, 0.0, 0.2, 0.3])
    gram = rows @ rows.T
    best = np.inf
    for held in itertools.product([False, True], repeat=4):
        free = np.flatnonzero(~np.array(held))
        weights = wanted.copy()
        if len(free):
            fixed = np.flatnonzero(held)
            weights[free] = np.linalg.solve(gram[np.ix_(free, free)], -gram[np.ix_(free, fixed)] @ wanted[fixed])
        if (weights >= wanted - 1e-12).all():
            best = min(best, float(weights @ gram @ weights))
    found = dual_cone(*factored(rows), wanted)
    assert float(found @ gram @ found) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_the_nearest_point_above_satisfies_its_conditions(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(4, 6))
    units, _ = factored(rows)
    point, least = 3 * units[:, 0] - units[:, 1], np.array([0.3, 0.5, 0.1, 0.0])
    multipliers = nearest_above(units, point, least)
    assert multipliers is not None and (multipliers >= 0).all()
    slack = units.T @ (point + units @ multipliers) - least
    assert slack.min() >= -1e-9
    assert np.abs(slack[multipliers > 1e-9]).max(initial=0) <= 1e-9
    assert (multipliers > 1e-9).any()


def test_bounds_that_contradict_each_other_have_no_point() -> None:
    units = np.array([[1.0, -1], [0, 0]])
    assert nearest_above(units, np.array([0.0, 1]), np.array([0.1, 0.1])) is None
