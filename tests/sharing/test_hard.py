from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from medmtl.networks.decoder import UnetDecoder
from medmtl.networks.norm import norms
from medmtl.networks.unet import UnetEncoder, UnetOptions
from medmtl.sharing.hard import Hard
from tests.networks.contract import FLAT, image
from tests.sharing.contract import VOXEL, SharingContract, build

OPTIONS = {"kind": "hard"}


class TestHard(SharingContract):
    cls = Hard
    options = OPTIONS


class TestStages(SharingContract):
    cls = Hard
    options = {**OPTIONS, "shared_stages": 1}


class TestCaseGroup(SharingContract):
    cls = Hard
    options = {**OPTIONS, "shared_stages": 2, "groups": {"cases": ["grade", "age"]}}


class TestGroups(SharingContract):
    cls = Hard
    options = {**OPTIONS, "shared_stages": 2, "groups": {"shapes": ["organ", "edge"], "grade": ["grade"]}}


def test_by_default_the_network_is_one_encoder_and_one_decoder() -> None:
    """By the names and the draws of earlier versions, whose checkpoints are read."""
    model = build(Hard, OPTIONS)
    torch.manual_seed(0)
    parts = {"encoder": UnetEncoder(FLAT), "decoders.decoder": UnetDecoder(FLAT)}
    expected = {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}
    found = dict(model.named_parameters())
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_tasks_of_a_group_have_maps_in_common_and_others_do_not() -> None:
    model = build(Hard, TestGroups.options)
    for name in ("shapes_group", "age_alone"):
        for parameter in model.get_submodule(f"branches.{name}_branch").parameters():
            parameter.data += 0.1
    maps = {name: found.encoder for name, found in model.features(image(FLAT), list(VOXEL)).items()}
    assert all(all(torch.equal(a, b) for a, b in zip(maps["organ"][:2], m[:2], strict=True)) for m in maps.values())
    assert torch.equal(maps["organ"][2], maps["edge"][2])
    assert not torch.equal(maps["organ"][2], maps["grade"][2])
    assert torch.equal(maps["organ"][2], maps["age"][2])  # changed alike, from the same start
    alone = set(model.own_parameters("age"))
    assert alone == set(model.get_submodule("branches.age_alone_branch").parameters())
    assert set(model.get_submodule("branches.shapes_group_branch").parameters()) <= set(model.shared_parameters())


def test_norms_for_another_view_are_those_that_several_tasks_read() -> None:
    model = build(Hard, TestGroups.options)
    expected = [m for part in ("encoder", "branches.shapes_group_branch") for m in norms(model.get_submodule(part))]
    assert model.encoder_norms() == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"groups": {"a": ["organ"]}}, "shared_stages, which is not set"),
        ({"shared_stages": 1, "groups": {"a": ["organ"], "b": ["organ"]}}, "'organ' twice"),
        ({"shared_stages": 1, "groups": {"a": []}}, "groups"),
        ({"shared_stages": 0}, "greater than or equal to 1"),
    ],
)
def test_groups_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Hard.Options.model_validate({**OPTIONS, **options})


def test_stages_in_common_must_leave_one_to_divide() -> None:
    network, given = UnetOptions(kind="unet"), Hard.Options.model_validate({**OPTIONS, "shared_stages": 3})
    with pytest.raises(ValueError, match="shared_stages 3 leaves nothing to groups: the planned network has 3 stages"):
        Hard.towers(given, FLAT, network, VOXEL)


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
