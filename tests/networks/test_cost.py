from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medmtl.networks.cost import Towers, forward_operations, parameter_count, stage_voxels
from medmtl.networks.decoder import UnetDecoder
from medmtl.networks.shape import NetworkShape
from medmtl.networks.unet import UnetEncoder

PLAIN = NetworkShape(2, (4, 8, 8), ((3, 3, 1), (3, 3, 3), (3, 3, 3)), ((1, 1, 1), (2, 2, 1), (2, 2, 2)))
SHAPE = (16, 24, 8)


def modules(network: NetworkShape, towers: Towers) -> list[nn.Module]:
    encoders = [UnetEncoder(network) for _ in range(towers.encoders)]
    for encoder in encoders[1:]:
        encoder.stages = encoders[0].stages[: towers.common] + encoder.stages[towers.common :]
    return [*encoders, *(UnetDecoder(network) for _ in range(towers.decoders))]


@pytest.mark.parametrize("towers", [Towers(), Towers(1, 1), Towers(1, 2), Towers(3, 1), Towers(3, 2, common=2)])
@pytest.mark.parametrize("network", [PLAIN, replace(PLAIN, blocks="residual"), replace(PLAIN, channels=(4, 4, 8))])
def test_parameters_are_those_of_the_modules(network: NetworkShape, towers: Towers) -> None:
    counted = {p for module in modules(network, towers) for p in module.parameters()}
    assert parameter_count(network, towers) == sum(p.numel() for p in counted)


def test_convolutions_of_one_voxel_beside_the_stages_are_counted_in_squares_of_their_channels() -> None:
    beside = parameter_count(PLAIN, Towers(beside_weights=2.0)) - parameter_count(PLAIN, Towers())
    assert beside == 2 * (4 * 4 + 8 * 8 + 8 * 8)


@pytest.mark.parametrize("decoders", [0, 1])
@pytest.mark.parametrize("network", [PLAIN, replace(PLAIN, blocks="residual")])
def test_operations_are_those_that_torch_counts(network: NetworkShape, decoders: int) -> None:
    encoder, *rest = modules(network, Towers(1, decoders))
    image = torch.zeros(1, 2, *SHAPE)
    with FlopCounterMode(display=False) as counter:
        maps: Sequence[torch.Tensor] = encoder(image)
        for decoder in rest:
            decoder(maps)
    assert forward_operations(network, Towers(1, decoders), SHAPE) == counter.get_total_flops()


def test_voxels_fall_by_the_strides() -> None:
    assert stage_voxels(PLAIN, SHAPE) == (3072, 768, 96)
