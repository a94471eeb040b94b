"""How an evaluation looks in a Python session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medmtl.evaluation.score import Scores
from medmtl.tasks.base import Result, ScoredCase


def test_scores_are_shown_by_their_primary_metrics_and_without_ids() -> None:
    body: dict[str, dict[str, Any]] = {
        "lesion": {"primary": "dice", "metrics": {"dice": {"value": 0.876543}, "hd95_mm": {"value": 3.0}}},
        "grade": {"primary": "auc", "metrics": {"auc": {"value": None, "why": "one class"}}},
    }
    cases = {"grade": [ScoredCase("zq9case", "zq0person", None, 0, "low", Result())]}
    images = {"zq9case": {"image": Path("zq9case.nii.gz")}}
    scores = Scores("val", (0,), {}, cases, {"cases": 40, "tasks": body}, Path("run"), images)
    assert repr(scores) == "Scores(val, 40 cases, lesion dice 0.8765, grade auc not computable)"
