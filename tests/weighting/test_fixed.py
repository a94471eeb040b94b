from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from medmtl.weighting.fixed import Fixed, FixedOptions
from tests.weighting.contract import TASKS, Toy, WeightingContract

WEIGHTS = {"organ": 2.0, "grade": 0.25, "age": 1.0}


def make(weights: dict[str, float]) -> Fixed:
    return Fixed(FixedOptions(kind="fixed", weights=weights), TASKS)


class TestFixed(WeightingContract):
    cls = Fixed
    options = {"kind": "fixed", "weights": WEIGHTS}


@pytest.mark.parametrize("present", [["organ", "grade", "age"], ["grade", "organ"], ["age"]], ids="+".join)
def test_the_gradient_is_the_weighted_sum(present: list[str]) -> None:
    toy = Toy()
    losses = toy.losses(present)
    expected = sum(WEIGHTS[name] * torch.autograd.grad(losses[name], toy.shared)[0] for name in present)
    weights = make(WEIGHTS).backward(toy.losses(present), trained=toy.trained())
    torch.testing.assert_close(toy.shared.grad, expected)
    assert weights == {name: WEIGHTS[name] for name in present}


def test_a_task_of_weight_zero_is_not_backpropagated() -> None:
    toy = Toy()
    losses = toy.losses(list(TASKS))
    # an infinite loss times 0 would be NaN
    losses["grade"] = losses["grade"] * math.inf
    weights = make({**WEIGHTS, "grade": 0}).backward(losses, trained=toy.trained())
    shared, organ, grade, age = toy.gradients()
    assert grade is None
    assert all(g is not None and torch.isfinite(g).all() for g in (shared, organ, age))
    assert weights == {"organ": 2.0, "age": 1.0}


def test_a_step_in_which_only_tasks_of_weight_zero_are_present_fills_nothing() -> None:
    toy = Toy()
    weights = make({**WEIGHTS, "grade": 0}).backward(toy.losses(["grade"]), trained=toy.trained())
    assert toy.gradients() == [None] * 4
    assert weights == {}


@pytest.mark.parametrize(
    "weights",
    [{"organ": 1.0, "grade": 1.0}, {**WEIGHTS, "volume": 1.0}, {}],
    ids=["missing", "unknown", "none"],
)
def test_every_task_is_named_once(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"weighting\.weights must name every task"):
        make(weights)


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weighting\.weights are all 0"):
        make(dict.fromkeys(TASKS, 0.0))


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_weight_is_finite_and_not_negative(weight: float) -> None:
    with pytest.raises(ValidationError, match=r"weights\.age"):
        make({**WEIGHTS, "age": weight})
