from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torchjd.scalarization import STCH

from medmtl.weighting.stch import Stch, StchOptions
from tests.weighting.contract import TASKS, Toy, WeightingContract

NADIRS = {"organ": 2.0, "grade": 10.0, "age": 300.0}


def make(**options: Any) -> Stch:
    return Stch(StchOptions(kind="stch", **options), TASKS)


def warmed_up(**options: Any) -> Stch:
    method = make(**options)
    method.after_step({name: 0.5 * nadir for name, nadir in NADIRS.items()}, {}, 0)
    method.after_step({name: 1.5 * nadir for name, nadir in NADIRS.items()}, {}, 0)
    method.after_step(dict.fromkeys(TASKS, 1e9), {}, 1)
    return method


class TestStch(WeightingContract):
    cls = Stch
    options = {"kind": "stch", "mu": 2.0}
    has_state = True


@pytest.mark.parametrize("mu", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("present", [TASKS, ("organ", "age"), ("age",)], ids="+".join)
def test_it_is_torchjds_with_the_nadirs_inverse_as_preference(mu: float, present: tuple[str, ...]) -> None:
    ours, theirs = Toy(), Toy()
    warmed_up(mu=mu).backward(ours.losses(list(present)), trained=ours.trained())
    reference = STCH(mu, torch.tensor([1 / NADIRS[name] for name in present]))
    (len(present) * reference(torch.stack(list(theirs.losses(list(present)).values())))).backward()
    torch.testing.assert_close(ours.shared.grad, theirs.shared.grad)


def test_the_warm_up_has_equal_weights_and_only_its_last_epoch_is_measured() -> None:
    method, toy = make(warm_up=2), Toy()
    for epoch, loss in ((0, 7.0), (1, 2.0), (1, 4.0)):
        assert method.backward(toy.losses(list(TASKS)), trained=toy.trained()) == dict.fromkeys(TASKS, 1.0)
        method.after_step(dict.fromkeys(TASKS, loss), {}, epoch)
    method.after_step(dict.fromkeys(TASKS, 100.0), {}, 2)
    assert method.sums == dict.fromkeys(TASKS, 6.0)
    assert method.counts == dict.fromkeys(TASKS, 2)
    assert method.backward(toy.losses(list(TASKS)), trained=toy.trained()) != dict.fromkeys(TASKS, 1.0)


def test_a_task_that_the_warm_up_did_not_see_is_measured_by_its_first_loss() -> None:
    method = make()
    method.after_step({"organ": 2.0, "grade": 1.0}, {}, 0)
    method.after_step({"organ": 2.0, "grade": 1.0}, {}, 1)
    losses = {name: torch.tensor(value, requires_grad=True) for name, value in {"organ": 2.0, "age": 8.0}.items()}
    weights = method.backward(losses, trained=Toy().trained())
    assert weights == pytest.approx({"organ": 1 / 2, "age": 1 / 8})
    method.after_step({"organ": 2.0, "age": 8.0}, {}, 1)
    method.after_step({"age": 4.0}, {}, 1)
    assert (method.sums["age"], method.counts["age"]) == (8.0, 1)


@pytest.mark.parametrize("seen", [TASKS, ("organ",)], ids="+".join)
def test_losses_of_zero_are_finite(seen: tuple[str, ...]) -> None:
    method, toy = make(), Toy()
    method.after_step(dict.fromkeys(seen, 0.0), {}, 0)
    method.after_step(dict.fromkeys(seen, 0.0), {}, 1)
    losses = {name: loss * 0 for name, loss in toy.losses(list(TASKS)).items()}
    weights = method.backward(losses, trained=toy.trained())
    assert all(map(math.isfinite, weights.values()))
    assert all(g is not None and torch.isfinite(g).all() for g in toy.gradients())


@pytest.mark.parametrize("option", [{"mu": 0.0}, {"mu": math.nan}, {"warm_up": 0}, {"warm_up": 1.5}], ids=str)
def test_options_out_of_range_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(option))):
        make(**option)
