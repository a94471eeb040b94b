"""One model on one whole case: a single window where the case fits, sliding windows where it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from monai.data.utils import compute_importance_map

from medmtl.data.channels import with_indicators
from medmtl.data.crop import Triple, whole_shape
from medmtl.inference.ask import Ask, cropped, forward, model_device, pad, windows_over
from medmtl.inference.boxes import in_the_core, joined, moved
from medmtl.inference.case_view import SecondScan, case_view_activations
from medmtl.inference.mirrors import Mirrors
from medmtl.model import MultiTaskModel
from medmtl.planning import Plan
from medmtl.tasks.base import CaseTask, Task
from medmtl.tasks.box_task import BoxTask

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
    coarse_CDHW: torch.Tensor | None = None,
    centre: Triple | None = None,
    held: Sequence[bool] = (),
    mirrors: Mirrors = (),
) -> dict[str, torch.Tensor]:
    """What each task says of a case, before any decision.

    A voxel task's probabilities are averaged over windows with Gaussian weights, and of a box task's boxes those stay
    that no other window sees better. A case task sees the whole case: where
    that is larger than any training case, a window around its foreground, with a warning. Under ``evidence: anywhere``
    in a patch view its activations are averaged over windows. What the tasks of a second view see is told in
    :mod:`medmtl.inference.case_view`.

    Args:
        model: on the device to use, in evaluation mode.
        tasks: by name.
        plan: the run's plan.
        image_CDHW: normalised, at working spacing, RAS-ordered.
        overlap: share of a window that the next one covers.
        covariates_N: the case's clinical covariates, where a task reads them.
        coarse_CDHW: the case as the second view prepares it, where that has a spacing of its own.
        centre: of the lesion, where it is known and is not to be predicted.
        held: whether the case has each channel; needed where some are optional.
        mirrors: images of every sample or window to look at besides; tiles are not mirrored.

    Returns:
        Case tasks: (K,). Voxel tasks: (K, D, H, W) on the image's grid. Box tasks: (n, 7), corners in its voxels and a
        score. All fp32 on the CPU.
    """
    second = plan.case_view
    main = {name: task for name, task in tasks.items() if second is None or name not in second.tasks}
    ask = Ask(model, covariates_N, mirrors)
    found = _main_view(ask, main, plan, image_CDHW, held, overlap, model_device(model)) if main else {}
    if second is not None:
        seen = SecondScan(image_CDHW, coarse_CDHW, found, centre, held)
        found |= case_view_activations(ask, tasks, plan, seen, overlap)
    return {name: found[name] for name in tasks}


def _main_view(
    ask: Ask,
    tasks: Mapping[str, Task],
    plan: Plan,
    image_CDHW: torch.Tensor,
    held: Sequence[bool],
    overlap: float,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    size = tuple(image_CDHW.shape[1:])
    shape = whole_shape([size], plan.shape, plan.network.divisor) if plan.view == "case" else plan.shape
    padded, start = pad(image_CDHW, shape)
    padded = with_indicators(padded, held, plan.preparation)
    inside = tuple(slice(s, s + n) for s, n in zip(start, image_CDHW.shape[1:], strict=True))
    if padded.shape[1:] == torch.Size(shape):
        outputs = forward(ask, tasks, plan, padded[None].to(device), tuple(tasks))
        return {name: _inside(tasks[name], value[0], inside).float().cpu() for name, value in outputs.items()}
    return _slide(ask, tasks, plan, shape, padded, inside, overlap, device)


def _inside(task: Task, value: torch.Tensor, inside: tuple[slice, ...]) -> torch.Tensor:
    """Without what a scan was padded with."""
    if isinstance(task, BoxTask):
        return joined([moved(value, [-part.start for part in inside])], [part.stop - part.start for part in inside])
    return value[(slice(None), *inside)] if task.voxel else value


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
        outputs = forward(ask, tasks, plan, cropped(padded_CDHW, shape, whole)[None].to(device), whole)
        result.update({name: value[0].float().cpu() for name, value in outputs.items()})
    windows = windows_over(size, shape, overlap)
    weight = compute_importance_map(shape, mode="gaussian", sigma_scale=GAUSSIAN_SIGMA).clamp(min=1e-3)
    total = torch.zeros(size)
    sums: dict[str, torch.Tensor] = {}
    seen: dict[str, list[torch.Tensor]] = {}
    for place in windows if tiled else ():
        outputs = forward(ask, tasks, plan, padded_CDHW[(slice(None), *place)][None].to(device), tiled)
        total[place] += weight
        for name, value in outputs.items():
            part = value[0].float().cpu()
            if isinstance(tasks[name], BoxTask):
                here = moved(part, [axis.start for axis in place])
                seen.setdefault(name, []).append(in_the_core(here, place, size, overlap))
            elif tasks[name].voxel:
                if name not in sums:
                    sums[name] = torch.zeros((part.shape[0], *size))
                sums[name][(slice(None), *place)] += part * weight
            else:
                seen.setdefault(name, []).append(part)
    result |= {name: (value / total)[(slice(None), *inside)] for name, value in sums.items()}
    for name, parts in seen.items():
        if isinstance(tasks[name], BoxTask):
            result[name] = _inside(tasks[name], torch.cat(parts), inside)
        else:
            result[name] = cast(CaseTask, tasks[name]).over_windows(torch.stack(parts))
    return {name: result[name] for name in tasks}
