"""A case head under the mask of a voxel task: what it reads, what learns from it, and what stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
import torch

from medmtl.model import MultiTaskModel
from medmtl.networks.pooling import head
from medmtl.networks.pooling.guidance import mean_under
from medmtl.sharing.hard import Hard
from medmtl.tasks.base import Task
from medmtl.tasks.classification import Classification
from medmtl.tasks.segmentation import Segmentation
from tests.networks.contract import FLAT, image
from tests.sharing.contract import build
from tests.test_model import CLASSIFICATION, SEGMENTATION, energy

REGIONS = {
    "labels": {"core": 1, "rim": 2},
    "regions": {"whole": ["core", "rim"], "inner": ["core"]},
    "train": "regions",
}
LABELS = {"labels": {"core": 1, "rim": 2}}
ORDER = ("organ", "grade", "edge", "plain")


def tasks_of(
    order: Sequence[str] = ORDER, guide: Mapping[str, Any] | None = None, guided_by: str | Sequence[str] = "organ"
) -> dict[str, Task]:
    """Two masks, a grade under the first one, or those named, and a grade of the image alone."""

    def classified(name: str, **options: Any) -> Task:
        made = Classification.Options.model_validate({**CLASSIFICATION, **options})
        return Classification(name, made, Classification(name, made).fit(["low", "low", "high"]))

    known: dict[str, Task] = {
        "organ": Segmentation("organ", Segmentation.Options.model_validate({**SEGMENTATION, **(guide or {})})),
        "edge": Segmentation("edge", Segmentation.Options.model_validate(SEGMENTATION)),
        "grade": classified("grade", guided_by=guided_by),
        "plain": classified("plain"),
    }
    return {name: known[name] for name in order}


def make(
    tasks: Mapping[str, Task] | None = None,
    decoder: Literal["shared", "per_task"] = "per_task",
    head_gradient: float = 1.0,
) -> MultiTaskModel:
    """A small model whose case heads have learned a little."""
    tasks = tasks_of() if tasks is None else tasks
    sharing = build(Hard, {"kind": "hard"}, {name: task.voxel for name, task in tasks.items()}, decoder)
    torch.manual_seed(0)
    model = MultiTaskModel(sharing, tasks, head_gradient)
    with torch.no_grad():
        for name in ("grade", "plain"):
            for parameter in model.head_parameters(name):
                parameter.normal_(std=0.1)
    return model.train()


def owners(model: MultiTaskModel, name: str) -> set[torch.nn.Parameter]:
    """Parameters that only the named task reaches."""
    return {*model.head_parameters(name), *model.sharing.own_parameters(name)}


@pytest.mark.parametrize("present", [["grade"], ["organ", "grade"]], ids="+".join)
def test_no_gradient_of_a_case_loss_reaches_its_guide(present: list[str]) -> None:
    model = make()
    outputs = model(image(FLAT), present)
    assert list(outputs) == present
    torch.autograd.backward((outputs["grade"] - 1).square().sum())
    assert all(p.grad is None for p in owners(model, "organ"))
    assert all(p.grad is not None for p in model.head_parameters("grade"))
    assert all(p.grad is not None for p in model.sharing.get_submodule("encoder").parameters())


def test_the_guide_learns_from_its_own_loss_as_it_would_alone() -> None:
    found = []
    for present in (["organ"], ["organ", "grade"]):
        model = make()
        torch.autograd.backward(energy({"organ": model(image(FLAT), present)["organ"]}))
        found.append([p.grad for p in (*model.head_parameters("organ"), *model.sharing.own_parameters("organ"))])
    assert found[0]
    for alone, beside in zip(*found, strict=True):
        assert alone is not None and beside is not None
        assert torch.equal(alone, beside)


@pytest.mark.parametrize("decoder", ["shared", "per_task"])
def test_an_absent_guide_is_bit_identical_after_a_step(decoder: Literal["shared", "per_task"]) -> None:
    model = make(decoder=decoder)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    torch.autograd.backward(energy(model(image(FLAT))))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    before, state = copy.deepcopy(model), copy.deepcopy(optimiser.state_dict()["state"])
    torch.autograd.backward(energy(model(image(FLAT), ["grade"])))
    optimiser.step()
    after = optimiser.state_dict()["state"]
    still = {f"heads_{name}" for name in ("organ", "edge", "plain")}
    for index, ((name, new), old) in enumerate(zip(model.named_parameters(), before.parameters(), strict=True)):
        absent = name.split(".")[0] in still or name.startswith("sharing.decoders")
        assert (new.grad is None) == absent
        assert torch.equal(new, old) == absent
        assert all(torch.equal(after[index][key], value) for key, value in state[index].items()) == absent


def test_the_answer_is_the_same_whether_the_guide_is_named_or_not() -> None:
    model = make().eval()
    alone = model(image(FLAT), ["grade"])["grade"]
    for present in (["organ", "grade"], ["grade", "organ"], None):
        assert torch.equal(model(image(FLAT), present)["grade"], alone)
    with torch.inference_mode():
        assert torch.equal(model(image(FLAT), ["grade"])["grade"], alone)


def test_the_order_of_the_tasks_in_the_file_does_not_matter() -> None:
    first = make().eval()
    expected = first(image(FLAT))
    for order in (("grade", "plain", "edge", "organ"), ("plain", "organ", "edge", "grade")):
        other = make(tasks_of(order)).eval()
        other.load_weights(first.state_dict())
        outputs = other(image(FLAT))
        assert list(outputs) == list(order)
        for name, output in outputs.items():
            found, wanted = (o[0] if isinstance(o, tuple) else o for o in (output, expected[name]))
            assert torch.equal(found, wanted)


def test_what_a_head_reads_is_its_guides_foreground_and_how_large_each_label_is() -> None:
    for guide in (None, LABELS, REGIONS):
        model = make(tasks_of(guide=guide))
        outputs, features = model.outputs_and_features(image(FLAT), ["organ", "grade", "plain"])
        logits = outputs["organ"][0].float()
        labels = logits.sigmoid() if guide is REGIONS else logits.softmax(1)[:, 1:]
        expected = labels.amax(1, keepdim=True) if guide is REGIONS else labels.sum(1, keepdim=True)
        (found,) = features["grade"].guides
        assert not found.foreground_B1DHW.requires_grad and not found.total_BL.requires_grad
        torch.testing.assert_close(found.foreground_B1DHW, expected)
        torch.testing.assert_close(found.total_BL, labels.sum((2, 3, 4)))
        assert features["plain"].guides == () == features["organ"].guides


def test_a_head_reads_several_guides_in_the_order_named() -> None:
    model = make(tasks_of(guided_by=["edge", "organ"]))
    _, features = model.outputs_and_features(image(FLAT), ["grade"])
    for found, name in zip(features["grade"].guides, ("edge", "organ"), strict=True):
        mask = model(image(FLAT), [name])[name][0].float().softmax(1)[:, 1:]
        torch.testing.assert_close(found.foreground_B1DHW, mask)
    changed = make(tasks_of(guided_by=["edge", "organ"])).eval()
    before = changed(image(FLAT), ["grade"])["grade"]
    for name in ("edge", "organ"):
        with torch.no_grad():
            for parameter in changed.head_parameters(name):
                parameter.normal_()
        after = changed(image(FLAT), ["grade"])["grade"]
        assert not torch.equal(before, after)
        before = after


def test_another_mask_changes_the_guided_task_alone() -> None:
    model = make().eval()
    before = model(image(FLAT))
    with torch.no_grad():
        for parameter in model.head_parameters("organ"):
            parameter.normal_()
    after = model(image(FLAT))
    assert not torch.equal(before["grade"], after["grade"])
    assert torch.equal(before["plain"], after["plain"])


def test_a_guided_head_whispers_too() -> None:
    stem = "sharing.encoder.stages.0.conv1.conv.weight"
    found = {}
    for share in (1.0, 0.1):
        model = make(head_gradient=share).eval()
        torch.autograd.backward(model(image(FLAT), ["grade"])["grade"].sum())
        found[share] = dict(model.named_parameters())[stem].grad
    assert found[1.0] is not None and found[0.1] is not None
    torch.testing.assert_close(found[0.1], found[1.0] * 0.1)


@pytest.mark.parametrize("present", [["grade"], ["organ", "grade"]], ids="+".join)
def test_bfloat16_gives_finite_values_and_equal_bits(present: list[str]) -> None:
    results = []
    for _ in range(2):
        model = make()
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(image(FLAT), present)
        torch.autograd.backward(energy(outputs))
        results.append([outputs["grade"], *(p.grad for p in model.parameters() if p.grad is not None)])
    assert results[0][0].dtype == torch.float32
    assert all(value.isfinite().all() for value in results[0])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_heads_under_one_mask_share_the_work_and_get_what_each_would_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(map_BCDHW: torch.Tensor, guide_B1DHW: torch.Tensor) -> torch.Tensor:
        calls.append(map_BCDHW.shape[1])
        return mean_under(map_BCDHW, guide_B1DHW)

    monkeypatch.setattr(head, "mean_under", counted)
    tasks = tasks_of()
    tasks["plain"] = tasks_of(guided_by=["organ", "edge"])["grade"]
    model = make(tasks).eval()
    both = model(image(FLAT), ["grade", "plain"])
    maps = model.heads["grade"].scales
    assert len(calls) == 2 * maps
    for name in ("grade", "plain"):
        torch.testing.assert_close(model(image(FLAT), [name])[name], both[name])
