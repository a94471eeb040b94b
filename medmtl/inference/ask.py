"""What a model says of images of one case, in which arithmetic, and of how many at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from medmtl.device import Device, autocast
from medmtl.inference.mirrors import Mirrors, over_mirrors
from medmtl.model import MultiTaskModel
from medmtl.planning import Plan
from medmtl.tasks.base import Task


def model_device(model: MultiTaskModel) -> torch.device:
    """Where a model lies."""
    return next(model.parameters()).device


@dataclass(frozen=True)
class Ask:
    """A model for one case.

    Attributes:
        model: on its device, in evaluation mode.
        covariates_N: the case's clinical covariates, where a task reads them.
        mirrors: images of the case to look at besides.
    """

    model: MultiTaskModel
    covariates_N: torch.Tensor | None = None
    mirrors: Mirrors = ()

    def __call__(self, image_BCDHW: torch.Tensor, names: tuple[str, ...]) -> Mapping[str, Any]:
        """Images and names of tasks -> their outputs."""
        if self.covariates_N is None:
            return self.model(image_BCDHW, names)  # type: ignore[no-any-return]
        known_BN = self.covariates_N.to(image_BCDHW.device).expand(len(image_BCDHW), -1)
        return self.model(image_BCDHW, names, covariates_BN=known_BN)  # type: ignore[no-any-return]


def chosen_precision(
    wanted: Literal["auto", "fp32", "bf16"], trained: Literal["fp32", "bf16", "fp16"], device: Device
) -> Literal["fp32", "bf16", "fp16"]:
    """What a run's network computes in where it predicts.

    Args:
        wanted: ``inference.precision``.
        trained: what the training was planned with.
        device: where to predict. Arithmetic that it does not have is emulated, many times slower than fp32.
    """
    if wanted != "auto":
        return wanted
    has = {"fp32": True, "bf16": device.bf16, "fp16": device.kind == "cuda"}
    return trained if has[trained] else "fp32"


def forward(
    ask: Ask, tasks: Mapping[str, Task], plan: Plan, image_BCDHW: torch.Tensor, names: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """Activations of the named tasks."""

    def look(image_BCDHW: torch.Tensor, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        with autocast(image_BCDHW.device, plan.precision):
            outputs = ask(image_BCDHW, names)
        return {name: tasks[name].activate(output) for name, output in outputs.items()}

    most = at_once(plan, image_BCDHW.shape[2:], image_BCDHW.device)
    return over_mirrors(look, tasks, image_BCDHW, names, ask.mirrors, most)


def at_once(plan: Plan, shape: Sequence[int], device: torch.device) -> int:
    """Images that a pass takes: on a GPU no more voxels than a training step had, which also needed gradients.

    One on a CPU: maps of several leave its caches, and each image was measured to take longer.

    Args:
        plan: of the training.
        shape: voxels of an image.
        device: where the model lies.
    """
    if device.type == "cpu":
        return 1
    return max(1, plan.batch * math.prod(plan.shape) // math.prod(shape))
