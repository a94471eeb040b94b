"""What every way to pool a map must do. A kind's test subclasses ``PoolingContract``."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from medmtl.networks.pooling import POOLINGS
from medmtl.networks.pooling.base import Pooling


def a_map(*, batch: int = 3, channels: int = 4, seed: int = 0) -> torch.Tensor:
    """A map of 3 x 4 x 2 voxels as a leaky ReLU leaves it."""
    drawn = torch.randn(batch, channels, 3, 4, 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.leaky_relu(drawn, 0.01)


class PoolingContract:
    """Attributes:
    cls: the kind.
    """

    cls: ClassVar[type[Pooling]]

    @pytest.fixture
    def pooling(self) -> Pooling:
        torch.manual_seed(0)
        return self.cls(4)

    def test_it_can_be_named(self) -> None:
        assert POOLINGS[self.cls.kind] is self.cls

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_it_gives_its_width_in_finite_fp32(self, pooling: Pooling, dtype: torch.dtype) -> None:
        pooled = pooling(a_map().to(dtype))
        assert (pooled.shape, pooled.dtype) == ((3, pooling.width), torch.float32)
        assert pooled.isfinite().all()

    def test_the_order_of_voxels_does_not_matter(self, pooling: Pooling) -> None:
        order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
        other = a_map().flatten(2)[..., order].unflatten(2, (2, 4, 3))
        torch.testing.assert_close(pooling(other), pooling(a_map()))

    def test_a_constant_map_is_pooled_to_its_constant(self, pooling: Pooling) -> None:
        constant = torch.tensor([0.5, 2.0, 30.0, 1.0])
        pooled = pooling(constant[None, :, None, None, None].expand(1, 4, 3, 4, 2))
        torch.testing.assert_close(pooled.reshape(-1, 4), constant.expand(pooling.width // 4, 4))

    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1e4])
    def test_extreme_maps_give_finite_features_and_gradients(self, pooling: Pooling, scale: float) -> None:
        extreme = (scale * a_map()).requires_grad_()
        pooled = pooling(extreme)
        torch.autograd.backward(pooled.sum())
        assert pooled.isfinite().all()
        assert extreme.grad is not None and extreme.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in pooling.parameters())

    def test_gradients_flow_to_the_map_and_to_what_is_learned(self, pooling: Pooling) -> None:
        whole = a_map().requires_grad_()
        torch.autograd.backward(pooling(whole)[1].square().sum())
        assert whole.grad is not None
        assert whole.grad[1].count_nonzero() >= 4
        assert whole.grad[[0, 2]].count_nonzero() == 0
        for parameter in pooling.parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0
