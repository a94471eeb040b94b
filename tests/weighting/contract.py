"""What every weighting kind must do. A kind's test subclasses ``WeightingContract``."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from medmtl import weighting
from medmtl.weighting.base import Trained, Weighting

TASKS = ("organ", "grade", "age")
SUBSETS = [list(chosen) for n in (1, 2, 3) for chosen in itertools.combinations(TASKS, n)]


class Toy(nn.Module):
    """A shared vector, and one head and one loss of another size per task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)  # as every step does
        generator = torch.Generator().manual_seed(0)
        self.shared = nn.Parameter(torch.randn(4, generator=generator))
        self.heads = nn.ParameterList(torch.randn(4, generator=generator) for _ in TASKS)

    def losses(self, present: list[str]) -> dict[str, torch.Tensor]:
        """Positive scalars of the present tasks."""
        return {
            name: 10.0**index * (torch.sin(self.shared) * self.heads[index]).square().sum()
            for index, name in enumerate(TASKS)
            if name in present
        }

    def trained(self) -> Trained:
        """The vector and the heads, by who reaches them."""
        return Trained([self.shared], [self.shared], list(self.heads))

    def gradients(self) -> list[torch.Tensor | None]:
        """A copy of what was filled: of the shared vector, then of each head."""
        return [None if p.grad is None else p.grad.clone() for p in (self.shared, *self.heads)]


def optimiser_of(method: Weighting) -> torch.optim.Optimizer | None:
    """One for the method's own parameters, where it has any."""
    own = list(method.parameters())
    return torch.optim.AdamW(own, lr=0.1, weight_decay=0.0) if own else None


def take_step(
    method: Weighting, present: list[str], epoch: int, optimiser: torch.optim.Optimizer | None = None
) -> None:
    """A step as in training; from epoch to epoch, and within a step, each loss falls at a pace of its own."""
    toy = Toy()
    losses = toy.losses(present)
    method.zero_grad(set_to_none=True)
    method.backward(losses, trained=toy.trained())
    optimiser = optimiser or optimiser_of(method)
    if optimiser is not None:
        optimiser.step()
    pace = {name: 0.9 ** (TASKS.index(name) + 1) for name in present}
    values = {name: float(loss.detach()) * pace[name] ** epoch for name, loss in losses.items()}
    again = {name: value * pace[name] for name, value in values.items()} if method.needs == "second forward" else {}
    method.after_step(values, again, epoch)


def state_of(method: Weighting, task: str, optimiser: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """All that a method, and the optimiser of its parameters, keeps under a task's name."""
    found = {name: value.tolist() for name, value in method.state_dict().items() if name.endswith(f"_{task}")}
    for name, parameter in method.named_parameters():
        if optimiser is not None and name.endswith(f"_{task}"):
            found |= {f"{name}.{slot}": value.tolist() for slot, value in optimiser.state[parameter].items()}

    def collect(state: Mapping[str, Any], above: str) -> None:
        for key, value in state.items():
            if key == task:
                found[f"{above}.{key}"] = copy.deepcopy(value)
            elif isinstance(value, Mapping):
                collect(value, f"{above}.{key}")

    collect(method.extra_state(), "extra")
    return found


class WeightingContract:
    """Attributes:
    cls, options: the kind and valid options of it, in which every task of ``TASKS`` counts.
    has_state: whether it keeps something per task from step to step.
    """

    cls: ClassVar[type[Weighting]]
    options: ClassVar[Mapping[str, Any]]
    has_state: ClassVar[bool] = False

    def make(self, tasks: tuple[str, ...] = TASKS) -> Weighting:
        return self.cls(self.cls.Options.model_validate(self.options), tasks)

    def run(self, present: list[str], **arguments: Any) -> list[torch.Tensor | None]:
        """Gradients of a fresh method on a fresh model."""
        toy = Toy()
        torch.manual_seed(0)  # as every step of a training does
        self.make().backward(toy.losses(present), trained=toy.trained(), **arguments)
        return toy.gradients()

    def test_it_is_registered(self) -> None:
        assert weighting.kinds.get(self.cls.kind) is self.cls

    @pytest.mark.parametrize("present", SUBSETS, ids="+".join)
    def test_any_tasks_may_be_present_and_absent_ones_get_no_gradient(self, present: list[str]) -> None:
        shared, *heads = self.run(present)
        assert shared is not None
        assert shared.abs().sum() > 0
        for name, head in zip(TASKS, heads, strict=True):
            assert (head is not None) == (name in present)

    @pytest.mark.parametrize("present", SUBSETS, ids="+".join)
    def test_weights_are_those_of_present_tasks(self, present: list[str]) -> None:
        toy = Toy()
        weights = self.make().backward(toy.losses(present), trained=toy.trained())
        assert weights is None or set(weights) == set(present)
        if self.cls.needs == "gradients":
            # that of a row may be negative, where the papers' is
            assert all(math.isfinite(weight) for weight in (weights or {}).values())
        else:
            assert all(weight >= 0 for weight in (weights or {}).values())

    def test_a_scale_multiplies_every_gradient(self) -> None:
        if self.cls.needs == "gradients":  # there is never a scaler
            plain, scaled = self.run(list(TASKS)), self.run(list(TASKS), scale=lambda loss: loss * 8)
            assert all(torch.equal(*pair) for pair in zip(plain, scaled, strict=True))
            return
        self._check_scale()

    def _check_scale(self) -> None:
        toy = Toy()
        scaled = self.make()
        scaled.backward(toy.losses(list(TASKS)), trained=toy.trained(), scale=lambda loss: loss * 8)
        other = Toy()
        self.make().backward(other.losses(list(TASKS)), trained=other.trained())
        for big, small in zip(toy.gradients(), other.gradients(), strict=True):
            assert big is not None
            assert small is not None
            torch.testing.assert_close(big, small * 8)

    def test_equal_inputs_give_equal_bits(self) -> None:
        for first, second in zip(self.run(list(TASKS)), self.run(list(TASKS)), strict=True):
            assert first is not None
            assert second is not None
            assert torch.equal(first, second)

    def trained(self, steps: list[list[str]], tasks: tuple[str, ...] = TASKS) -> Weighting:
        """A method after steps in which these tasks were present, each an epoch of its own."""
        method = self.make(tasks)
        for epoch, present in enumerate(steps):
            take_step(method, present, epoch)
        return method

    def gradients_and_weights(self, method: Weighting) -> tuple[list[torch.Tensor | None], Mapping[str, float] | None]:
        """What it fills and returns next, without changing it."""
        toy = Toy()
        return_value = method.backward(toy.losses(list(TASKS)), trained=toy.trained())
        return toy.gradients(), return_value

    @pytest.mark.parametrize("tasks", [TASKS, TASKS[::-1]], ids=["same order", "another order"])
    def test_state_goes_through_json_by_name(self, tasks: tuple[str, ...]) -> None:
        method = self.trained([*SUBSETS, list(TASKS)])
        restored = self.make(tasks)
        restored.load_state_dict(method.state_dict())
        restored.load_extra_state(json.loads(json.dumps(method.extra_state())))
        assert restored.extra_state() == method.extra_state()
        for task in TASKS:
            assert state_of(restored, task) == state_of(method, task)
        if self.cls.needs == "gradients" and tasks != TASKS:
            return  # rows are added up, and orders are drawn, in the order of the file
        (expected, weights), (found, found_weights) = map(self.gradients_and_weights, (method, restored))
        assert found_weights == weights
        for ours, theirs in zip(found, expected, strict=True):
            assert ours is not None and theirs is not None and torch.equal(ours, theirs)
        if self.has_state and self.cls.needs != "gradients":  # whose rows are the same in each of these steps
            fresh = self.gradients_and_weights(self.make())[0][0]
            assert fresh is not None and found[0] is not None and not torch.equal(fresh, found[0])

    def test_state_of_other_tasks_is_refused(self) -> None:
        if not self.has_state:
            return
        method, fewer = self.trained([list(TASKS)]), self.make(TASKS[:2])
        # what a resume turns into its own error
        with pytest.raises((KeyError, RuntimeError, ValueError)):
            fewer.load_state_dict(method.state_dict())
            fewer.load_extra_state(json.loads(json.dumps(method.extra_state())))

    @pytest.mark.parametrize("absent", TASKS)
    def test_the_state_of_an_absent_task_is_unchanged_by_a_step(self, absent: str) -> None:
        method = self.make()
        optimiser = optimiser_of(method)
        take_step(method, list(TASKS), 0, optimiser)
        others = [name for name in TASKS if name != absent]
        before = {name: state_of(method, name, optimiser) for name in TASKS}
        take_step(method, others, 0, optimiser)
        assert state_of(method, absent, optimiser) == before[absent]
        if self.has_state:
            assert all(before.values())
            assert any(state_of(method, name, optimiser) != before[name] for name in others)
