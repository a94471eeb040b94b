"""Rows of the report: what is read first, and verdicts on case heads, of which the newest counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from medmtl.evaluation.report import _alerts
from medmtl.evaluation.score import Scores, metrics_json
from medmtl.evaluation.tables import collapse_table, metric_tables, number, summary_table
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import ScoredCase, Task
from tests.evaluation.test_site import TASK, case, confounded, learned_of


class Run:
    """A run that is nothing but a fold and a log of verdicts on one head."""

    def __init__(self, verdicts: dict[int, str]) -> None:
        figures = {"task": "grade", "spread": 0.01, "probe_r2": 0.5}
        self.log = [
            {"step": step, "collapse": {**figures, "verdict": word, "sentence": f"{word} at {step}"}}
            for step, word in verdicts.items()
        ]

    def load_manifest(self) -> dict[str, Any]:
        return {"fold": 2}

    def read_log(self) -> list[dict[str, Any]]:
        return [{"step": 1, "losses": {}}, *self.log]


@pytest.mark.parametrize(
    ("verdicts", "alerts"),
    [
        ({20: "collapsed", 60: "trained"}, []),
        ({20: "trained", 60: "collapsed"}, ["grade, fold 2: collapsed at 60"]),
        ({20: "collapsed"}, ["grade, fold 2: collapsed at 20"]),
        ({20: "undecided"}, []),
        ({20: "undecided", 60: "no signal found"}, ["grade, fold 2: no signal found at 60"]),
    ],
)
def test_every_verdict_is_a_row_and_the_newest_is_what_the_page_warns_of(
    verdicts: dict[int, str], alerts: list[str]
) -> None:
    table = collapse_table([cast("RunFolder", Run(verdicts))])
    assert [row[:4] for row in table.rows] == [("2", "grade", word, str(step)) for step, word in verdicts.items()]
    assert len(table.columns) == len(table.rows[0])
    assert set(table.numeric) == {"after step", "spread of predictions", "R² of a linear probe"}
    assert _alerts(table) == alerts


def scores_of(task: Task, cases: Sequence[ScoredCase]) -> Scores:
    learned = {task.name: learned_of(list(cases))}
    metrics = metrics_json("val", [0], len(cases), {task.name: task}, {task.name: cases}, learned)
    return Scores("val", (0,), {task.name: task}, {task.name: cases}, metrics, Path(), {})


def test_a_task_confounded_with_the_site_is_headlined_by_its_within_site_score() -> None:
    # 18 of 20 at a and 2 of 20 at b are high; the model tells the sites apart and says little within them
    cases = [
        case(site, "high" if rank < highs else "low", probability + 0.01 * (7 * rank % 20), number=rank)
        for site, highs, probability in (("a", 18, 0.7), ("b", 2, 0.2))
        for rank in range(20)
    ]
    scores = scores_of(TASK, cases)
    metrics = scores.metrics["tasks"]["grade"]["metrics"]
    table = summary_table(scores)
    assert table.columns == ("task", "kind", "labelled", "metric", "value", "95 % interval", "notes")
    ((*_, metric, value, interval, notes),) = table.rows
    within, pooled, alone = (number(metrics[f"auc{end}"]["value"]) for end in ("_within_site", "", "_site_alone"))
    low, high = metrics["auc_within_site"]["ci95"]
    assert (metric, value, interval) == ("auc_within_site", within, f"{number(low)} to {number(high)}")
    assert notes == f"confounded with the site; all pairs {pooled}; site alone {alone}"
    assert within < pooled


def test_other_tasks_are_headlined_by_their_primary_metric() -> None:
    cases = [entry for entry in confounded() if entry.site == "a"]
    ((*_, metric, _, _, notes),) = summary_table(scores_of(TASK, cases)).rows
    assert (metric, "site" in notes) == ("auc", False)


@pytest.mark.parametrize(
    ("kind", "metric", "told"),
    [
        ("regression", "skill", "skill: 1 − mean absolute error / that of always answering the training median"),
        ("survival", "skill", "skill: 1 − integrated Brier score / that of the training fold's Kaplan-Meier curve"),
        ("classification", "balanced_accuracy", "calling the likeliest class"),
        ("ordinal", "balanced_accuracy", "calling the median grade"),
        ("classification", "brier", "of more than two classes summed over the classes"),
        ("survival", "c_index_within_site", "..._within_site: over pairs of cases of one site"),
        ("survival", "c_index_site_alone", "..._site_alone: of a model that sees nothing but the site"),
    ],
)
def test_a_metric_is_explained_as_its_kind_computes_it(kind: str, metric: str, told: str) -> None:
    (table,) = metric_tables({metric: {"value": 0.5, "n": 40}}, kind)
    assert told in table.note
    assert ("median" in table.note) == ("median" in told)
