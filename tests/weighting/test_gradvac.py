from __future__ import annotations

import numpy as np
import pytest

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
