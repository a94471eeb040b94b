"""One model on one whole case: a single window where the case fits, sliding windows where it does not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch

from medmtl.data.channels import with_indicators
from medmtl.data.crop import Triple, whole_shape
from medmtl.inference.ask import Ask, at_once, forward, model_device
from medmtl.inference.boxes import in_the_core, joined, moved
from medmtl.inference.case_view import PredictedLesion, SecondScan, case_view_activations
from medmtl.inference.mirrors import Mirrors
from medmtl.inference.plane_sums import PlaneSums
from medmtl.inference.planes import Found, Planes, Stream
from medmtl.inference.windows import Window, cropped, pad, windows_over
from medmtl.model import MultiTaskModel
from medmtl.planning import Plan
from medmtl.tasks.base import CaseTask, Task
from medmtl.tasks.box_task import BoxTask


@torch.inference_mode()
def stream(
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
) -> Stream:
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

    Yields:
        Voxel tasks: planes of the image's grid.

    Returns:
        Case tasks: (K,). Box tasks: (n, 7), corners in its voxels and a score. All fp32 on the CPU.
    """
    second = plan.case_view
    main = {name: task for name, task in tasks.items() if second is None or name not in second.tasks}
    ask = Ask(model, covariates_N, mirrors)
    unknown = second is not None and second.kind == "lesion" and centre is None
    lesion = PredictedLesion(tasks, second) if second is not None and unknown else None
    found: Found = {}
    if main:
        parts = _main_view(ask, main, plan, image_CDHW, held, overlap)
        found = yield from (parts if lesion is None else lesion.watch(parts))
    if second is not None:
        seen = SecondScan(image_CDHW, coarse_CDHW, centre if lesion is None else lesion.centre(), held)
        found |= case_view_activations(ask, tasks, plan, seen, overlap)
    return found


def _main_view(
    ask: Ask,
    tasks: Mapping[str, Task],
    plan: Plan,
    image_CDHW: torch.Tensor,
    held: Sequence[bool],
    overlap: float,
) -> Stream:
    size = tuple(image_CDHW.shape[1:])
    shape = whole_shape([size], plan.shape, plan.network.divisor) if plan.view == "case" else plan.shape
    padded, start = pad(image_CDHW, shape)
    padded = with_indicators(padded, held, plan.preparation)
    inside = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    if padded.shape[1:] != torch.Size(shape):
        whole = tuple(name for name, task in tasks.items() if not task.voxel and plan.view == "case")
        found = _cropped(ask, tasks, plan, shape, image_CDHW, held, whole) if whole else {}
        tiled = {name: task for name, task in tasks.items() if name not in whole}
        return found | (yield from _slide(ask, tiled, plan, shape, padded, inside, overlap))
    outputs = forward(ask, tasks, plan, padded[None].to(model_device(ask.model)), tuple(tasks))
    found = {name: _inside(tasks[name], value[0], inside).float().cpu() for name, value in outputs.items()}
    if voxels := {name: found.pop(name) for name, task in tasks.items() if _has_planes(task)}:
        yield Planes(voxels)
    return found


def _has_planes(task: Task) -> bool:
    """Whether its answer is one per voxel; boxes are read off maps, and are a list."""
    return task.voxel and not isinstance(task, BoxTask)


def _inside(task: Task, value: torch.Tensor, inside: Window) -> torch.Tensor:
    """Without what a scan was padded with."""
    if isinstance(task, BoxTask):
        return joined([moved(value, [-part.start for part in inside])], [part.stop - part.start for part in inside])
    return value[(slice(None), *inside)] if task.voxel else value


def _cropped(
    ask: Ask,
    tasks: Mapping[str, Task],
    plan: Plan,
    shape: Triple,
    image_CDHW: torch.Tensor,
    held: Sequence[bool],
    names: tuple[str, ...],
) -> Found:
    """What tasks that see a whole case say of one that is too large."""
    sample = with_indicators(cropped(image_CDHW, shape, names, held), held, plan.preparation)
    outputs = forward(ask, tasks, plan, sample[None].to(model_device(ask.model)), names)
    return {name: value[0].float().cpu() for name, value in outputs.items()}


def _slide(
    ask: Ask,
    tasks: Mapping[str, Task],
    plan: Plan,
    shape: Triple,
    padded_CDHW: torch.Tensor,
    inside: Window,
    overlap: float,
) -> Stream:
    """Windows in order of their first plane; planes that no later window sees are final and leave."""
    size = tuple(padded_CDHW.shape[1:])
    tiled = tuple(tasks)
    result: Found = {}
    sums = PlaneSums(shape, size)
    seen: dict[str, list[torch.Tensor]] = {}
    windows = windows_over(size, shape, overlap) if tiled else []
    for begin, row in itertools.groupby(windows, key=lambda place: place[0].start):
        yield from _parts(sums.final(begin), inside)
        for place, found in _looks(ask, tasks, plan, padded_CDHW, list(row), tiled):
            sums.add(place, {name: found.pop(name) for name in tiled if _has_planes(tasks[name])})
            for name, value in found.items():
                if isinstance(tasks[name], BoxTask):
                    here = moved(value, [axis.start for axis in place])
                    seen.setdefault(name, []).append(in_the_core(here, place, size, overlap))
                else:
                    seen.setdefault(name, []).append(value)
    yield from _parts(sums.final(size[0]), inside)
    for name, parts in seen.items():
        if isinstance(tasks[name], BoxTask):
            result[name] = _inside(tasks[name], torch.cat(parts), inside)
        else:
            result[name] = cast(CaseTask, tasks[name]).over_windows(torch.stack(parts))
    return result


def _looks(
    ask: Ask,
    tasks: Mapping[str, Task],
    plan: Plan,
    padded_CDHW: torch.Tensor,
    windows: Sequence[Window],
    names: tuple[str, ...],
) -> Iterator[tuple[Window, dict[str, torch.Tensor]]]:
    """Windows with what the tasks say of each, fp32 on the CPU; several pass the network at once where that pays."""
    device = model_device(ask.model)
    # mirror images are looked at together, so that their windows come one by one
    count = 1 if ask.mirrors else at_once(plan, [part.stop - part.start for part in windows[0]], device)
    for first in range(0, len(windows), count):
        places = windows[first : first + count]
        images = torch.stack([padded_CDHW[(slice(None), *place)] for place in places]).to(device)
        outputs = {name: value.float().cpu() for name, value in forward(ask, tasks, plan, images, names).items()}
        for index, place in enumerate(places):
            yield place, {name: value[index] for name, value in outputs.items()}


def _parts(planes: tuple[int, dict[str, torch.Tensor]], inside: Window) -> Iterator[Planes]:
    """Final planes without what the scan was padded with; none where none is left."""
    start, values = planes
    count = next(iter(values.values())).shape[1] if values else 0
    low, high = max(inside[0].start - start, 0), min(inside[0].stop - start, count)
    if low < high:
        yield Planes({name: value[:, low:high, inside[1], inside[2]] for name, value in values.items()})
