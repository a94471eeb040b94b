"""One model on one whole case: a single window where the case fits, sliding windows where it does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices

from medmtl.data.channels import with_indicators
from medmtl.data.crop import Triple, whole_shape
from medmtl.model import MultiTaskModel
from medmtl.planning import Plan
from medmtl.tasks.base import Task

logger = logging.getLogger(__name__)

Ask = Callable[[torch.Tensor, tuple[str, ...]], Mapping[str, Any]]

GAUSSIAN_SIGMA = 0.125  # of the window, as in nnU-Net


@torch.inference_mode()
def activations(
    model: MultiTaskModel,
    tasks: Mapping[str, Task],
    plan: Plan,
    image_CDHW: torch.Tensor,
    *,
    overlap: float,
    covariates_N: torch.Tensor | None = None,
    held: Sequence[bool] = (),
) -> dict[str, torch.Tensor]:
    """What each task says of a case, before any decision.

    A voxel task's probabilities are averaged over windows with Gaussian weights. A case task sees the whole case: where
    that is larger than any training case, its centre, with a warning. Under ``evidence: anywhere`` in a patch view its
    activations are averaged over windows.

    Args:
        model: on the device to use, in evaluation mode.
        tasks: by name.
        plan: the run's plan.
        image_CDHW: normalised, at working spacing, RAS-ordered.
        overlap: share of a window that the next one covers.
        covariates_N: the case's clinical covariates, where a task reads them.
        held: whether the case has each channel; needed where some are optional.

    Returns:
        Case tasks: (K,). Voxel tasks: (K, D, H, W) on the image's grid. Both fp32 on the CPU.
    """
    size = tuple(image_CDHW.shape[1:])
    shape = whole_shape([size], plan.shape, plan.network.divisor) if plan.view == "case" else plan.shape
    padded, start = _pad(image_CDHW, shape)
    padded = with_indicators(padded, held, plan.preparation)
    inside = tuple(slice(s, s + n) for s, n in zip(start, image_CDHW.shape[1:], strict=True))
    device = next(model.parameters()).device
    ask: Ask = model if covariates_N is None else partial(model, covariates_BN=covariates_N[None].to(device))
    if padded.shape[1:] == torch.Size(shape):
        outputs = _forward(ask, tasks, plan, padded[None].to(device), tuple(tasks))
        return {
            name: (value[0][(slice(None), *inside)] if tasks[name].voxel else value[0]).float().cpu()
            for name, value in outputs.items()
        }
    return _slide(ask, tasks, plan, shape, padded, inside, overlap, device)


def _slide(
    ask: Ask,
    tasks: Mapping[str, Task],
    plan: Plan,
    shape: Triple,
    padded_CDHW: torch.Tensor,
    inside: tuple[slice, ...],
    overlap: float,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    size = tuple(padded_CDHW.shape[1:])
    whole = tuple(name for name, task in tasks.items() if not task.voxel and plan.view == "case")
    tiled = tuple(name for name in tasks if name not in whole)
    result: dict[str, torch.Tensor] = {}
    if whole:
        logger.warning(
            "a case of %s voxels is larger than any training case; its centre is used for %s", size, ", ".join(whole)
        )
        centre = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(size, shape, strict=True))
        outputs = _forward(ask, tasks, plan, padded_CDHW[(slice(None), *centre)][None].to(device), whole)
        result.update({name: value[0].float().cpu() for name, value in outputs.items()})
    interval = tuple(max(1, int(n * (1 - overlap))) if m > n else n for n, m in zip(shape, size, strict=True))
    windows = dense_patch_slices(size, shape, interval, return_slice=True)
    weight = compute_importance_map(shape, mode="gaussian", sigma_scale=GAUSSIAN_SIGMA).clamp(min=1e-3)
    total = torch.zeros(size)
    sums: dict[str, torch.Tensor] = {}
    for window in windows if tiled else ():
        place = tuple(window)
        outputs = _forward(ask, tasks, plan, padded_CDHW[(slice(None), *place)][None].to(device), tiled)
        total[place] += weight
        for name, value in outputs.items():
            part = value[0].float().cpu()
            if tasks[name].voxel:
                if name not in sums:
                    sums[name] = torch.zeros((part.shape[0], *size))
                sums[name][(slice(None), *place)] += part * weight
            else:
                sums[name] = sums.get(name, torch.zeros_like(part)) + part / len(windows)
    for name, value in sums.items():
        result[name] = (value / total)[(slice(None), *inside)] if tasks[name].voxel else value
    return {name: result[name] for name in tasks}


def _forward(
    ask: Ask, tasks: Mapping[str, Task], plan: Plan, image_BCDHW: torch.Tensor, names: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    dtype: Any = torch.float16 if plan.precision == "fp16" else torch.bfloat16
    with torch.autocast(image_BCDHW.device.type, dtype=dtype, enabled=plan.precision != "fp32"):
        outputs = ask(image_BCDHW, names)
    return {name: tasks[name].activate(output) for name, output in outputs.items()}


def _pad(image_CDHW: torch.Tensor, shape: Triple) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Pad with 0 (the mean after normalisation) to at least ``shape``, the case in the middle."""
    missing = [max(0, wanted - size) for wanted, size in zip(shape, image_CDHW.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    pads = [amount for axis in (2, 1, 0) for amount in (before[axis], missing[axis] - before[axis])]
    return torch.nn.functional.pad(image_CDHW, pads), tuple(before)
