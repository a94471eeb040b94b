"""What every encoder kind must do. A kind's test subclasses ``EncoderContract``."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import pytest
import torch

from medmtl import networks
from medmtl.networks.shape import NetworkShape
from medmtl.networks.unet import UnetEncoder

CUBE = NetworkShape(1, (4, 6, 8), ((3, 3, 3),) * 3, ((1, 1, 1), (2, 2, 2), (2, 2, 2)), levels=2)
FLAT = NetworkShape(2, (4, 6, 8), ((3, 3, 1), (3, 3, 1), (3, 3, 3)), ((1, 1, 1), (2, 2, 1), (2, 2, 2)), levels=2)


def image(shape: NetworkShape, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """A random image of 16 x 24 x 8 voxels."""
    return torch.randn(batch, shape.in_channels, 16, 24, 8, generator=torch.Generator().manual_seed(seed))


def expected_sizes(shape: NetworkShape, batch: int = 2) -> list[tuple[int, ...]]:
    """Sizes of the encoder's maps of :func:`image`."""
    sizes = zip(shape.channels, shape.cumulative_strides(), strict=True)
    return [(batch, channels, 16 // d, 24 // h, 8 // w) for channels, (d, h, w) in sizes]


@pytest.mark.parametrize("shape", [CUBE, FLAT], ids=["cube", "flat"])
@pytest.mark.parametrize("blocks", ["plain", "residual"])
class EncoderContract:
    """Attributes:
    cls: the kind.
    """

    cls: ClassVar[type[UnetEncoder]]

    @pytest.fixture
    def encoder(self, shape: NetworkShape, blocks: Literal["plain", "residual"]) -> UnetEncoder:
        torch.manual_seed(0)
        return self.cls(replace(shape, blocks=blocks))

    def test_it_is_registered(self, encoder: UnetEncoder) -> None:
        assert networks.kinds.get(self.cls.kind) is self.cls

    def test_maps_are_finest_first_with_the_planned_sizes(self, encoder: UnetEncoder, shape: NetworkShape) -> None:
        assert [tuple(level.shape) for level in encoder(image(shape))] == expected_sizes(shape)

    def test_every_map_reaches_back_to_the_first_convolution(self, encoder: UnetEncoder, shape: NetworkShape) -> None:
        first = next(encoder.parameters())
        for level in encoder(image(shape)):
            (gradient,) = torch.autograd.grad(level.square().sum(), first, retain_graph=True)
            assert gradient.abs().sum() > 0

    def test_equal_inputs_give_equal_bits(self, encoder: UnetEncoder, shape: NetworkShape) -> None:
        def run() -> list[torch.Tensor]:
            encoder.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                maps = encoder(image(shape))
            torch.autograd.backward([level.float().square().mean() for level in maps])
            return [*maps, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)]

        assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))

    def test_samples_do_not_see_each_other(self, encoder: UnetEncoder, shape: NetworkShape) -> None:
        both, alone = image(shape), image(shape)[:1]
        for joint, single in zip(encoder(both), encoder(alone), strict=True):
            torch.testing.assert_close(joint[:1], single, rtol=1e-4, atol=1e-5)

    def test_training_and_evaluation_are_the_same_function(self, encoder: UnetEncoder, shape: NetworkShape) -> None:
        trained = encoder.train()(image(shape))
        evaluated = encoder.eval()(image(shape))
        assert all(torch.equal(a, b) for a, b in zip(trained, evaluated, strict=True))
