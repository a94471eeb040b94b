from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torchjd.scalarization import FAMO

from medmtl.weighting.famo import Famo, FamoOptions
from tests.weighting.contract import SUBSETS, TASKS, Toy, WeightingContract


def make(**options: float) -> Famo:
    return Famo(FamoOptions(kind="famo", **options), TASKS)


def weights_of(method: Famo, present: list[str]) -> dict[str, float]:
    toy = Toy()
    return dict(method.backward(toy.losses(present), trained=toy.trained()))


class TestFamo(WeightingContract):
    cls = Famo
    options = {"kind": "famo"}
    has_state = True


@pytest.mark.parametrize(("rate", "decay"), [(0.025, 0.001), (0.3, 0.1)])
def test_it_is_torchjds_over_many_steps(rate: float, decay: float) -> None:
    method, reference = make(rate=rate, decay=decay), FAMO(3, lr=rate, weight_decay=decay).double()
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        before, after = torch.rand(2, 3, generator=generator, dtype=torch.float64) + 0.1
        ours = {name: value.clone().requires_grad_() for name, value in zip(TASKS, before, strict=True)}
        theirs = before.clone().requires_grad_()
        method.backward(ours, trained=Toy().trained())
        (3 * reference(theirs)).backward()
        torch.testing.assert_close(torch.stack([ours[name].grad for name in TASKS]), theirs.grad, rtol=1e-5, atol=0)
        values, again = (dict(zip(TASKS, each.tolist(), strict=True)) for each in (before, after))
        method.after_step(values, again, 0)
        reference.update(after)
    found = torch.stack([method.get_buffer(f"adam_{name}")[0] for name in TASKS])
    torch.testing.assert_close(found, reference._w.detach(), rtol=1e-5, atol=1e-7)
    assert found.abs().max() > 0.05


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
def test_the_weights_sum_to_the_number_of_present_tasks_and_start_with_equal_gradients_of_logarithms(
    present: list[str],
) -> None:
    losses = {name: float(loss.detach()) for name, loss in Toy().losses(present).items()}
    weights = weights_of(make(), present)
    assert sum(weights.values()) == pytest.approx(len(present))
    products = [weights[name] * losses[name] for name in present]
    assert products == pytest.approx([products[0]] * len(present))


def test_what_falls_less_counts_more() -> None:
    method = make()
    first = weights_of(method, list(TASKS))
    for _ in range(20):
        method.after_step(dict.fromkeys(TASKS, 1.0), {"organ": 0.5, "grade": 1.1, "age": 0.9}, 0)
    last = weights_of(method, list(TASKS))
    assert last["organ"] / last["grade"] < first["organ"] / first["grade"]


@pytest.mark.parametrize("again", [{}, {"organ": 0.5}], ids=["step left out", "one task"])
def test_a_step_that_compares_nothing_changes_nothing(again: dict[str, float]) -> None:
    method = make()
    method.after_step(dict.fromkeys(TASKS, 1.0), {"organ": 0.5, "grade": 1.1, "age": 0.9}, 0)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.after_step({"organ": 1.0}, again, 0)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_losses_of_zero_are_finite() -> None:
    method, toy = make(), Toy()
    losses = toy.losses(list(TASKS))
    losses["grade"] = losses["grade"] * 0
    weights = method.backward(losses, trained=toy.trained())
    assert all(map(math.isfinite, weights.values()))
    assert all(g is not None and torch.isfinite(g).all() for g in toy.gradients())
    method.after_step({"organ": 1.0, "grade": 0.0, "age": 0.0}, {"organ": 0.0, "grade": 1.0, "age": 0.0}, 0)
    assert all(bool(value.isfinite().all()) for value in method.state_dict().values())


def test_its_weights_are_none_of_the_optimisers() -> None:
    assert list(make().parameters()) == []


@pytest.mark.parametrize("option", [{"rate": 0.0}, {"rate": math.inf}, {"decay": -1.0}], ids=str)
def test_options_out_of_range_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(option))):
        make(**option)
