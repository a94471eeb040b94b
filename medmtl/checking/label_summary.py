"""What was read from the label columns, so that a slip in their coding is seen before anything trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmtl.tasks.base import CaseTask, Task

LEAST = 5  # labels; of fewer the lowest and the highest are nearly all of them, and only their number is told


def labels_in_words(tasks: Mapping[str, Task], truths: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Case task -> how many labels it has and what they hold, such as ``11 labelled, benign 5, malignant 6``.

    Args:
        tasks: all of the configuration, unfitted.
        truths: task -> case id -> target.
    """
    found = {}
    for name, task in tasks.items():
        if isinstance(task, CaseTask):
            labels = list(truths[name].values())
            held = task.in_words(labels) if len(labels) >= LEAST else ""
            found[name] = f"{len(labels)} labelled" + (f", {held}" if held else "")
    return found
