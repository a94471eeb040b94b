from __future__ import annotations

import math

import pytest
import torch

from medmtl.networks.pooling.attention import HIDDEN, GatedAttention
from tests.networks.pooling.contract import PoolingContract, a_map


class TestGatedAttention(PoolingContract):
    cls = GatedAttention


@pytest.fixture
def plain() -> GatedAttention:
    """One channel and one unit that is not zero: a voxel's score is 3 tanh(2 f) sigmoid(f + 1)."""
    pooling = GatedAttention(1)
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.zero_()
        pooling.content.weight[0] = 2.0
        pooling.gate.weight[0] = 1.0
        pooling.gate.bias[0] = 1.0
        pooling.score.weight[0, 0] = 3.0
    return pooling


def test_by_hand_and_with_a_frame_of_zeros(plain: GatedAttention) -> None:
    values = [0.5, -1.0, 2.0, 0.1]
    whole = torch.tensor(values).reshape(1, 1, 1, 2, 2)
    raw = [math.exp(3 * math.tanh(2 * f) / (1 + math.exp(-f - 1))) for f in values]
    assert plain.weights(whole).flatten().tolist() == pytest.approx([r / sum(raw) for r in raw], rel=1e-5)
    total = sum(r * f for r, f in zip(raw, values, strict=True))
    assert plain(whole).item() == pytest.approx(total / sum(raw), rel=1e-5)
    # four voxels of 0 have the weight exp(0) each
    assert plain(torch.nn.functional.pad(whole, (0, 2))).item() == pytest.approx(total / (sum(raw) + 4), rel=1e-5)


def test_weights_are_those_of_voxels_and_sum_to_one_per_sample() -> None:
    torch.manual_seed(0)
    weight = GatedAttention(4).weights(50 * a_map())
    assert weight.shape == (3, 3, 4, 2)
    assert (weight >= 0).all()
    torch.testing.assert_close(weight.sum((1, 2, 3)), torch.ones(3))
    assert weight.std().item() > 1e-3


def test_the_layer_is_small() -> None:
    assert sum(p.numel() for p in GatedAttention(320).parameters()) == 2 * (320 + 1) * HIDDEN + HIDDEN
