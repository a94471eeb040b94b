"""The report's panel on how the tasks' gradients lie to each other, where a run measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medmtl.evaluation.pictures import ON_WHITE, Picture, step_curves

MOST_LINES = len(ON_WHITE)  # of a picture, so that each has a colour of its own


def conflict_pictures(records: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """Cosines of pairs of tasks and norms of tasks over the steps.

    Args:
        records: of the log; those with a ``conflict`` count. What could not be measured, and norms of zero, are left
            out.
    """
    cosines = _curves(records, "cosines")
    norms = {
        name: kept for name, points in _curves(records, "norms").items() if (kept := [p for p in points if p[1] > 0])
    }
    pictures = []
    for curves, caption, label, signed in (
        (cosines, "Cosine between the gradients of two tasks on the shared weights", "cosine", True),
        (norms, "Norm of each task's gradient on the shared weights", "norm", False),
    ):
        names = sorted(curves)
        for first in range(0, len(names), MOST_LINES):
            drawn = {name: curves[name] for name in names[first : first + MOST_LINES]}
            pictures.append(step_curves(caption, label, drawn, signed=signed))
    return pictures


def _curves(records: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for name, value in record.get("conflict", {}).get(key, {}).items():
            if value is not None:
                found.setdefault(name.replace("|", " and "), []).append((record["step"], value))
    return found
