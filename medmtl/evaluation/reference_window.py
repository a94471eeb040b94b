"""What finding the lesion costs a task that looks at a window around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from medmtl.data.volume import Volume
from medmtl.tasks.base import CaseTask, Result, ScoredCase, Task


@dataclass(frozen=True)
class Moved:
    """A labelled case as it was predicted, and again with its window around the reference's lesion.

    Attributes:
        predicted: with the window around the predicted lesion.
        reference: with the window around the reference's.
    """

    predicted: ScoredCase
    reference: ScoredCase


def moved_cases(
    fitted: Mapping[str, Task],
    found: Mapping[str, ScoredCase],
    results: Mapping[str, Result],
    at_reference: Mapping[str, Sequence[float]],
) -> dict[str, Moved]:
    """A case's answers around the reference's lesion beside its own; only of tasks that it is labelled for.

    Args:
        fitted: the tasks of the model.
        found: task -> the case as it was predicted.
        results: all answers of the model for the case; an answer may need another task's mask.
        at_reference: task -> activation around the reference's lesion.
    """
    masks: dict[str, Volume] = {name: result.mask for name, result in results.items() if result.mask is not None}
    moved = {}
    for name, activation in at_reference.items():
        task, case = fitted[name], found.get(name)
        if case is None or case.truth is None:
            continue
        assert isinstance(task, CaseTask)
        result = task.result(torch.tensor(activation), masks)
        moved[name] = Moved(case, replace(case, result=result, scores=task.result_scores(result, case.truth)))
    return moved


def moved_json(task: CaseTask, moved: Sequence[Moved]) -> dict[str, Any]:
    """The primary metric on the cases that have a reference's lesion: ``METRIC_reference_window``, and
    ``METRIC_predicted_window`` on the same cases. Nothing for a task that sees no such window.
    """
    if not moved:
        return {}
    found = {}
    for suffix, cases in (
        ("reference_window", [pair.reference for pair in moved]),
        ("predicted_window", [pair.predicted for pair in moved]),
    ):
        name, estimate = next(iter(task.metrics(cases).items()))
        found[f"{name}_{suffix}"] = estimate.to_json()
    return found
