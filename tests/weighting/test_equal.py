from __future__ import annotations

import pytest
import torch

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.equal import Equal
from tests.weighting.contract import SUBSETS, TASKS, Toy, WeightingContract


class TestEqual(WeightingContract):
    cls = Equal
    options = {"kind": "equal"}


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
def test_the_gradient_is_the_sum_whoever_is_absent(present: list[str]) -> None:
    toy = Toy()
    expected = sum(torch.autograd.grad(loss, toy.shared)[0] for loss in Toy.losses(toy, present).values())
    weights = Equal(WeightingOptions(kind="equal"), TASKS).backward(toy.losses(present), trained=toy.trained())
    torch.testing.assert_close(toy.shared.grad, expected)
    assert weights == dict.fromkeys(present, 1.0)
