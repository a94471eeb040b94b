from __future__ import annotations

import pytest
import torch
from torchjd.scalarization import Random

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.rlw import RandomWeights
from tests.weighting.contract import SUBSETS, TASKS, Toy, WeightingContract


def make() -> RandomWeights:
    return RandomWeights(WeightingOptions(kind="rlw"), TASKS)


class TestRandomWeights(WeightingContract):
    cls = RandomWeights
    options = {"kind": "rlw"}


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
def test_the_weights_sum_to_the_number_of_present_tasks(present: list[str]) -> None:
    toy = Toy()
    weights = make().backward(toy.losses(present), trained=toy.trained())
    assert sum(weights.values()) == pytest.approx(len(present))


def test_it_is_torchjds_times_the_number_of_tasks() -> None:
    ours, theirs = Toy(), Toy()
    torch.manual_seed(7)
    make().backward(ours.losses(list(TASKS)), trained=ours.trained())
    torch.manual_seed(7)
    (3 * Random()(torch.stack(list(theirs.losses(list(TASKS)).values())))).backward()
    torch.testing.assert_close(ours.shared.grad, theirs.shared.grad)


def test_each_seed_has_its_own_draw() -> None:
    found = []
    for seed in (1, 2, 1):
        toy = Toy()
        torch.manual_seed(seed)
        found.append(make().backward(toy.losses(list(TASKS)), trained=toy.trained()))
    assert found[0] == found[2] != found[1]
