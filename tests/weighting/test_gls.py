from __future__ import annotations

import math

import pytest
import torch
from torchjd.scalarization import GeometricMean as Reference

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.gls import GeometricMean
from tests.weighting.contract import SUBSETS, TASKS, Toy, WeightingContract


def make() -> GeometricMean:
    return GeometricMean(WeightingOptions(kind="gls"), TASKS)


class TestGeometricMean(WeightingContract):
    cls = GeometricMean
    options = {"kind": "gls"}


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
def test_it_is_torchjds_times_the_number_of_present_tasks(present: list[str]) -> None:
    ours, theirs = Toy(), Toy()
    weights = make().backward(ours.losses(present), trained=ours.trained())
    (len(present) * Reference()(torch.stack(list(theirs.losses(present).values())))).backward()
    for one, other in zip(ours.gradients(), theirs.gradients(), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
    assert math.prod(weights.values()) == pytest.approx(1)


def test_a_loss_of_zero_is_finite() -> None:
    toy = Toy()
    losses = toy.losses(list(TASKS))
    losses["grade"] = losses["grade"] * 0
    weights = make().backward(losses, trained=toy.trained())
    assert all(map(math.isfinite, weights.values()))
    assert all(g is not None and torch.isfinite(g).all() for g in toy.gradients())
