from __future__ import annotations

import pytest
import torch

from medmtl.networks.pooling.mean_max import MeanMax
from tests.networks.pooling.contract import PoolingContract, a_map


class TestMeanMax(PoolingContract):
    cls = MeanMax


def test_by_hand_and_with_a_frame_of_zeros() -> None:
    whole = torch.tensor([[1.0, -2.0, 3.0, 6.0], [-4.0, -4.0, 0.0, -4.0]]).reshape(1, 2, 1, 2, 2)
    assert MeanMax(2)(whole).tolist() == [[2.0, -3.0, 6.0, 0.0]]
    assert MeanMax(2)(torch.nn.functional.pad(whole, (0, 2))).tolist() == [[1.0, -1.5, 6.0, 0.0]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_values_and_gradients_are_those_of_torch_s_own(layout: torch.memory_format) -> None:
    ours, theirs = (a_map().to(memory_format=layout).requires_grad_() for _ in range(2))
    found = MeanMax(4)(ours)
    wanted = torch.cat([theirs.mean((2, 3, 4)), theirs.amax((2, 3, 4))], dim=1)
    torch.testing.assert_close(found, wanted)
    weight_BF = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward([(found * weight_BF).sum(), (wanted * weight_BF).sum()])
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert ours.grad.is_contiguous(memory_format=layout)


def test_of_equal_maxima_one_gets_the_gradient() -> None:
    whole = torch.tensor([3.0, 3.0, 1.0, 3.0]).reshape(1, 1, 1, 2, 2).requires_grad_()
    torch.autograd.backward(MeanMax(1)(whole)[0, 1])
    assert whole.grad is not None
    assert sorted(whole.grad.flatten().tolist()) == [0.0, 0.0, 0.0, 1.0]
