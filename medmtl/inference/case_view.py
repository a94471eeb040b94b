"""What case tasks say of a case that they see in a view of their own.

* whole case: one look, at the view's coarser spacing;
* lesion: one look at a window around the largest lesion that was predicted, or around the reference's where that is
  given; where none was predicted, around the voxel that is likeliest to be one;
* tiles: the features of windows over the whole case, joined by the head's attention as in training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from medmtl.data.channels import with_indicators
from medmtl.data.crop import Triple, whole_shape, window, window_around
from medmtl.data.lesion import lesion_centre
from medmtl.device import autocast
from medmtl.inference.ask import Ask, forward, model_device
from medmtl.inference.planes import Drained, Stream
from medmtl.inference.windows import cropped, pad, windows_over
from medmtl.planning import CaseView, Plan
from medmtl.tasks.base import Task
from medmtl.tasks.voxel import LabelTask


@dataclass(frozen=True)
class SecondScan:
    """What a second view may need of a case.

    Attributes:
        image_CDHW: normalised, at working spacing.
        coarse_CDHW: the same as the view itself prepares it; None where it prepares nothing.
        centre: voxel of ``image_CDHW`` in the middle of the lesion, known or predicted; None where no view asks.
        held: whether the case has each channel; needed where some are optional.
    """

    image_CDHW: torch.Tensor
    coarse_CDHW: torch.Tensor | None
    centre: Triple | None = None
    held: Sequence[bool] = ()


def case_view_activations(
    ask: Ask,
    tasks: Mapping[str, Task],
    plan: Plan,
    scan: SecondScan,
    overlap: float,
) -> dict[str, torch.Tensor]:
    """Activations (K,) of the second view's tasks, fp32 on the CPU.

    Args:
        ask: the model, and what it is told of the case.
        tasks: all tasks by name.
        plan: with a second view.
        scan: the case.
        overlap: of tiles.
    """
    view = plan.case_view
    assert view is not None
    if view.kind == "tiles":
        values = _over_tiles(ask, tasks, plan, view, scan, overlap)
    else:
        sample = _lesion(view, scan) if view.kind == "lesion" else _whole(view, plan, scan)
        sample = with_indicators(sample, scan.held, view.preparation)
        values = forward(ask, tasks, plan, sample[None].to(model_device(ask.model)), view.tasks)
    return {name: value[0].float().cpu() for name, value in values.items()}


def _whole(view: CaseView, plan: Plan, scan: SecondScan) -> torch.Tensor:
    image = scan.image_CDHW if scan.coarse_CDHW is None else scan.coarse_CDHW
    shape = whole_shape([image.shape[1:]], view.shape, plan.network.divisor)
    if any(n > m for n, m in zip(image.shape[1:], shape, strict=True)):
        return cropped(image, shape, view.tasks, scan.held)
    return pad(image, shape)[0]


def _lesion(view: CaseView, scan: SecondScan) -> torch.Tensor:
    assert scan.centre is not None
    return torch.from_numpy(window(scan.image_CDHW.numpy(), window_around(scan.centre, view.shape), view.shape))


class PredictedLesion:
    """Where the lesion of a case is, from planes as they are predicted.

    Args:
        tasks: all tasks by name.
        view: says which one's mask shows the lesion.
    """

    def __init__(self, tasks: Mapping[str, Task], view: CaseView) -> None:
        assert view.around is not None
        task = tasks[view.around]
        assert isinstance(task, LabelTask)
        self._task = task
        self._marked: list[npt.NDArray[np.bool_]] = []
        self._likeliest = (-math.inf, (0, 0, 0))

    def watch(self, stream: Stream) -> Stream:
        """The same planes, each looked at as it passes."""
        parts = Drained(stream)
        for planes in parts:
            self.see(planes.values[self._task.name])
            yield planes
        return parts.found

    def see(self, probability_KDHW: torch.Tensor) -> None:
        """The next planes of the task."""
        start = sum(map(len, self._marked))
        self._marked.append(self._task.decide(probability_KDHW).numpy() != 0)
        likeliest = self._task.foreground(probability_KDHW[None])[0, 0]
        x, y, z = (int(n) for n in np.unravel_index(int(likeliest.argmax()), tuple(likeliest.shape)))
        value = float(likeliest[x, y, z])
        if value > self._likeliest[0]:
            self._likeliest = value, (start + x, y, z)

    def centre(self) -> Triple:
        """The middle of the largest predicted lesion, or the likeliest voxel where none is predicted."""
        return lesion_centre(np.concatenate(self._marked)) or self._likeliest[1]


def _over_tiles(
    ask: Ask,
    tasks: Mapping[str, Task],
    plan: Plan,
    view: CaseView,
    scan: SecondScan,
    overlap: float,
) -> dict[str, torch.Tensor]:
    model, device = ask.model, model_device(ask.model)
    padded = with_indicators(pad(scan.image_CDHW, view.shape)[0], scan.held, view.preparation)
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in view.tasks}
    with autocast(device, plan.precision):
        for place in windows_over(padded.shape[1:], view.shape, overlap):
            for name, pooled in model.pool(padded[(slice(None), *place)][None].to(device), view.tasks).items():
                parts[name].append(pooled)
        covariates = None if ask.covariates_N is None else ask.covariates_N[None].to(device)
        outputs = model.answer({name: torch.cat(found) for name, found in parts.items()}, covariates)
    return {name: tasks[name].activate(output) for name, output in outputs.items()}
