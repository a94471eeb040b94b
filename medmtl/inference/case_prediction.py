"""What the model says of one case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from medmtl.data.volume import Volume
from medmtl.errors import UnknownTaskError
from medmtl.spelling import did_you_mean
from medmtl.tasks.base import CaseTask, Result, Task
from medmtl.tasks.box_task import BoxTask, FoundBox
from medmtl.tasks.voxel import VoxelTask


@dataclass(frozen=True, repr=False)
class CasePrediction(Mapping[str, Result]):
    """What the model says of one case, by task.

    Attributes:
        case_id: the case.
        results: task -> result.
        activations: case task -> averaged activation, from which its result follows; of a box task its boxes, each as
            six corners in voxels, six in mm, and the score.
        outside_training: what lies outside the range seen in training, such as ``spacing_z`` or ``covariate_age``;
            empty if nothing does.
        at_reference: case task -> the activation with its window around the reference's lesion instead of the predicted
            one; empty unless asked for, and where there is no such window.
        notes: code and text of what was noted while its images were read, such as bytes behind the voxels.
        trained_on: whether one of its files is an image of a case that the model was trained on, byte for byte.
    """

    case_id: str
    results: Mapping[str, Result]
    activations: Mapping[str, tuple[Any, ...]]
    outside_training: tuple[str, ...]
    at_reference: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    notes: tuple[tuple[str, str], ...] = ()
    trained_on: bool = False

    def __getitem__(self, task: str) -> Result:
        if task not in self.results:
            hint = did_you_mean(task, self.results, "; ")
            raise UnknownTaskError(f"no task is called {task!r}, only {', '.join(self.results)}{hint}")
        return self.results[task]

    def __repr__(self) -> str:
        """The first cell of each task; no id."""
        cells = (next(iter(result.cells(name).items()), (name, None)) for name, result in self.results.items())
        told = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in cells)
        return f"{type(self).__name__}({', '.join(told)})"

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


def assemble(
    tasks: Mapping[str, Task], masks: Mapping[str, Volume], activations: Mapping[str, Sequence[Any]]
) -> dict[str, Result]:
    """Results of a case from its masks and the other tasks' activations, in the configured order of the tasks."""
    results: dict[str, Result] = {}
    for name, task in tasks.items():
        if isinstance(task, VoxelTask):
            results[name] = task.result(masks[name])
        elif isinstance(task, BoxTask):
            results[name] = task.result([FoundBox.of(row) for row in activations[name]])
        elif isinstance(task, CaseTask):
            results[name] = task.result(torch.tensor(activations[name]), masks)
    return results
