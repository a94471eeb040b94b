from __future__ import annotations

import pytest
import torch
from torch import nn

from medmtl.networks.unet import UnetEncoder
from medmtl.sharing.ple import Ple
from tests.networks.contract import FLAT, image
from tests.sharing.contract import SharingContract, build

OPTIONS = {"kind": "ple"}


class TestPle(SharingContract):
    cls = Ple
    options = OPTIONS


@pytest.mark.parametrize(("options", "experts", "runs"), [({}, 5, 3), ({"shared": 2, "own": 2}, 10, 6)])
def test_own_experts_of_absent_tasks_are_not_run(options: dict[str, int], experts: int, runs: int) -> None:
    model = build(Ple, {**OPTIONS, **options})
    calls: list[nn.Module] = []
    encoders = [module for module in model.modules() if isinstance(module, UnetEncoder)]
    for module in encoders:
        module.register_forward_hook(lambda module, _inputs, _output: calls.append(module))
    model.features(image(FLAT), ["organ", "age"])
    assert (len(encoders), len(calls)) == (experts, runs)


def test_a_task_mixes_the_shared_expert_and_its_own() -> None:
    model = build(Ple, OPTIONS)
    found = model.features(image(FLAT), ["grade"])["grade"]
    one, other = (model.get_submodule(name)(image(FLAT)) for name in ("experts.0", "own.grade_experts.0"))
    for index in range(3):
        torch.testing.assert_close(found.encoder[index], (one[index] + other[index]) / 2)
