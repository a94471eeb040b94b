from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medmtl.networks.decoder import UnetDecoder
from medmtl.networks.shape import NetworkShape
from medmtl.networks.unet import UnetEncoder
from tests.networks.contract import CUBE, FLAT, expected_sizes, image


@pytest.mark.parametrize("shape", [CUBE, FLAT], ids=["cube", "flat"])
@pytest.mark.parametrize("levels", [1, 2])
def test_maps_are_the_finest_levels_with_the_planned_sizes(shape: NetworkShape, levels: int) -> None:
    shape = replace(shape, levels=levels)
    maps = UnetDecoder(shape)(UnetEncoder(shape)(image(shape)))
    assert [tuple(level.shape) for level in maps] == expected_sizes(shape)[:levels]


def test_every_level_is_used_whatever_is_returned() -> None:
    shape = replace(CUBE, levels=1)
    decoder = UnetDecoder(shape)
    (finest,) = decoder(UnetEncoder(shape)(image(shape)))
    finest.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters() if p.ndim > 1)


def test_a_network_of_one_stage_decodes_to_its_only_map() -> None:
    shape = NetworkShape(1, (4,), ((3, 3, 3),), ((1, 1, 1),), levels=1)
    maps = UnetEncoder(shape)(image(shape))
    (decoded,) = UnetDecoder(shape)(maps)
    assert torch.equal(decoded, maps[0])


def test_skip_connections_reach_the_decoder() -> None:
    decoder = UnetDecoder(CUBE)
    maps = UnetEncoder(CUBE)(image(CUBE))
    finest = decoder(maps)[0]
    for stage in range(2):
        changed = [level if index != stage else level + 1 for index, level in enumerate(maps)]
        changed[stage][:, 0] += image(CUBE)[:, 0, :: 2**stage, :: 2**stage, :: 2**stage]
        assert not torch.allclose(decoder(changed)[0], finest)
