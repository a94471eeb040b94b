from __future__ import annotations

from typing import Any

import pytest
import torch

from medmtl.model import MultiTaskModel, SecondView
from medmtl.sharing.hard import Hard
from medmtl.tasks.base import Task
from medmtl.tasks.classification import Classification
from medmtl.tasks.segmentation import Segmentation
from tests.networks.contract import FLAT, image
from tests.sharing.contract import build


def make(share: bool = True, more: tuple[str, ...] = (), **second: Any) -> MultiTaskModel:
    """An organ in the first view and, in the second, its grade and what else is graded."""
    torch.manual_seed(0)
    options = Classification.Options.model_validate(
        {"kind": "classification", "column": "g", "classes": ["low", "high"]}
    )
    organ = Segmentation.Options.model_validate({"kind": "segmentation", "column": "m", "labels": {"liver": 1}})
    tasks: dict[str, Task] = {
        "organ": Segmentation("organ", organ),
    }
    graded = dict.fromkeys(("grade", *more), False)
    for name in graded:
        tasks[name] = Classification(name, options, Classification(name, options).fit(["low", "high"]))
    voxel = {"organ": True, **graded} if share else {"organ": True}
    own = None if share else build(Hard, {"kind": "hard"}, graded)
    view = SecondView(tuple(graded), own, **second)
    return MultiTaskModel(build(Hard, {"kind": "hard"}, voxel), tasks, second=view).eval()


def reached(model: MultiTaskModel, task: str, tiles: int = 1) -> set[str]:
    """Parameters that a task's output depends on."""
    model.zero_grad()
    output = model(image(FLAT), [task], None, tiles)[task]
    maps = output if isinstance(output, tuple) else (output,)
    torch.stack([(m.float() - 1).square().mean() for m in maps]).sum().backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_a_shared_encoder_has_norms_of_its_own_for_a_view_of_another_spacing() -> None:
    model = make(own_norms=True)
    organ, grade = reached(model, "organ"), reached(model, "grade")
    both = {name for name in organ & grade if name.startswith("sharing.encoder")}
    assert both
    assert all("norm" not in name for name in both)
    assert {name for name in grade if "second_" in name}
    assert not {name for name in organ if "second_" in name}
    untouched = {name for name, _ in model.named_parameters()} - organ - grade
    assert all(name.startswith("heads_organ.levels.1") for name in untouched)  # deep supervision is training's


def test_norms_of_two_views_start_alike_and_are_learned_apart() -> None:
    model, plain = make(own_norms=True), make()
    assert torch.equal(model(image(FLAT), ["grade"])["grade"], plain(image(FLAT), ["grade"])["grade"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("second_bias"):
                parameter += 1
    assert torch.equal(model(image(FLAT), ["organ"])["organ"][0], plain(image(FLAT), ["organ"])["organ"][0])
    with torch.no_grad():
        for head in (model.heads["grade"], plain.heads["grade"]):
            head.linear.weight.fill_(1.0)  # type: ignore[operator, union-attr]
    assert not torch.allclose(model(image(FLAT), ["grade"])["grade"], plain(image(FLAT), ["grade"])["grade"])


def test_an_encoder_of_its_own_shares_nothing() -> None:
    model = make(share=False)
    assert not reached(model, "organ") & reached(model, "grade")
    own = {id(p) for p in model.second_trunk_parameters()}
    assert own == {id(p) for name, p in model.named_parameters() if name.startswith("second_sharing")}
    assert own and not own & {id(p) for p in model.trunk_parameters()}


def test_a_bag_of_tiles_has_one_answer_that_does_not_depend_on_their_order() -> None:
    model = make(tiled=True)
    with torch.no_grad():
        head: Any = model.heads["grade"]
        head.bag.weight.weight.normal_(generator=torch.Generator().manual_seed(1))
        head.linear.weight.normal_(generator=torch.Generator().manual_seed(2))
    tiles = torch.cat([image(FLAT), 3 * image(FLAT) + 1])
    found = model(tiles, ["grade"], None, 2)["grade"]
    assert found.shape == (2, 2)
    torch.testing.assert_close(model(tiles[[1, 0, 3, 2]], ["grade"], None, 2)["grade"], found)
    pooled = {"grade": torch.cat([model.pool(tiles[[i]], ["grade"])["grade"] for i in (0, 1)])}
    torch.testing.assert_close(model.answer(pooled)["grade"], found[:1], rtol=1e-4, atol=1e-4)


def test_tasks_of_two_views_are_not_asked_of_one_image() -> None:
    with pytest.raises(AssertionError):
        make()(image(FLAT), ["organ", "grade"])


@pytest.mark.parametrize("share", [True, False])
def test_the_stages_of_both_encoders_are_told_apart(share: bool) -> None:
    model = make(share, more=("age",))
    found = [parameter for held in model.stages().values() for parameter in held]
    assert len(found) == len(set(found))
    assert set(found) == set(model.trained().shared)
    assert {name.startswith("second_") for name in model.stages()} == {not share}


def test_two_networks_of_one_task_each_share_nothing() -> None:
    """A method on gradients has nothing to balance there, and must not weigh a task's whole network against another."""
    model = make(share=False)
    trained = model.trained()
    assert (trained.shared, trained.last_stage, model.stages()) == ([], [], {})
    assert set(trained.own) == set(model.parameters())
