"""Windows of a scan, and what a model says of one."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from monai.data.utils import dense_patch_slices

from medmtl.data.crop import Triple
from medmtl.device import Device
from medmtl.device import autocast as computing_in
from medmtl.inference.foreground import foreground_window
from medmtl.inference.mirrors import Mirrors, over_mirrors
from medmtl.model import MultiTaskModel
from medmtl.planning import Plan
from medmtl.tasks.base import Task

logger = logging.getLogger(__name__)

Window = tuple[slice, ...]
"""Where a window lies in a scan, per axis."""

TOLD_LOSS = 0.01  # of the foreground, from which it is worth a word


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


def autocast(plan: Plan, device: torch.device) -> torch.autocast:
    """The arithmetic of a plan."""
    return computing_in(device, plan.precision)


def forward(
    ask: Ask, tasks: Mapping[str, Task], plan: Plan, image_BCDHW: torch.Tensor, names: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """Activations of the named tasks."""

    def look(image_BCDHW: torch.Tensor, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        with autocast(plan, image_BCDHW.device):
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


def pad(image_CDHW: torch.Tensor, shape: Triple) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Pad with 0 (the mean after normalisation) to at least ``shape``, the case in the middle."""
    missing = [max(0, wanted - size) for wanted, size in zip(shape, image_CDHW.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    if not any(missing):
        return image_CDHW, tuple(before)
    pads = [amount for axis in (2, 1, 0) for amount in (before[axis], missing[axis] - before[axis])]
    return torch.nn.functional.pad(image_CDHW, pads), tuple(before)


def windows_over(size: Sequence[int], shape: Triple, overlap: float) -> list[Window]:
    """Windows that cover a scan, each next one covering a share of the one before."""
    interval = tuple(max(1, int(n * (1 - overlap))) if m > n else n for n, m in zip(shape, size, strict=True))
    return [tuple(window) for window in dense_patch_slices(tuple(size), shape, interval, return_slice=True)]


def cropped(image_CDHW: torch.Tensor, shape: Triple, tasks: Sequence[str]) -> torch.Tensor:
    """A scan that is larger than any training case, cropped to the plan's shape around its foreground; said aloud."""
    start, lost = foreground_window(image_CDHW, shape)
    logger.warning(
        "a case of %s voxels is larger than any training case; a window of %s around its foreground is used for %s%s",
        tuple(image_CDHW.shape[1:]),
        shape,
        ", ".join(tasks),
        f", which leaves out {lost:.0%} of it" if lost >= TOLD_LOSS else "",
    )
    place = tuple(slice(begin, begin + n) for begin, n in zip(start, shape, strict=True))
    return image_CDHW[(slice(None), *place)]
