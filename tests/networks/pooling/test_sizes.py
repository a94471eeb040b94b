from __future__ import annotations

import math

import pytest
import torch

from medmtl.networks.features import Features, Guide
from medmtl.networks.pooling.sizes import EXTENT_GAIN, LEAST, SHAPE_GAIN, Sizes


def sample(*shape: int, totals: list[list[float]] | None = None) -> Features:
    """A finest map of one channel, and a guide with so many voxels of each label."""
    totals = [[]] if totals is None else totals
    guide = Guide(torch.zeros(len(totals), 1, *shape), torch.tensor(totals))
    return Features((torch.zeros(len(totals), 1, *shape),), guides=(guide,) if totals[0] else ())


def test_it_is_the_logarithms_by_hand() -> None:
    sizes = Sizes(2).eval()
    mean = [math.log(32), math.log(32), math.log(16), math.log(100), 0.0]
    sizes.standardise.mean.copy_(torch.tensor(mean))
    sizes.standardise.variance.copy_(torch.tensor([0.04, 0.04, 0.04, 0.25, 0.25]))
    found = sizes(sample(32, 64, 16, totals=[[99.0, 0.0], [9.0, math.e - 1]]))
    shape = SHAPE_GAIN * math.log(2) / math.hypot(0.2, LEAST)
    label = EXTENT_GAIN / math.hypot(0.5, LEAST)
    expected = [[0, shape, 0, 0, 0], [0, shape, 0, -label * math.log(10), label]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_where_all_samples_have_one_shape_it_is_0_and_another_shape_is_not_blown_up() -> None:
    sizes = Sizes(0).train()
    for _ in range(50):
        assert sizes(sample(40, 56, 24, totals=[[], []])).tolist() == [[0.0] * 3] * 2
    found = sizes.eval()(sample(44, 56, 24))
    assert found[0].tolist() == pytest.approx([SHAPE_GAIN * math.log(1.1) / LEAST, 0, 0], abs=1e-3)


def test_the_shapes_of_several_steps_get_deviation_1_before_the_gain() -> None:
    sizes = Sizes(0).train()
    generator = torch.Generator().manual_seed(0)
    found = []
    for step in range(300):
        side = int(torch.randint(24, 48, (1,), generator=generator))
        z = sizes(sample(side, side, side, totals=[[]] * 4))
        found += z[0, :1].tolist() if step >= 100 else []
    assert torch.tensor(found).std() / SHAPE_GAIN == pytest.approx(0.97, abs=0.1)


def test_it_is_fp32_and_without_a_gradient() -> None:
    features = Features((torch.ones(2, 1, 8, 8, 8, dtype=torch.bfloat16, requires_grad=True),))
    found = Sizes(0).train()(features)
    assert found.dtype == torch.float32 and not found.requires_grad
    assert "gain" not in Sizes(0).state_dict()
