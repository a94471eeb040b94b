from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torchjd.scalarization import UW

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.uncertainty import Uncertainty
from tests.weighting.contract import TASKS, Toy, WeightingContract


class TestUncertainty(WeightingContract):
    cls = Uncertainty
    options = {"kind": "uncertainty"}
    has_state = True


def make(log_variances: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Uncertainty:
    method = Uncertainty(WeightingOptions(kind="uncertainty"), TASKS)
    for name, value in zip(TASKS, log_variances, strict=True):
        method.get_parameter(f"log_scale_{name}").data.fill_(value)
    return method


def test_it_is_torchjds_form_at_s_plus_log_2() -> None:
    ours, theirs, reference = Toy(), Toy(), UW(3)
    reference.log_var.data = torch.tensor([0.3, -1.0, 2.0])
    # half of exp(-s) L is exp(-s - log 2) L
    method = make(tuple((reference.log_var.data + math.log(2)).tolist()))
    method.backward(ours.losses(list(TASKS)), trained=ours.trained())
    reference(torch.stack(list(theirs.losses(list(TASKS)).values()))).backward()
    for one, other in zip(ours.gradients(), theirs.gradients(), strict=True):
        torch.testing.assert_close(one, other)
    own = torch.stack([method.get_parameter(f"log_scale_{name}").grad for name in TASKS])
    torch.testing.assert_close(own, reference.log_var.grad)


def test_weights_start_at_one_and_settle_at_half_the_inverse_of_the_loss() -> None:
    method = make()
    optimiser = torch.optim.Adam(method.parameters(), lr=0.1)
    losses = {"organ": 0.2, "grade": 1.0, "age": 5.0}
    seen: list[Mapping[str, float]] = []
    for _ in range(200):
        toy = Toy()
        optimiser.zero_grad()
        # values that stay, whatever the gradients
        tied = {name: 0 * loss + losses[name] for name, loss in toy.losses(list(TASKS)).items()}
        seen.append(method.backward(tied, trained=toy.trained()))
        optimiser.step()
    assert seen[0] == dict.fromkeys(TASKS, 1.0)
    assert seen[-1] == pytest.approx({name: 1 / (2 * loss) for name, loss in losses.items()}, rel=1e-2)


def test_an_absent_task_gets_no_gradient_for_its_scale() -> None:
    method, toy = make(), Toy()
    method.backward(toy.losses(["organ", "age"]), trained=toy.trained())
    found = {name: method.get_parameter(f"log_scale_{name}").grad is not None for name in TASKS}
    assert found == {"organ": True, "grade": False, "age": True}


def test_a_loss_of_zero_is_finite() -> None:
    method, toy = make(), Toy()
    losses = toy.losses(list(TASKS))
    losses["grade"] = losses["grade"] * 0
    method.backward(losses, trained=toy.trained())
    assert all(g is not None and torch.isfinite(g).all() for g in toy.gradients())
    assert float(method.get_parameter("log_scale_grade").grad) == 0.5


@pytest.mark.parametrize("name", ["type", "training", "keys"])
def test_a_task_may_be_called_like_an_attribute(name: str) -> None:
    assert list(Uncertainty(WeightingOptions(kind="uncertainty"), [name]).state_dict()) == [f"log_scale_{name}"]
