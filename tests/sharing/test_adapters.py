from __future__ import annotations

from typing import Any

import pytest
import torch

from medmtl.sharing.adapters import ADAPTERS, Adapters, Film, Residual
from medmtl.sharing.hard import Hard
from tests.networks.contract import FLAT, image
from tests.sharing.contract import VOXEL, SharingContract, build


class TestResidual(SharingContract):
    cls = Adapters
    options = {"kind": "adapters"}


class TestFilm(SharingContract):
    cls = Adapters
    options = {"kind": "adapters", "adapter": "film"}


@pytest.mark.parametrize("adapter", list(ADAPTERS))
@pytest.mark.parametrize("decoder", ["shared", "per_task"])
def test_it_starts_as_hard_sharing_to_the_bit(adapter: str, decoder: Any) -> None:
    adapted = build(Adapters, {"kind": "adapters", "adapter": adapter}, decoder=decoder)
    hard = build(Hard, {"kind": "hard"}, decoder=decoder)
    pairs = zip(*(kind.features(image(FLAT), list(VOXEL)).values() for kind in (adapted, hard)), strict=True)
    for found, expected in pairs:
        levels = zip((*found.encoder, *found.decoder), (*expected.encoder, *expected.decoder), strict=True)
        assert all(torch.equal(a, b) for a, b in levels)


@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_an_adapter_is_of_its_task_alone(adapter: str) -> None:
    model = build(Adapters, {"kind": "adapters", "adapter": adapter})
    before = model.features(image(FLAT), list(VOXEL))
    for parameter in model.get_submodule("adapters.organ_adapters").parameters():
        torch.nn.init.constant_(parameter, 0.1)
    after = model.features(image(FLAT), list(VOXEL))
    for name in VOXEL:
        old, new = ((*f[name].encoder, *f[name].decoder) for f in (before, after))
        assert all(torch.equal(a, b) == (name != "organ") for a, b in zip(old, new, strict=True))


def test_adapters_are_their_formulas() -> None:
    level = torch.randn(2, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    residual, film = Residual(3), Film(3)
    torch.nn.init.normal_(residual.convolution.weight, generator=torch.Generator().manual_seed(1))
    film.scale.data, film.shift.data = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([0.5, 0.0, 2.0])
    matrix = residual.convolution.weight[:, :, 0, 0, 0]
    torch.testing.assert_close(residual(level), level + torch.einsum("oc,bcdhw->bodhw", matrix, level))
    expected = torch.stack([level[:, 0] + 0.5, 2 * level[:, 1], torch.full_like(level[:, 2], 2.0)], 1)
    torch.testing.assert_close(film(level), expected)
