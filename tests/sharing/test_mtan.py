from __future__ import annotations

from typing import Any

import pytest
import torch

from medmtl.sharing.hard import Hard
from medmtl.sharing.mtan import Attention, Mtan
from tests.networks.contract import FLAT, image
from tests.sharing.contract import VOXEL, SharingContract, build

OPTIONS = {"kind": "mtan"}


class TestMtan(SharingContract):
    cls = Mtan
    options = OPTIONS


@pytest.mark.parametrize("decoder", ["shared", "per_task"])
def test_it_starts_as_hard_sharing_to_the_bit(decoder: Any) -> None:
    masked, hard = build(Mtan, OPTIONS, decoder=decoder), build(Hard, {"kind": "hard"}, decoder=decoder)
    pairs = zip(*(kind.features(image(FLAT), list(VOXEL)).values() for kind in (masked, hard)), strict=True)
    for found, expected in pairs:
        levels = zip((*found.encoder, *found.decoder), (*expected.encoder, *expected.decoder), strict=True)
        assert all(torch.equal(a, b) for a, b in levels)


def test_masks_are_the_formula() -> None:
    """Convolutions of one voxel as sums over channels, and a strided one as that of every second voxel."""
    torch.manual_seed(0)
    attention: Any = Attention(FLAT)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    maps = [
        torch.randn(2, c, 16 // d, 24 // h, 8 // w)
        for c, (d, h, w) in zip(FLAT.channels, FLAT.cumulative_strides(), strict=True)
    ]
    found = attention(tuple(maps))

    def one(convolution: Any, level: torch.Tensor) -> torch.Tensor:
        bias = 0 if convolution.bias is None else convolution.bias.view(1, -1, 1, 1, 1)
        return torch.einsum("oc,bcdhw->bodhw", convolution.weight[:, :, 0, 0, 0], level) + bias

    previous = None
    for index, level in enumerate(maps):
        read = one(attention.read[index], level)
        if previous is not None:
            d, h, w = FLAT.strides[index]
            read = read + one(attention.carry[index - 1], previous[:, :, ::d, ::h, ::w])
        previous = 2 / (1 + torch.exp(-one(attention.mask[index], read.clamp(min=0)))) * level
        torch.testing.assert_close(found[index], previous, rtol=1e-4, atol=1e-4)
