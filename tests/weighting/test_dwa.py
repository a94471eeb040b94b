from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torchjd.scalarization import DWA

from medmtl.weighting.dwa import Dwa, DwaOptions
from tests.weighting.contract import TASKS, Toy, WeightingContract

# of four epochs of two steps
LOSSES = [[1.0, 4.0, 9.0], [0.8, 4.2, 8.0], [0.6, 4.0, 5.0], [0.5, 3.9, 6.0], [0.4, 4.1, 2.0], [0.2, 4.0, 1.0]]


def make(**options: float) -> Dwa:
    return Dwa(DwaOptions(kind="dwa", **options), TASKS)


def weights_of(method: Dwa, present: tuple[str, ...] = TASKS) -> dict[str, float]:
    toy = Toy()
    return dict(method.backward(toy.losses(list(present)), trained=toy.trained()))


def record(method: Dwa, epoch: int, **losses: float) -> None:
    method.after_step(losses, {}, epoch)


class TestDwa(WeightingContract):
    cls = Dwa
    options = {"kind": "dwa"}
    has_state = True


@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_the_weights_are_torchjds_one_step_later(temperature: float) -> None:
    method, reference = make(temperature=temperature), DWA(temperature)
    for step, losses in enumerate(LOSSES):
        values = torch.tensor(losses, requires_grad=True)
        reference(values).backward()
        if step % 2:
            assert list(weights_of(method).values()) == pytest.approx(values.grad.tolist())
            reference.step()
        method.after_step(dict(zip(TASKS, losses, strict=True)), {}, step // 2)
    assert max(weights_of(method).values()) > 1.05


def test_the_first_two_epochs_have_equal_weights() -> None:
    method = make()
    for epoch in (0, 0, 1, 1):
        assert weights_of(method) == dict.fromkeys(TASKS, 1.0)
        record(method, epoch, organ=1.0 / (epoch + 1), grade=1.0, age=1.0)
    record(method, 2, organ=0.1, grade=1.0, age=1.0)
    assert weights_of(method)["organ"] < 1 < weights_of(method)["grade"]


def test_a_task_that_was_absent_for_an_epoch_keeps_its_ratio() -> None:
    method = make()
    for epoch, loss in enumerate([1.0, 0.5, 0.4]):
        record(method, epoch, organ=loss, grade=1.0, age=1.0)
    before = weights_of(method)
    record(method, 3, grade=1.0, age=1.0)  # closes the third epoch
    record(method, 4, grade=1.0, age=1.0)  # closes one without an organ
    assert method.ratios == pytest.approx({"organ": 0.8, "grade": 1.0, "age": 1.0})
    record(method, 5, organ=0.1, grade=1.0, age=1.0)
    assert method.ratios["organ"] == pytest.approx(0.8)
    record(method, 6, organ=0.1, grade=1.0, age=1.0)
    assert method.ratios["organ"] == pytest.approx(0.25)
    assert before["organ"] < 1


def test_weights_are_not_rescaled_where_tasks_are_absent() -> None:
    method = make()
    for epoch, loss in enumerate([1.0, 0.5, 0.4]):
        record(method, epoch, organ=loss, grade=1.0, age=1.0)
    assert weights_of(method, ("organ",))["organ"] == weights_of(method)["organ"]


def test_epochs_of_zero_loss_are_finite() -> None:
    method = make()
    for epoch, loss in enumerate([1.0, 0.0, 0.0, 1.0, 1.0]):
        record(method, epoch, organ=loss, grade=1.0, age=1.0)
        assert all(map(math.isfinite, weights_of(method).values()))
        assert sum(weights_of(method).values()) == pytest.approx(3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        make(temperature=temperature)
