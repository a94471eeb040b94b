"""What every encoder kind must do. A kind's test subclasses ``EncoderContract``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from medmtl import networks
from medmtl.networks.cost import Towers, forward_operations, parameter_count
from medmtl.networks.decoder import UnetDecoder
from medmtl.networks.encoder import Encoder
from medmtl.networks.norm import norms
from medmtl.networks.shape import NetworkShape

CUBE = NetworkShape(1, (4, 6, 8), ((3, 3, 3),) * 3, ((1, 1, 1), (2, 2, 2), (2, 2, 2)), levels=2)
FLAT = NetworkShape(2, (4, 6, 8), ((3, 3, 1), (3, 3, 1), (3, 3, 3)), ((1, 1, 1), (2, 2, 1), (2, 2, 2)), levels=2)


def image(shape: NetworkShape, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """A random image of 16 x 24 x 8 voxels."""
    return torch.randn(batch, shape.in_channels, 16, 24, 8, generator=torch.Generator().manual_seed(seed))


def expected_sizes(shape: NetworkShape, batch: int = 2) -> list[tuple[int, ...]]:
    """Sizes of the encoder's maps of :func:`image`."""
    sizes = zip(shape.channels, shape.cumulative_strides(), strict=True)
    return [(batch, channels, 16 // d, 24 // h, 8 // w) for channels, (d, h, w) in sizes]


def measured(cls: type[Encoder], shape: NetworkShape, **options: Any) -> NetworkShape:
    """A shape as the planner makes it for a kind."""
    return cls.Options.model_validate({"kind": cls.kind, **options}).measured(shape)


class EncoderContract:
    """Attributes:
    cls, options: the kind and options of it.
    """

    cls: ClassVar[type[Encoder]]
    options: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(params=[CUBE, FLAT], ids=["cube", "flat"])
    def shape(self, request: pytest.FixtureRequest) -> NetworkShape:
        return measured(self.cls, request.param, **self.options)

    @pytest.fixture
    def encoder(self, shape: NetworkShape) -> Encoder:
        torch.manual_seed(0)
        return self.cls(shape)

    def test_it_is_registered(self) -> None:
        assert networks.kinds.get(self.cls.kind) is self.cls

    def test_maps_are_finest_first_with_the_planned_sizes(self, encoder: Encoder, shape: NetworkShape) -> None:
        assert [tuple(level.shape) for level in encoder(image(shape))] == expected_sizes(shape)

    def test_every_map_reaches_back_to_the_first_convolution(self, encoder: Encoder, shape: NetworkShape) -> None:
        first = next(encoder.parameters())
        for level in encoder(image(shape)):
            (gradient,) = torch.autograd.grad(level.square().sum(), first, retain_graph=True)
            assert gradient.abs().sum() > 0

    def test_equal_inputs_give_equal_bits(self, encoder: Encoder, shape: NetworkShape) -> None:
        def run() -> list[torch.Tensor]:
            encoder.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                maps = encoder(image(shape))
            torch.autograd.backward([level.float().square().mean() for level in maps])
            return [*maps, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)]

        assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))

    def test_samples_do_not_see_each_other(self, encoder: Encoder, shape: NetworkShape) -> None:
        both, alone = image(shape), image(shape)[:1]
        for joint, single in zip(encoder(both), encoder(alone), strict=True):
            torch.testing.assert_close(joint[:1], single, rtol=1e-4, atol=1e-5)

    def test_training_and_evaluation_are_the_same_function(self, encoder: Encoder, shape: NetworkShape) -> None:
        trained = encoder.train()(image(shape))
        evaluated = encoder.eval()(image(shape))
        assert all(torch.equal(a, b) for a, b in zip(trained, evaluated, strict=True))

    def test_maps_are_channels_last_on_a_cpu(self, encoder: Encoder, shape: NetworkShape) -> None:
        for dtype in (torch.float32, torch.bfloat16):
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                maps = encoder(image(shape))
            assert [level.stride(1) for level in maps] == [1] * len(maps)
            assert [level.dtype for level in maps] == [dtype] * len(maps)

    def test_an_image_is_left_as_it_was(self, encoder: Encoder, shape: NetworkShape) -> None:
        given = image(shape)
        before, strides = given.clone(), given.stride()
        encoder(given)
        assert torch.equal(given, before)
        assert given.stride() == strides

    @pytest.mark.parametrize("decoders", [0, 2])
    def test_parameters_are_counted(self, encoder: Encoder, shape: NetworkShape, decoders: int) -> None:
        modules = [encoder, *(UnetDecoder(shape) for _ in range(decoders))]
        counted = sum(p.numel() for module in modules for p in module.parameters())
        assert parameter_count(shape, Towers(1, decoders)) == counted

    def test_operations_are_those_that_torch_counts(self, encoder: Encoder, shape: NetworkShape) -> None:
        with FlopCounterMode(display=False) as counter:
            encoder(image(shape, batch=1))
        assert forward_operations(shape, Towers(), (16, 24, 8)) == counter.get_total_flops()

    def test_memory_is_told_for_every_stage(self, shape: NetworkShape) -> None:
        held = self.cls.maps_per_stage(shape)
        assert len(held) == len(shape.channels)
        assert min(held) >= 1

    def test_what_a_training_step_holds_is_as_told_roughly(self, encoder: Encoder, shape: NetworkShape) -> None:
        held: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.ndim == 5 and not isinstance(tensor, torch.nn.Parameter):
                held[tensor.data_ptr()] = tensor.numel()
            return tensor

        own = {p.data_ptr() for p in encoder.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            maps = encoder(image(shape, batch=1))
        given = shape.in_channels * 16 * 24 * 8  # counted with the inputs
        saved = sum(size for place, size in held.items() if place not in own) - given
        sizes = [level.numel() for level in maps]
        told = sum(count * size for count, size in zip(self.cls.maps_per_stage(shape), sizes, strict=True))
        assert 0.8 * told <= saved <= 1.15 * told

    def test_every_norm_can_have_a_second_view(self, encoder: Encoder, shape: NetworkShape) -> None:
        before = encoder(image(shape))
        affine = norms(encoder)
        assert {id(p) for norm in affine for p in norm.parameters()} >= {
            id(p) for p in encoder.parameters() if p.ndim == 1
        }
        for norm in affine:
            norm.add_second()
            norm.second = True
        assert all(torch.equal(a, b) for a, b in zip(encoder(image(shape)), before, strict=True))
        for norm in affine:
            torch.nn.init.constant_(norm.second_weight, 0.5)
        assert not torch.allclose(encoder(image(shape))[-1], before[-1])
        for norm in affine:
            norm.second = False
        assert all(torch.equal(a, b) for a, b in zip(encoder(image(shape)), before, strict=True))
