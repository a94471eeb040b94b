"""Covariates reach the heads that ask for them, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medmtl.model import MultiTaskModel
from medmtl.sharing.hard import Hard
from medmtl.tasks.base import Inputs, Task
from medmtl.tasks.regression.task import Regression
from medmtl.tasks.segmentation import Segmentation
from tests.networks.contract import FLAT, image
from tests.sharing.contract import build
from tests.test_model import SEGMENTATION, energy

COUNT = 5
INPUTS: tuple[Inputs, ...] = ("image", "covariates", "both")


def make() -> MultiTaskModel:
    """A mask, and one value three times: from the image, from the covariates and from both."""
    torch.manual_seed(0)
    tasks: dict[str, Task] = {"organ": Segmentation("organ", Segmentation.Options.model_validate(SEGMENTATION))}
    for inputs in INPUTS:
        options = Regression.Options(kind="regression", column="value", inputs=inputs)
        tasks[inputs] = Regression(inputs, options, {"median": 0.0, "spread": 1.0})
    sharing = build(Hard, {"kind": "hard"}, {name: task.voxel for name, task in tasks.items() if task.reads_image})
    model = MultiTaskModel(sharing, tasks, covariates=COUNT)
    with torch.no_grad():
        for inputs in INPUTS:  # trained a little
            for parameter in model.head_parameters(inputs):
                parameter.normal_(std=0.1)
    return model.eval()


def covariates(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, COUNT, generator=torch.Generator().manual_seed(3))


def flat(output: Any) -> torch.Tensor:
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found


def test_other_covariates_change_only_the_tasks_that_read_them() -> None:
    model = make()
    before, after = model(image(FLAT), None, covariates()), model(image(FLAT), None, covariates().flip(0))
    changed = {name for name in model.tasks if not torch.equal(flat(before[name]), flat(after[name]))}
    assert changed == {"covariates", "both"}
    torch.testing.assert_close(after["covariates"], before["covariates"].flip(0))


def test_another_image_changes_only_the_tasks_that_read_it() -> None:
    model = make()
    before, after = model(image(FLAT), None, covariates()), model(image(FLAT) + 1, None, covariates())
    assert torch.equal(before["covariates"], after["covariates"])
    after = model(image(FLAT).flip(0), None, covariates())
    assert not torch.equal(before["both"], after["both"])


def test_a_task_of_covariates_needs_no_encoder_and_gives_it_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make().train()
    with monkeypatch.context() as patch:
        patch.setattr(model.sharing, "features", None)
        outputs = model(image(FLAT), ["covariates"], covariates())
    torch.autograd.backward(energy(outputs))
    assert all(p.grad is None for p in model.trunk_parameters())
    assert all(p.grad is not None for p in model.head_parameters("covariates"))


def test_a_task_that_does_not_read_covariates_does_not_want_them() -> None:
    model = make()
    given = model(image(FLAT), ["organ", "image"], covariates())
    for name, output in model(image(FLAT), ["organ", "image"]).items():
        assert torch.equal(flat(output), flat(given[name]))


def test_a_sample_keeps_its_answer_in_another_order() -> None:
    model = make()
    one = model(image(FLAT), ["both"], covariates())["both"]
    other = model(image(FLAT).flip(0), ["both"], covariates().flip(0))["both"]
    torch.testing.assert_close(other.flip(0), one)
