from __future__ import annotations

import numpy as np
import pytest
import torch
from torchjd.aggregation import GradVac

from tests.weighting.test_gradient_kinds import make

GRAM = np.array([[1.0, -0.5], [-0.5, 1.0]])


def test_the_averages_move_by_the_decay_and_are_kept_by_name() -> None:
    method = make("gradvac", ("a", "b", "c"), decay=0.1)
    method.weigh(GRAM, {"a": 1.0, "c": 1.0})  # type: ignore[operator]
    state = method.extra_state()["similarity"]
    assert state["a"]["c"] == pytest.approx(-0.05)
    assert {state["a"]["b"], state["b"]["a"], state["b"]["c"], state["c"]["b"]} == {0.0}


def test_a_conflict_is_turned_until_the_cosine_is_the_average() -> None:
    method = make("gradvac", ("a", "b"), decay=1e-9)
    method.load_extra_state({"similarity": {"a": {"b": 0.3}, "b": {"a": 0.3}}})
    weights = method.weigh(GRAM, {"a": 1.0, "b": 1.0})  # type: ignore[operator]
    # by symmetry each row gets the same part w of the other one, so that the cosine of g1 + w g2 with g2 is 0.3
    part = weights[0] - 1
    assert weights[0] == pytest.approx(weights[1])
    cosine = (-0.5 + part) / np.sqrt(1 - part + part**2)
    assert cosine == pytest.approx(0.3, abs=1e-6)


def test_the_state_decides_what_is_done() -> None:
    plain, other = make("gradvac", ("a", "b")), make("gradvac", ("a", "b"))
    other.load_extra_state({"similarity": {"a": {"b": 0.3}, "b": {"a": 0.3}}})
    losses = {"a": 1.0, "b": 1.0}
    assert (plain.weigh(GRAM, losses) < other.weigh(GRAM, losses)).all()  # type: ignore[operator]


def test_it_is_that_of_torchjd_over_several_steps() -> None:
    method, theirs = make("gradvac", ("a", "b", "c"), decay=0.3), GradVac(beta=0.3, eps=1e-12)
    for seed in range(6):
        rows = np.random.default_rng(seed).normal(size=(3, 5))
        torch.manual_seed(seed)
        weights = method.weigh(rows @ rows.T, dict.fromkeys("abc", 1.0))  # type: ignore[operator]
        torch.manual_seed(seed)
        np.testing.assert_allclose(weights @ rows, theirs(torch.from_numpy(rows)).numpy(), rtol=1e-6, atol=1e-9)
    state = method.extra_state()["similarity"]
    assert max(abs(value) for row in state.values() for value in row.values()) > 0.01


@pytest.mark.parametrize("length", [1.0, 1e-6, 1e-12])
def test_the_cosine_of_two_short_rows_beside_a_long_one_is_theirs(length: float) -> None:
    rows = np.array([[0, 0, 1.0], [length, 0, 0], [0.8 * length, 0.6 * length, 0]])
    method = make("gradvac", ("long", "a", "b"), decay=1.0)
    method.weigh(rows @ rows.T, dict.fromkeys(("long", "a", "b"), 1.0))  # type: ignore[operator]
    assert method.extra_state()["similarity"]["a"]["b"] == pytest.approx(0.8)


@pytest.mark.parametrize("second", [-1.0, -3.0])
def test_opposite_rows_cancel_out(second: float) -> None:
    rows = np.array([[0.3, -0.7, 1.1], [0.3 * second, -0.7 * second, 1.1 * second]])
    method = make("gradvac", ("a", "b"), decay=1.0)
    weights = method.weigh(rows @ rows.T, {"a": 1.0, "b": 1.0})  # type: ignore[operator]
    np.testing.assert_allclose(weights @ rows, np.zeros(3), atol=1e-7)
    assert method.extra_state()["similarity"]["a"]["b"] == pytest.approx(-1)
