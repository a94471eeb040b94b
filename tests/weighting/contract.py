"""What every weighting kind must do. A kind's test subclasses ``WeightingContract``."""

from __future__ import annotations

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


class WeightingContract:
    """Attributes:
    cls, options: the kind and valid options of it, in which every task of ``TASKS`` counts.
    """

    cls: ClassVar[type[Weighting]]
    options: ClassVar[Mapping[str, Any]]

    def make(self) -> Weighting:
        return self.cls(self.cls.Options.model_validate(self.options), TASKS)

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

    def test_state_goes_through_json(self) -> None:
        method = self.make()
        for present in SUBSETS:
            toy = Toy()
            losses = toy.losses(present)
            method.backward(losses, trained=toy.trained())
            values = {name: float(loss.detach()) for name, loss in losses.items()}
            # a little less than before
            again = {name: value * 0.9 for name, value in values.items()} if method.needs == "second forward" else {}
            method.after_step(values, again, len(present))
        restored = self.make()
        restored.load_state_dict(method.state_dict())
        restored.load_extra_state(json.loads(json.dumps(method.extra_state())))
        assert restored.extra_state() == method.extra_state()
        shared = []
        for each in (method, restored):
            toy = Toy()
            torch.manual_seed(0)
            each.backward(toy.losses(list(TASKS)), trained=toy.trained())
            assert toy.shared.grad is not None
            shared.append(toy.shared.grad)
        assert torch.equal(*shared)
