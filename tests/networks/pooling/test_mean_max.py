from __future__ import annotations

import torch

from medmtl.networks.pooling.mean_max import MeanMax
from tests.networks.pooling.contract import PoolingContract


class TestMeanMax(PoolingContract):
    cls = MeanMax


def test_by_hand_and_with_a_frame_of_zeros() -> None:
    whole = torch.tensor([[1.0, -2.0, 3.0, 6.0], [-4.0, -4.0, 0.0, -4.0]]).reshape(1, 2, 1, 2, 2)
    assert MeanMax(2)(whole).tolist() == [[2.0, -3.0, 6.0, 0.0]]
    assert MeanMax(2)(torch.nn.functional.pad(whole, (0, 2))).tolist() == [[1.0, -1.5, 6.0, 0.0]]
