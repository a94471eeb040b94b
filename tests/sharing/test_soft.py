from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from medmtl.model import MultiTaskModel, SecondView
from medmtl.networks.unet import UnetOptions
from medmtl.sharing.hard import Hard
from medmtl.sharing.soft import DISTANCES, Soft, SoftOptions
from tests.networks.contract import FLAT, image
from tests.sharing.contract import SharingContract, build
from tests.sharing.models import VOXEL, groups_of, model_of, trained

OPTIONS = {"kind": "soft"}
TWO = {"organ": True, "grade": False}


class TestSoft(SharingContract):
    cls = Soft
    options = OPTIONS


def separate(joint: MultiTaskModel, task: str) -> MultiTaskModel:
    """A model of one task alone, with the weights of a tower."""
    weights = {}
    for name, tensor in joint.state_dict().items():
        alone = name.replace(f"encoders.{task}_encoder", "encoder").replace(
            f"decoders.{task}_decoder", "decoders.decoder"
        )
        if alone != name or name.startswith(f"heads_{task}"):
            weights[alone] = tensor
    model = model_of(Hard, {"kind": "hard"}, [task])
    model.load_weights(weights)
    return model


def encoder(model: nn.Module, task: str) -> list[torch.Tensor]:
    return list(model.get_submodule(f"encoders.{task}_encoder").parameters())


def apart(model: MultiTaskModel) -> float:
    """The mean squared distance of the encoders' corresponding weights, over all pairs."""
    encoders = [torch.cat([p.detach().flatten() for p in encoder(model.sharing, name)]) for name in model.tasks]
    return float(torch.stack([(a - b).square().mean() for a, b in itertools.combinations(encoders, 2)]).mean())


def angles(model: MultiTaskModel) -> float:
    """One minus the cosine of corresponding tensors, mean over tensors and pairs."""
    pairs = itertools.combinations([encoder(model.sharing, name) for name in model.tasks], 2)
    return float(
        torch.stack(
            [1 - torch.cosine_similarity(a.detach().double().flatten(), b.detach().double().flatten(), 0)
             for one, other in pairs for a, b in zip(one, other, strict=True)]
        ).mean()
    )  # fmt: skip


def test_towers_start_as_copies_of_what_one_task_alone_starts_from() -> None:
    model, alone = build(Soft, OPTIONS), build(Hard, {"kind": "hard"}, {"organ": True})
    for name in ("organ", "grade", "edge", "age"):
        assert all(torch.equal(a, b) for a, b in zip(encoder(model, name), alone.encoder.parameters(), strict=True))
    for name in ("organ", "edge"):
        decoder = model.get_submodule(f"decoders.{name}_decoder")
        theirs = alone.get_submodule("decoders.decoder").parameters()
        assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), theirs, strict=True))
    assert len({p.data_ptr() for p in model.parameters()}) == len(list(model.parameters()))


@pytest.mark.parametrize("task", VOXEL)
def test_without_a_pull_a_tower_is_trained_to_the_bytes_of_a_model_of_this_task_alone(task: str) -> None:
    """Also where gradients are clipped, and other tasks are labelled in other steps."""
    joint = model_of(Soft, {**OPTIONS, "mu": 0})
    expected = trained(separate(joint, task))
    start = copy.deepcopy(joint.state_dict())
    found = separate(trained(joint), task)
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in expected.state_dict().items())
    assert not all(torch.equal(joint.state_dict()[name], tensor) for name, tensor in start.items() if task in name)


@pytest.mark.parametrize(("distance", "measure"), [("l2", apart), ("l1", apart), ("cosine", angles)])
def test_a_strong_pull_holds_the_encoders_together(distance: str, measure: Any) -> None:
    free = measure(trained(model_of(Soft, {**OPTIONS, "mu": 0})))
    weak = measure(trained(model_of(Soft, {**OPTIONS, "mu": 1.0, "distance": distance})))
    strong = trained(model_of(Soft, {**OPTIONS, "mu": 1e9, "distance": distance}))
    assert all(bool(p.isfinite().all()) for p in strong.parameters())
    assert free > 0
    assert measure(strong) <= 0.01 * free
    assert weak < free


def scattered(options: dict[str, Any], voxel: dict[str, bool]) -> Soft:
    """Towers that differ, all of them with a gradient."""
    model = build(Soft, {**OPTIONS, **options}, voxel)
    assert isinstance(model, Soft)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.zeros_like(parameter)
    return model


@pytest.mark.parametrize("distance", ["l2", "cosine"])
@pytest.mark.parametrize("voxel", [TWO, VOXEL], ids=["two", "three"])
def test_a_small_pull_goes_along_the_gradient_of_the_distance(distance: str, voxel: dict[str, bool]) -> None:
    """Times the number of weights, by which the distance is divided."""

    def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if distance == "cosine":
            return 1 - torch.cosine_similarity(a.flatten(), b.flatten(), 0)
        return (a - b).square().sum()

    model = scattered({"mu": 0.5, "distance": distance}, voxel)
    towers = [encoder(model, name) for name in voxel]
    pairs = [pair for one, other in itertools.combinations(towers, 2) for pair in zip(one, other, strict=True)]
    penalty = 0.5 * torch.stack(list(itertools.starmap(distances, pairs))).sum() / (len(voxel) - 1)
    weights = [p for tower in towers for p in tower]
    gradients, before = torch.autograd.grad(penalty, weights), [p.detach().clone() for p in weights]
    model.after_step(1e-3)
    for old, new, gradient in zip(before, weights, gradients, strict=True):
        # a direction's gradient is that of its tensor times its length, and moves the tensor by its length
        expected = gradient * (old.norm().square() if distance == "cosine" else 1.0)
        limit = 1e-2 * float(expected.abs().max()) + 1e-4 * float(old.abs().max())
        torch.testing.assert_close((old - new.detach()) / 1e-3, expected, rtol=0.02, atol=limit)


def test_the_absolute_distance_moves_all_weights_alike_until_they_meet() -> None:
    model = scattered({"mu": 0.5, "distance": "l1"}, TWO)
    one, other = ([p.detach().clone() for p in encoder(model, name)] for name in TWO)
    model.after_step(0.1)
    for a, b, found, theirs in zip(one, other, *(encoder(model, name) for name in TWO), strict=True):
        step = torch.minimum(torch.full_like(a, 0.05), (a - b).abs() / 2) * (a - b).sign()
        torch.testing.assert_close(found.detach(), a - step)
        torch.testing.assert_close(theirs.detach(), b + step)
    assert any(
        bool(((a - b).abs() < 0.1).any()) and bool(((a - b).abs() > 0.1).any()) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("pull", [1e-3, 0.3, 1.0, 100.0])
@pytest.mark.parametrize("towers", [2, 3, 4, 5])
def test_the_absolute_distance_takes_its_implicit_step_and_the_mean_of_all_stays(towers: int, pull: float) -> None:
    """x is that of y where (y - x) / pull is a subgradient of the sum over pairs at x, divided by T - 1."""
    generator = torch.Generator().manual_seed(towers)
    before = torch.randn(towers, 6, 50, generator=generator, dtype=torch.float64)
    before[0, :, :10] = before[1, :, :10]  # towers start as copies
    held = [row.clone() for row in before]
    DISTANCES["l1"](held, held, pull)
    found = torch.stack(held)
    torch.testing.assert_close(found.mean(0), before.mean(0))
    force = (before - found) / pull * (towers - 1)
    for one in range(towers):
        apart = found[one] - found
        tied = apart.abs() < 1e-9
        # each other tower pulls by 1 from its side, and one that is met by at most 1
        wanted, slack = (apart.sign() * ~tied).sum(0), tied.sum(0) - 1
        assert bool(((force[one] - wanted).abs() <= slack + 1e-9).all())
    for one, other in itertools.combinations(range(towers), 2):  # none has crossed another
        assert bool(((found[one] - found[other]) * (before[one] - before[other]) >= -1e-9).all())


def test_the_absolute_distance_counts_an_absent_tower_and_does_not_move_it() -> None:
    held = [torch.tensor([value]) for value in (0.0, 0.0, 10.0)]
    DISTANCES["l1"](held, held[1:], 0.1)
    assert [tensor.item() for tensor in held] == pytest.approx([0.0, 0.05, 9.9])


def test_an_absent_task_s_tower_is_not_moved_and_the_others_go_to_the_mean_of_all() -> None:
    model = scattered({"mu": 1e9}, VOXEL)
    for parameter in encoder(model, "grade"):
        parameter.grad = None
    before = {name: [p.detach().clone() for p in encoder(model, name)] for name in VOXEL}
    decoders = [p.detach().clone() for p in model.decoders.parameters()]
    model.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(encoder(model, "grade"), before["grade"], strict=True))
    for name in ("organ", "edge"):
        means = (torch.stack(held).mean(0) for held in zip(*before.values(), strict=True))
        for found, mean in zip(encoder(model, name), means, strict=True):
            torch.testing.assert_close(found.detach(), mean)
    assert all(torch.equal(a, b) for a, b in zip(model.decoders.parameters(), decoders, strict=True))


def test_strengths_are_of_stages_and_the_last_is_that_of_all_deeper_ones() -> None:
    model = scattered({"strengths": [0.0, 2.0]}, TWO)
    twin, plain = copy.deepcopy(model), scattered({"mu": 2.0}, TWO)
    model.after_step(0.1)
    plain.after_step(0.1)
    for name in TWO:
        stages = [
            [list(stage.parameters()) for stage in kind.get_submodule(f"encoders.{name}_encoder.stages").children()]
            for kind in (model, twin, plain)
        ]
        for index, (found, before, doubled) in enumerate(zip(*stages, strict=True)):
            assert all(torch.equal(a, b) == (index == 0) for a, b in zip(found, before, strict=True))
            assert all(torch.equal(a, b) == (index > 0) for a, b in zip(found, doubled, strict=True))


def test_each_tower_is_a_clipping_group_with_the_rate_of_its_task_alone() -> None:
    model = model_of(Soft, OPTIONS, ["grade", "organ", "edge"])
    groups = groups_of(model).param_groups
    found = {group["clip_group"]: group["base_lr"] for group in groups}
    assert found == {"organ's tower": 4e-3, "edge's tower": 4e-3, "grade's tower": 1e-3, "grade": 1e-3}
    assert groups[0]["base_lr"] == 4e-3
    held = [p for group in groups for p in group["params"]]
    assert len(held) == len(set(held)) == len(list(model.parameters()))
    assert not Soft.shares
    assert Hard.shares


def test_a_tower_of_another_view_has_norms_of_its_own_already() -> None:
    model = model_of(Soft, OPTIONS, ["organ", "grade"], SecondView(("grade",), own_norms=True)).eval()
    plain = model_of(Soft, OPTIONS, ["organ", "grade"]).eval()
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(model(image(FLAT), ["grade"])["grade"], plain(image(FLAT), ["grade"])["grade"])


def test_a_second_encoder_of_soft_sharing_is_towers_as_well() -> None:
    own = build(Soft, OPTIONS, {"grade": False})
    tasks = model_of(Soft, OPTIONS, ["organ", "grade"])
    first = build(Soft, OPTIONS, {"organ": True})
    assert list(tasks.towers()) == ["organ", "grade"]
    assert first.own_parameters("grade") == [] and own.own_parameters("organ") == []


def test_more_strengths_than_stages_are_refused() -> None:
    given = SoftOptions.model_validate({**OPTIONS, "strengths": [1.0] * (len(FLAT.channels) + 1)})
    with pytest.raises(ValueError, match="more than the planned network's 3 stages"):
        Soft.towers(given, FLAT, UnetOptions(kind="unet"), VOXEL)


def test_one_task_alone_is_not_pulled() -> None:
    model = scattered({"mu": 1e9}, {"organ": True})
    before = [p.detach().clone() for p in model.parameters()]
    model.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
