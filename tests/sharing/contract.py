"""What every sharing kind must do. A kind's test subclasses ``SharingContract``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pytest
import torch

from medmtl import sharing
from medmtl.device import Device
from medmtl.networks.cost import parameter_count
from medmtl.networks.features import Features, FeatureSpec
from medmtl.networks.norm import norms
from medmtl.networks.unet import UnetOptions
from medmtl.planning.memory import INPUT_COPIES, Budget
from medmtl.sharing.base import Sharing
from tests.networks.contract import FLAT, image

VOXEL = {"organ": True, "grade": False, "edge": True, "age": False}


def build(
    cls: type[Sharing],
    options: Mapping[str, Any],
    voxel: Mapping[str, bool] = VOXEL,
    decoder: Literal["shared", "per_task"] = "shared",
    blocks: Literal["plain", "residual"] = "plain",
) -> Sharing:
    """A small network of a kind, its weights always the same."""
    torch.manual_seed(0)
    network = UnetOptions(kind="unet", decoder=decoder, blocks=blocks)
    return cls(cls.Options.model_validate(options), replace(FLAT, blocks=blocks), network, voxel)


def sizes(features: Features) -> FeatureSpec:
    """The measurements of features of :func:`tests.networks.contract.image`."""

    def strides(maps: tuple[torch.Tensor, ...]) -> tuple[tuple[int, int, int], ...]:
        return tuple((16 // m.shape[2], 24 // m.shape[3], 8 // m.shape[4]) for m in maps)

    def channels(maps: tuple[torch.Tensor, ...]) -> tuple[int, ...]:
        return tuple(m.shape[1] for m in maps)

    encoder, decoder = features.encoder, features.decoder
    assert strides(decoder) == strides(encoder)[: len(decoder)]
    return FeatureSpec(channels(encoder), strides(encoder), channels(decoder))


def energy(features: Features) -> torch.Tensor:
    """A scalar that depends on every map."""
    return torch.stack([m.float().square().mean() for m in (*features.encoder, *features.decoder)]).sum()


def kept(model: Sharing, image_BCDHW: torch.Tensor) -> int:
    """Bytes that a forward pass for all tasks keeps for the backward pass, without parameters."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = model.features(image_BCDHW, list(VOXEL))
        total = torch.stack([energy(found) for found in features.values()]).sum()
    assert total.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("decoder", ["shared", "per_task"])
@pytest.mark.parametrize("blocks", ["plain", "residual"])
class SharingContract:
    """Attributes:
    cls, options: the kind and valid options of it.
    """

    cls: ClassVar[type[Sharing]]
    options: ClassVar[Mapping[str, Any]]

    @pytest.fixture
    def model(self, decoder: Literal["shared", "per_task"], blocks: Literal["plain", "residual"]) -> Sharing:
        return build(self.cls, self.options, decoder=decoder, blocks=blocks)

    def test_it_is_registered(self, model: Sharing) -> None:
        assert sharing.kinds.get(self.cls.kind) is self.cls

    def test_features_are_what_the_specification_promises(self, model: Sharing) -> None:
        features = model.features(image(FLAT), list(VOXEL))
        assert {name: sizes(found) for name, found in features.items()} == dict(model.spec)

    def test_maps_are_channels_last_on_a_cpu(self, model: Sharing) -> None:
        """As one encoder gives them: what is behind would otherwise reorder them, or give other bits."""
        for found in model.features(image(FLAT), list(VOXEL)).values():
            assert all(m.is_contiguous(memory_format=torch.channels_last_3d) for m in found.encoder)

    def test_maps_stay_in_bfloat16_under_autocast(self, model: Sharing) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = model.features(image(FLAT), list(VOXEL))
        found = {m.dtype for one in features.values() for m in (*one.encoder, *one.decoder)}
        assert found == {torch.bfloat16}

    def test_voxel_tasks_have_decoder_maps_and_case_tasks_none(self, model: Sharing) -> None:
        assert {name: bool(spec.decoder_channels) for name, spec in model.spec.items()} == VOXEL

    @pytest.mark.parametrize("asked", [["grade"], ["edge"], ["age", "organ"]], ids="+".join)
    def test_only_what_was_asked_for_is_given_and_it_is_the_same(self, model: Sharing, asked: list[str]) -> None:
        everything, some = model.features(image(FLAT), list(VOXEL)), model.features(image(FLAT), asked)
        assert list(some) == asked
        for name in asked:
            pairs = zip(
                (*some[name].encoder, *some[name].decoder),
                (*everything[name].encoder, *everything[name].decoder),
                strict=True,
            )
            assert all(torch.equal(a, b) for a, b in pairs)

    def test_every_parameter_is_shared_or_one_tasks_own(self, model: Sharing) -> None:
        found = [*model.shared_parameters(), *(p for name in VOXEL for p in model.own_parameters(name))]
        assert len(found) == len(set(found))
        assert set(found) == set(model.parameters())

    def test_a_task_reaches_shared_parameters_and_its_own_only(self, model: Sharing) -> None:
        reached: dict[bool, set[torch.nn.Parameter]] = {True: set(), False: set()}
        for name, is_voxel in VOXEL.items():
            model.zero_grad()
            torch.autograd.backward(energy(model.features(image(FLAT), [name])[name]))
            assert all(p.grad is not None for p in model.own_parameters(name))
            assert all(p.grad is None for other in VOXEL if other != name for p in model.own_parameters(other))
            reached[is_voxel] |= {p for p in model.parameters() if p.grad is not None}
        of_case_tasks = model.reached_only_by([name for name, is_voxel in VOXEL.items() if not is_voxel])
        assert len(of_case_tasks) == len(set(of_case_tasks))
        assert set(of_case_tasks) == reached[False] - reached[True]

    def test_shared_parameters_are_reached_by_two_tasks(self, model: Sharing) -> None:
        count = dict.fromkeys(model.shared_parameters(), 0)
        for name in VOXEL:
            model.zero_grad()
            torch.autograd.backward(energy(model.features(image(FLAT), [name])[name]))
            for parameter in count:
                count[parameter] += parameter.grad is not None
        assert all(tasks > 1 for tasks in count.values())

    def test_the_last_stage_is_of_the_shared_parameters(self, model: Sharing) -> None:
        assert set(model.last_stage_parameters()) <= set(model.shared_parameters())

    def test_every_shared_parameter_is_in_one_stage(self, model: Sharing) -> None:
        found = [parameter for held in model.stages().values() for parameter in held]
        assert len(found) == len(set(found))
        assert set(found) == set(model.shared_parameters())

    def test_norms_for_another_view_are_the_shared_ones_in_front_of_the_decoders(self, model: Sharing) -> None:
        """Those of a task alone see one view, and a case task's maps do not come through a decoder."""
        shared = set(model.shared_parameters()) - set(model.get_submodule("decoders").parameters())
        assert set(model.encoder_norms()) == {norm for norm in norms(model) if norm.weight in shared}

    def test_the_plan_knows_the_parameters_and_the_maps(self, decoder: Any, blocks: Any) -> None:
        """Of a network that is not as narrow as to be all biases and gates; the maps against those of ``hard``."""
        wide = replace(FLAT, channels=(8, 16, 24), blocks=blocks)
        network = UnetOptions(kind="unet", decoder=decoder, blocks=blocks)
        found = []
        for cls, options in ((self.cls, self.options), (sharing.kinds.get("hard"), {"kind": "hard"})):
            given = cls.Options.model_validate(options)
            model, towers = cls(given, wide, network, VOXEL), cls.towers(given, wide, network, VOXEL)
            planned = Budget(wide, towers, 0, "fp32", Device("cpu", bf16=False, cores=1), 1).maps((16, 24, 8), 2)
            inputs = 4 * INPUT_COPIES * image(wide).numel()
            found.append((kept(model, image(wide)), planned - inputs))
            count = sum(p.numel() for p in model.parameters())
            assert parameter_count(wide, towers) == pytest.approx(count, rel=0.01)
        (real, planned), (real_hard, planned_hard) = found
        # residual blocks keep more than plain ones, but were measured to need no more
        assert blocks == "residual" or 0.95 <= (planned / planned_hard) / (real / real_hard) <= 1.25

    def test_equal_seeds_give_equal_bits(self, model: Sharing, decoder: Any, blocks: Any) -> None:
        again = build(self.cls, self.options, decoder=decoder, blocks=blocks)
        gradients = []
        for network in (model, again):
            features = network.features(image(FLAT), list(VOXEL))
            torch.autograd.backward([energy(found) for found in features.values()])
            gradients.append([p.grad for p in network.parameters() if p.grad is not None])
        assert len(gradients[0]) == len(list(model.parameters()))
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
