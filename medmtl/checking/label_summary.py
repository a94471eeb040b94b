"""What was read as labels, so that a slip in their coding is seen before anything trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medmtl.data.case import Case
from medmtl.data.fingerprint import Fingerprint
from medmtl.tasks.base import CaseTask, Task
from medmtl.tasks.box_task import BoxTask
from medmtl.tasks.voxel import LabelTask, MapTask

LEAST = 5  # labels; of fewer the lowest and the highest are nearly all of them, and only their number is told


def labels_in_words(
    tasks: Mapping[str, Task],
    truths: Mapping[str, Mapping[str, Any]],
    cases: Iterable[Case] = (),
    fingerprints: Mapping[str, Fingerprint] | None = None,
) -> dict[str, str]:
    """Task -> how many labels it has and what they hold, such as ``25 masks, core in 25, rim in 15``.

    Args:
        tasks: all of the configuration, unfitted.
        truths: task -> case id -> target.
        cases: of the cohort, which say what was annotated.
        fingerprints: case id -> what was read of its files. Without one it is unknown what a file holds.
    """
    held_by, known = {case.case_id: case for case in cases}, fingerprints or {}
    found = {}
    for name, task in tasks.items():
        labels = truths[name]
        seen = {case_id: known[case_id] for case_id in labels if case_id in known}
        held = _held(task, labels, held_by, seen) if len(labels) >= LEAST else ""
        found[name] = _number(task, len(labels)) + (f", {held}" if held else "")
    return found


def _number(task: Task, count: int) -> str:
    if isinstance(task, LabelTask):
        return _counted(count, "mask", "masks")
    return _counted(count, "map", "maps") if isinstance(task, MapTask) else f"{count} labelled"


def _held(task: Task, labels: Mapping[str, Any], cases: Mapping[str, Case], seen: Mapping[str, Fingerprint]) -> str:
    """What the labels hold together; of files those that were seen."""
    if isinstance(task, CaseTask):
        return task.in_words(list(labels.values()))
    if isinstance(task, LabelTask) and seen:
        return _drawn(task, len(labels), cases, seen)
    if isinstance(task, BoxTask) and seen:
        numbers = [len(fingerprint.box_sizes_mm[task.name]) for fingerprint in seen.values()]
        return f"{_counted(sum(numbers), 'box', 'boxes')} in {_counted(sum(map(bool, numbers)), 'case', 'cases')}"
    return ""


def _drawn(task: LabelTask, masks: int, cases: Mapping[str, Case], seen: Mapping[str, Fingerprint]) -> str:
    """In how many masks each label is drawn, and of how many where not all were annotated for it and read."""
    words = []
    for label, value in task.named_values.items():
        asked = [case_id for case_id in seen if label not in task.unannotated(cases[case_id])]
        drawn = sum(value in seen[case_id].label_counts[task.name] for case_id in asked)
        words.append(f"{label} in {drawn}" + (f" of {len(asked)}" if len(asked) < masks else ""))
    return ", ".join(words)


def _counted(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
