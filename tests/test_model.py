from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from medmtl.errors import ArtefactError
from medmtl.model import MultiTaskModel
from medmtl.networks.pooling.mean_max import MeanMax
from medmtl.sharing.hard import Hard
from medmtl.tasks.base import Task
from medmtl.tasks.classification import Classification
from medmtl.tasks.segmentation import Segmentation
from tests.networks.contract import FLAT, image
from tests.sharing.contract import build

SEGMENTATION = {"kind": "segmentation", "column": "mask", "labels": {"liver": 1}}
CLASSIFICATION = {"kind": "classification", "column": "grade", "classes": ["low", "high"]}


def make(decoder: Any = "shared", head_gradient: float = 1.0, **kinds: type[Task]) -> MultiTaskModel:
    tasks: dict[str, Task] = {}
    for name, kind in (kinds or {"organ": Segmentation, "edge": Segmentation, "grade": Classification}).items():
        options = kind.Options.model_validate(SEGMENTATION if kind is Segmentation else CLASSIFICATION)
        fitted = {} if kind is Segmentation else kind(name, options).fit(["low", "low", "high"])
        tasks[name] = kind(name, options, fitted)
    sharing = build(Hard, {"kind": "hard"}, {name: task.voxel for name, task in tasks.items()}, decoder)
    return MultiTaskModel(sharing, tasks, head_gradient).train()


def energy(outputs: dict[str, Any]) -> torch.Tensor:
    maps = [m for output in outputs.values() for m in (output if isinstance(output, tuple) else (output,))]
    return torch.stack([(m.float() - 1).square().mean() for m in maps]).sum()


def test_outputs_are_a_mapping_in_the_configured_order() -> None:
    model = make()
    outputs = model(image(FLAT))
    assert list(outputs) == list(model.tasks) == ["organ", "edge", "grade"]
    assert [level.shape for level in outputs["organ"]] == [(2, 2, 16, 24, 8), (2, 2, 8, 12, 8)]
    assert outputs["grade"].shape == (2, 2)


@pytest.mark.parametrize("kind", [Segmentation, Classification])
def test_outputs_are_a_mapping_also_for_one_task(kind: type[Task]) -> None:
    outputs = make(only=kind)(image(FLAT))
    assert isinstance(outputs, dict)
    assert list(outputs) == ["only"]


def test_only_named_tasks_are_run() -> None:
    model = make()
    assert list(model(image(FLAT), ["grade"])) == ["grade"]
    assert model(image(FLAT), []) == {}


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_case_head_sends_a_share_of_its_gradient_into_the_trunk(share: float) -> None:
    def gradients(head_gradient: float, tasks: list[str]) -> dict[str, torch.Tensor | None]:
        torch.manual_seed(0)
        model = make(head_gradient=head_gradient)
        torch.manual_seed(0)
        energy(model(image(FLAT), tasks)).backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    whole, damped = gradients(1.0, ["grade"]), gradients(share, ["grade"])
    both, organ = gradients(share, ["organ", "grade"]), gradients(share, ["organ"])
    for name, gradient in whole.items():
        found = damped[name]
        if gradient is None or (share == 0 and name.startswith("sharing")):
            assert found is None
            continue
        factor = share if name.startswith("sharing") else 1.0
        torch.testing.assert_close(found, gradient * factor)
    # what the mask sends is whole, wherever the two meet
    assert organ["sharing.encoder.stages.0.conv1.conv.weight"] is not None
    for name, gradient in organ.items():
        parts = [part for part in (gradient, damped[name]) if part is not None]
        if parts:
            torch.testing.assert_close(both[name], torch.stack(parts).sum(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_heads_that_read_the_same_maps_pool_them_once(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Size] = []
    pool = MeanMax.forward

    def counted(self: MeanMax, map_BCDHW: torch.Tensor) -> torch.Tensor:
        calls.append(map_BCDHW.shape)
        return pool(self, map_BCDHW)

    monkeypatch.setattr(MeanMax, "forward", counted)

    def gradients(tasks: list[str]) -> dict[str, torch.Tensor | None]:
        torch.manual_seed(0)
        model = make(head_gradient=share, grade=Classification, stage=Classification).eval()  # without dropout
        energy(model(image(FLAT), tasks)).backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    found = [gradients(tasks) for tasks in (["grade"], ["stage"], ["grade", "stage"])]
    once = len(calls) // 3
    assert len(calls) == 3 * once
    assert len(set(calls)) == once  # one call per map
    for name, both in found[2].items():
        parts = [gradient for gradient in (found[0][name], found[1][name]) if gradient is not None]
        assert (both is None) == (not parts)
        if parts:
            torch.testing.assert_close(both, torch.stack(parts).sum(0), rtol=1e-4, atol=1e-7)


def test_parameters_are_trunk_or_one_heads() -> None:
    model = make()
    parts = [model.trunk_parameters(), *(model.head_parameters(name) for name in model.tasks)]
    found = [p for part in parts for p in part]
    assert all(parts)
    assert len(found) == len(set(found)) == len(list(model.parameters()))
    trained = model.trained()
    assert set(trained.last_stage) <= set(trained.shared) <= set(model.trunk_parameters())
    assert len([*trained.shared, *trained.own]) == len(list(model.parameters()))
    assert {*trained.shared, *trained.own} == set(model.parameters())


@pytest.mark.parametrize("decoder", ["shared", "per_task"])
@pytest.mark.parametrize("present", [["grade"], ["organ"], ["organ", "grade"]], ids="+".join)
def test_what_only_absent_tasks_reach_stays_bit_identical_under_adamw(decoder: str, present: list[str]) -> None:
    model = make(decoder)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    torch.autograd.backward(energy(model(image(FLAT))))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    before, state = copy.deepcopy(model), copy.deepcopy(optimiser.state_dict()["state"])

    torch.autograd.backward(energy(model(image(FLAT), present)))
    untouched = {index for index, p in enumerate(model.parameters()) if p.grad is None}
    optimiser.step()

    absent = [name for name in model.tasks if name not in present]
    expected = {p for name in absent for p in (*model.head_parameters(name), *model.sharing.own_parameters(name))}
    if "organ" not in present:
        expected |= set(model.sharing.get_submodule("decoders").parameters())
    assert {p for index, p in enumerate(model.parameters()) if index in untouched} == expected
    after = optimiser.state_dict()["state"]
    for index, (new, old) in enumerate(zip(model.parameters(), before.parameters(), strict=True)):
        assert torch.equal(new, old) == (index in untouched)
        same_state = all(torch.equal(after[index][key], value) for key, value in state[index].items())
        assert same_state == (index in untouched)


def test_equal_inputs_give_equal_bits_in_bfloat16() -> None:
    model = make()
    results = []
    for _ in range(2):
        model.zero_grad()
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(image(FLAT), ["organ", "edge"])
        torch.autograd.backward(energy(outputs))
        results.append([*outputs["organ"], *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["type", "training", "parameters", "heads", "sharing", "tasks", "values"])
def test_a_task_may_be_called_like_an_attribute(name: str) -> None:
    model = make(**{name: Classification, "other": Classification}).eval()
    assert list(model(image(FLAT))) == [name, "other"]
    assert len(model.head_parameters(name)) == 2


def test_a_copy_shares_nothing_with_its_source() -> None:
    model = make().eval()
    before = model(image(FLAT))["grade"]
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(model(image(FLAT))["grade"], before)
    assert not torch.equal(twin(image(FLAT))["grade"], before)


def test_weights_are_loaded_by_name() -> None:
    model, other = make().eval(), make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    other.load_weights(model.state_dict())
    assert torch.equal(other(image(FLAT))["grade"], model(image(FLAT))["grade"])


@pytest.mark.covers("B151")
def test_weights_that_do_not_fit_are_all_listed_and_none_is_loaded() -> None:
    model = make()
    weights = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    first, second, third, *_ = weights
    del weights[first]
    weights[second] = weights[second].double()
    weights[third] = weights[third][:-1]
    weights["extra"] = torch.zeros(1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ArtefactError) as error:
        model.load_weights(weights)
    assert str(error.value).startswith("[B151] the weights do not fit this model: ")
    assert all(name in str(error.value) for name in (f"{first} is missing", "float64", third, "extra is unknown"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
