from __future__ import annotations

import pytest
import torch

from medmtl.sharing.decoders import Decoders, decoder_names
from tests.networks.contract import FLAT

VOXEL = {"organ": True, "grade": False, "edge": True}


def maps(seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    sizes = zip(FLAT.channels, FLAT.cumulative_strides(), strict=True)
    return tuple(torch.randn(1, c, 8 // d, 8 // h, 4 // w, generator=generator) for c, (d, h, w) in sizes)


@pytest.mark.parametrize(("per_task", "same", "runs"), [(False, True, 1), (False, False, 2), (True, True, 2)])
def test_the_same_maps_are_decoded_once_by_the_same_decoder(per_task: bool, same: bool, runs: int) -> None:
    decoders = Decoders(FLAT, decoder_names(VOXEL, per_task))
    calls: list[object] = []
    for decoder in decoders.values():
        decoder.register_forward_hook(lambda module, _inputs, _output: calls.append(module))
    one = maps(0)
    given = {"grade": one, "edge": one if same else maps(1), "organ": one}
    found = decoders.decode(given)
    assert list(found) == list(given)
    assert len(calls) == runs
    assert found["grade"].decoder == () and all(found[name].encoder is given[name] for name in given)
    for name in ("organ", "edge"):
        expected = decoders[f"{name}_decoder" if per_task else "decoder"](given[name])
        assert all(torch.equal(a, b) for a, b in zip(found[name].decoder, expected, strict=True))


def test_a_decoder_belongs_to_those_who_read_it() -> None:
    decoders = Decoders(FLAT, {"organ": "first", "edge": "first", "vessel": "second"})
    assert decoders.shared() == list(decoders["first"].parameters())
    assert decoders.own("vessel") == list(decoders["second"].parameters())
    assert decoders.own("organ") == decoders.own("grade") == []
    assert list(decoders.readers("first")) == ["organ", "edge"]
