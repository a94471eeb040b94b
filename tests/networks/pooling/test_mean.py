from __future__ import annotations

import torch

from medmtl.networks.pooling.mean import Mean
from tests.networks.pooling.contract import PoolingContract


class TestMean(PoolingContract):
    cls = Mean


def test_by_hand_and_with_a_frame_of_zeros() -> None:
    whole = torch.tensor([1.0, -2.0, 3.0, 6.0]).reshape(1, 1, 1, 2, 2)
    assert Mean(1)(whole).tolist() == [[2.0]]
    assert Mean(1)(torch.nn.functional.pad(whole, (0, 2))).tolist() == [[1.0]]
