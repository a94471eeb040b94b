"""Small models of a sharing kind with real tasks, and steps of their training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medmtl.model import MultiTaskModel, SecondView
from medmtl.sections import TrainingSection
from medmtl.sharing.base import Sharing
from medmtl.tasks.base import Task
from medmtl.tasks.classification import Classification
from medmtl.tasks.segmentation import Segmentation
from medmtl.training.optimiser import clip_groups, make_optimiser, set_rates
from medmtl.weighting.equal import Equal
from tests.networks.contract import FLAT, image
from tests.sharing.contract import build
from tests.test_model import CLASSIFICATION, SEGMENTATION, energy

VOXEL = {"organ": True, "grade": False, "edge": True}
# who is labelled in which step
PRESENT = (("organ", "grade", "edge"), ("edge", "organ"), ("grade",), ("organ", "grade", "edge"))


def model_of(
    cls: type[Sharing],
    options: Mapping[str, Any],
    names: Sequence[str] = tuple(VOXEL),
    second: SecondView | None = None,
) -> MultiTaskModel:
    """A model of tasks of the table above, always with the same weights."""
    tasks: dict[str, Task] = {}
    for name in names:
        kind: Any = Segmentation if VOXEL[name] else Classification
        given = kind.Options.model_validate(SEGMENTATION if VOXEL[name] else CLASSIFICATION)
        tasks[name] = kind(name, given, {} if VOXEL[name] else kind(name, given).fit(["low", "low", "high"]))
    sharing = build(cls, options, {name: VOXEL[name] for name in names})
    return MultiTaskModel(sharing, tasks, 0.5, second=second).train()


def groups_of(model: MultiTaskModel) -> torch.optim.Optimizer:
    """The optimiser of a training, with a rate of its own for case tasks."""
    training = TrainingSection(steps=1, lr=4e-3, head_lr=1e-3)
    case_tasks = frozenset(name for name in model.tasks if not VOXEL[name])
    return make_optimiser(model, Equal(Equal.Options(kind="equal"), model.tasks), case_tasks, training)


def trained(model: MultiTaskModel, clip: float = 0.05, steps: Sequence[Sequence[str]] = PRESENT) -> MultiTaskModel:
    """The model after a few steps, whose gradients are clipped; a step without a labelled task is none."""
    optimiser, weighting = groups_of(model), Equal(Equal.Options(kind="equal"), model.tasks)
    for step, labelled in enumerate(steps):
        present = [name for name in labelled if name in model.tasks]
        if not present:
            continue
        optimiser.zero_grad(set_to_none=True)
        torch.manual_seed(step)  # of dropout, as a training does
        outputs = model(image(FLAT, seed=step), present)
        weighting.backward({name: energy({name: outputs[name]}) for name in present}, trained=model.trained())
        set_rates(optimiser, 1 / (1 + step))
        norms = clip_groups(optimiser, clip)
        assert all(norm > clip for norm in norms.values())
        optimiser.step()
        model.after_step(optimiser.param_groups[0]["lr"])
    return model
