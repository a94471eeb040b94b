from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import nn

from medmtl.networks.decoder import UnetDecoder
from medmtl.sharing.hard import Hard
from tests.networks.contract import FLAT, image
from tests.sharing.contract import SharingContract, build

OPTIONS = {"kind": "hard"}


class TestHard(SharingContract):
    cls = Hard
    options = OPTIONS


def decoders(model: nn.Module) -> list[UnetDecoder]:
    return [module for module in model.modules() if isinstance(module, UnetDecoder)]


@pytest.mark.parametrize(
    ("voxel", "decoder", "count"),
    [
        ({"grade": False}, "shared", 0),
        ({"grade": False}, "per_task", 0),
        ({"organ": True, "grade": False}, "shared", 1),
        ({"organ": True, "edge": True}, "shared", 1),
        ({"organ": True, "edge": True}, "per_task", 2),
    ],
)
def test_as_many_decoders_as_are_needed(
    voxel: dict[str, bool], decoder: Literal["shared", "per_task"], count: int
) -> None:
    assert len(decoders(build(Hard, OPTIONS, voxel, decoder))) == count


@pytest.mark.parametrize(
    ("decoder", "asked", "runs"),
    [
        ("shared", ["grade", "age"], 0),
        ("shared", ["organ", "edge", "grade"], 1),
        ("per_task", ["edge", "grade"], 1),
        ("per_task", ["organ", "edge"], 2),
    ],
)
def test_a_decoder_runs_once_and_only_when_asked_for(
    decoder: Literal["shared", "per_task"], asked: list[str], runs: int
) -> None:
    model = build(Hard, OPTIONS, decoder=decoder)
    calls: list[nn.Module] = []
    for module in decoders(model):
        module.register_forward_hook(lambda module, _inputs, _output: calls.append(module))
    model.features(image(FLAT), asked)
    assert len(calls) == runs


def test_a_decoder_that_one_task_reads_is_its_own() -> None:
    model = build(Hard, OPTIONS, {"organ": True, "grade": False})
    (decoder,) = decoders(model)
    assert model.own_parameters("organ") == list(decoder.parameters())
    assert model.own_parameters("grade") == []
    assert not set(model.shared_parameters()) & set(decoder.parameters())


@pytest.mark.parametrize("name", ["shared", "decoder", "type", "training", "values", "forward"])
@pytest.mark.parametrize("decoder", ["shared", "per_task"])
def test_a_task_may_be_called_like_an_attribute(name: str, decoder: Any) -> None:
    model = build(Hard, OPTIONS, {name: True, "edge": True}, decoder).train()
    features = model.features(image(FLAT), [name, "edge"])
    same = all(torch.equal(a, b) for a, b in zip(features[name].decoder, features["edge"].decoder, strict=True))
    assert same == (decoder == "shared")
    assert bool(model.own_parameters(name)) == (decoder == "per_task")


def test_its_stages_are_the_encoder_s_and_a_shared_decoder() -> None:
    encoder = [f"stage{index}" for index in range(len(FLAT.channels))]
    assert list(build(Hard, OPTIONS).stages()) == [*encoder, "decoder"]
    assert list(build(Hard, OPTIONS, decoder="per_task").stages()) == encoder
    assert list(build(Hard, OPTIONS, {"organ": True, "grade": False}).stages()) == encoder
    model = build(Hard, OPTIONS)
    assert model.stages()[encoder[-1]] == model.last_stage_parameters()
