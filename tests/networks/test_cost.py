from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medmtl.networks.cost import forward_operations, parameter_count, stage_voxels
from medmtl.networks.decoder import UnetDecoder
from medmtl.networks.shape import NetworkShape
from medmtl.networks.unet import UnetEncoder

PLAIN = NetworkShape(2, (4, 8, 8), ((3, 3, 1), (3, 3, 3), (3, 3, 3)), ((1, 1, 1), (2, 2, 1), (2, 2, 2)))
SHAPE = (16, 24, 8)


def modules(network: NetworkShape, decoders: int) -> list[nn.Module]:
    return [UnetEncoder(network), *(UnetDecoder(network) for _ in range(decoders))]


@pytest.mark.parametrize("decoders", [0, 1, 2])
@pytest.mark.parametrize("network", [PLAIN, replace(PLAIN, blocks="residual"), replace(PLAIN, channels=(4, 4, 8))])
def test_parameters_are_those_of_the_modules(network: NetworkShape, decoders: int) -> None:
    counted = sum(p.numel() for module in modules(network, decoders) for p in module.parameters())
    assert parameter_count(network, decoders) == counted


@pytest.mark.parametrize("decoders", [0, 1])
@pytest.mark.parametrize("network", [PLAIN, replace(PLAIN, blocks="residual")])
def test_operations_are_those_that_torch_counts(network: NetworkShape, decoders: int) -> None:
    encoder, *rest = modules(network, decoders)
    image = torch.zeros(1, 2, *SHAPE)
    with FlopCounterMode(display=False) as counter:
        maps: Sequence[torch.Tensor] = encoder(image)
        for decoder in rest:
            decoder(maps)
    assert forward_operations(network, decoders, SHAPE) == counter.get_total_flops()


def test_voxels_fall_by_the_strides() -> None:
    assert stage_voxels(PLAIN, SHAPE) == (3072, 768, 96)
