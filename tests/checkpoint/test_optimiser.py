"""An optimiser goes on from a checkpoint as if it had never stopped, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medmtl import checkpoint
from medmtl.errors import ArtefactError


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"trunk": nn.Linear(3, 4), "head": nn.Linear(4, 1), "idle": nn.Linear(4, 1)})


def optimiser(model: nn.Module, **options: Any) -> torch.optim.AdamW:
    slow = [parameter for name, parameter in model.named_parameters() if not name.startswith("head")]
    fast = [parameter for name, parameter in model.named_parameters() if name.startswith("head")]
    groups: list[dict[str, Any]] = [
        {"params": slow},
        {"params": fast, "lr": 1e-2, "weight_decay": 0.0, "betas": (0.8, 0.99)},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, **options)


def train(model: nn.ModuleDict, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad(set_to_none=True)
        model["head"](model["trunk"](x)).square().mean().backward()
        optimizer.param_groups[0]["lr"] = 1e-3 / (1 + step)
        optimizer.step()


def by_parameter(model: nn.Module) -> dict[nn.Parameter, str]:
    return {parameter: name for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}])
def test_a_resumed_adamw_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    straight = network()
    whole = optimiser(straight, **options)
    train(straight, whole, range(7))

    model = network()
    optimizer = optimiser(model, **options)
    train(model, optimizer, range(4))
    tensors, groups = checkpoint.optimiser_tensors(optimizer, by_parameter(model))
    assert not [key for key in tensors if key.startswith("idle")]
    assert tensors["trunk.weight.step"].item() == 4
    checkpoint.save(tmp_path, 4, {"model": dict(model.state_dict()), "optimiser": tensors}, {"groups": groups})

    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    resumed = network()
    for parameter in resumed.parameters():
        nn.init.zeros_(parameter)
    resumed.load_state_dict(dict(loaded.tensors["model"]))
    other = optimiser(resumed, **options)
    # State of its own, also of the idle parameter, that the checkpoint does not have and that must go.
    resumed["idle"](torch.ones(1, 4)).sum().backward()
    other.step()
    resumed.load_state_dict(dict(loaded.tensors["model"]))
    checkpoint.load_optimiser(other, by_parameter(resumed), loaded.tensors["optimiser"], loaded.state["groups"])
    assert not any(parameter in other.state for parameter in resumed["idle"].parameters())
    assert other.param_groups[1]["betas"] == (0.8, 0.99)

    again, groups_again = checkpoint.optimiser_tensors(other, by_parameter(resumed))
    assert groups_again == groups
    assert again.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert (again[key].dtype, again[key].device) == (tensor.dtype, tensor.device)
        assert bits(again[key]) == bits(tensor)

    kept = {key: value.clone() for key, value in loaded.tensors["optimiser"].items()}
    train(resumed, other, range(4, 7))
    for name, parameter in straight.named_parameters():
        assert bits(resumed.get_parameter(name)) == bits(parameter), name
    final, _ = checkpoint.optimiser_tensors(whole, by_parameter(straight))
    for key, tensor in checkpoint.optimiser_tensors(other, by_parameter(resumed))[0].items():
        assert bits(tensor) == bits(final[key]), key
    assert all(torch.equal(kept[key], value) for key, value in loaded.tensors["optimiser"].items())


def test_an_optimiser_that_does_not_fit_is_refused() -> None:
    model = network()
    optimizer = optimiser(model)
    train(model, optimizer, range(2))
    names = by_parameter(model)
    tensors, groups = checkpoint.optimiser_tensors(optimizer, names)
    groups = json.loads(json.dumps(groups))

    def refused(reason: str, tensors: dict[str, torch.Tensor], groups: list[dict[str, Any]]) -> None:
        with pytest.raises(ArtefactError, match=reason):
            checkpoint.load_optimiser(optimiser(model), names, tensors, groups)

    refused("other parameters", tensors, groups[:1])
    refused("other parameters", tensors, groups[::-1])
    refused("other options", tensors, [{**groups[0], "options": {}}, groups[1]])
    refused("fits no parameter", {**tensors, "gone.weight.step": torch.tensor(1.0)}, groups)
    refused("fits no parameter", {**tensors, "head.weight.exp_avg": torch.ones(2, 2)}, groups)
    refused("lacks entries", {key: value for key, value in tensors.items() if key != "head.bias.step"}, groups)
    checkpoint.load_optimiser(optimiser(model), names, tensors, groups)
