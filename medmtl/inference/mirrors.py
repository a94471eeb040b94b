"""Test-time augmentation: what a model says of a scan and of its mirror images, as one answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch

from medmtl.inference.fusion import fused
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask

Mirrors = tuple[tuple[int, ...], ...]
"""Mirror images, each by the spatial axes (0 to 2) that are turned round; the scan itself is not among them."""


def mirrors_of(axes: Sequence[int]) -> Mirrors:
    """All combinations of some axes: 1, 3 or 7."""
    sizes = range(1, len(axes) + 1)
    return tuple(chosen for size in sizes for chosen in itertools.combinations(sorted(axes), size))


def over_mirrors(
    look: Callable[[torch.Tensor, tuple[str, ...]], dict[str, torch.Tensor]],
    tasks: Mapping[str, Task],
    image_BCDHW: torch.Tensor,
    names: tuple[str, ...],
    mirrors: Mirrors,
    most: int = 1,
) -> dict[str, torch.Tensor]:
    """Activations of the named tasks.

    A voxel task's are turned back and averaged, a case task's are averaged, and boxes are turned back and fused as
    those of several models. A task whose label a mirror image changes is asked about the scan alone.

    Args:
        look: images and names of tasks -> activations, first axis B; (B, n, 7) of a box task.
        tasks: by name.
        image_BCDHW: the scan, or a window of it; of a box task's B is 1.
        names: of tasks.
        mirrors: images to look at besides.
        most: images of one pass, mirror images of one batch; those of the scan itself pass alone.
    """
    found = look(image_BCDHW, names)
    if not mirrors:
        return found
    willing = tuple(name for name in names if "flip" not in tasks[name].sensitive_to)
    parts = {name: [found[name]] for name in willing}
    count = max(1, most // len(image_BCDHW))
    for first in range(0, len(mirrors) if willing else 0, count):
        chosen = mirrors[first : first + count]
        turned = torch.cat([image_BCDHW.flip([2 + axis for axis in mirror]) for mirror in chosen])
        for name, values in look(turned, willing).items():
            for mirror, value in zip(chosen, torch.split(values, len(image_BCDHW)), strict=True):
                parts[name].append(_back(tasks[name], value, mirror, image_BCDHW.shape[2:]))
    return found | {name: _joined(tasks[name], values) for name, values in parts.items()}


def _back(task: Task, value: torch.Tensor, mirror: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    if isinstance(task, BoxTask):
        turned = value.clone()
        for axis in mirror:
            turned[..., axis], turned[..., axis + 3] = size[axis] - value[..., axis + 3], size[axis] - value[..., axis]
        return turned
    return value.flip([2 + axis for axis in mirror]) if task.voxel else value


def _joined(task: Task, values: Sequence[torch.Tensor]) -> torch.Tensor:
    if not isinstance(task, BoxTask):
        return torch.stack(list(values)).mean(0)
    rows = [value[0][~(value[0][:, 6] <= 0)].double().cpu().numpy() for value in values]
    return torch.from_numpy(fused(rows)).to(values[0])[None]
