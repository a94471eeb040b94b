"""Rows of the report: what is read first, what is not shared, and the newest verdict on a case head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from medmtl.data.split import Balance, Fold, Splits
from medmtl.evaluation.report import _alerts
from medmtl.evaluation.score import Scores, metrics_json
from medmtl.evaluation.site import within_estimates
from medmtl.evaluation.tables import (
    cohort_table,
    collapse_table,
    metric_tables,
    number,
    site_table,
    split_table,
    summary_table,
)
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import Result, ScoredCase, Task
from medmtl.tasks.regression import Regression, RegressionOptions
from medmtl.tasks.regression.task import RegressionResult
from medmtl.tasks.segmentation import Segmentation, SegmentationOptions
from tests.evaluation.test_site import TASK, case, confounded, learned_of

MASK = Segmentation("tumour", SegmentationOptions(kind="segmentation", column="mask", labels={"core": 1}))


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
    within = {task.name: within_estimates(task, cases)}
    return Scores("val", (0,), {task.name: task}, {task.name: cases}, metrics, Path(), {}, within=within)


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
    assert table.columns == ("task", "kind", "labelled", "metric", "n", "value", "95 % interval", "notes")
    ((*_, labelled, metric, n, value, interval, notes),) = table.rows
    within, pooled, alone = (number(metrics[f"auc{end}"]["value"]) for end in ("_within_site", "", "_site_alone"))
    low, high = metrics["auc_within_site"]["ci95"]
    assert (metric, value, interval) == ("auc_within_site", within, f"{number(low)} to {number(high)}")
    assert (labelled, n) == ("40", str(metrics["auc_within_site"]["n"]))
    assert notes == f"confounded with the site; all pairs {pooled}; site alone {alone}"
    assert within < pooled


def test_other_tasks_are_headlined_by_their_primary_metric() -> None:
    cases = [entry for entry in confounded() if entry.site == "a"]
    ((*_, metric, _, _, _, notes),) = summary_table(scores_of(TASK, cases)).rows
    assert (metric, "site" in notes) == ("auc", False)


def masked(index: int, predicted: int, truth: int) -> ScoredCase:
    """A case of so many voxels in a row."""
    masks = [np.arange(6).reshape(6, 1, 1) < voxels for voxels in (predicted, truth)]
    scores = MASK.mask_scores(masks[0].astype(np.uint8), masks[1].astype(np.uint8), (3.0, 4.0, 0.0))
    return ScoredCase(f"c{index}", f"p{index}", None, 0, Path("x"), Result(), scores)


def test_the_summary_says_how_much_of_a_dice_is_of_empty_references() -> None:
    found = [masked(0, 2, 2), masked(1, 1, 3), masked(2, 0, 2), masked(3, 1, 0), masked(4, 2, 0), masked(5, 0, 0)]
    scores = scores_of(MASK, found)
    ((*_, labelled, metric, n, value, _, notes),) = summary_table(scores).rows
    assert (labelled, metric, n, value) == ("6", "dice", "5", "0.300")
    assert notes.endswith(
        "3 of 6 reference masks are empty, 2 of them called falsely; dice 0.500 over those that are not, in 3 cases"
    )
    metrics = scores.metrics["tasks"]["tumour"]["metrics"]
    whole, by_label = metric_tables(metrics, "segmentation")
    rows = {row[0]: row for row in (*whole.rows, *by_label.rows)}
    for name in ("dice", "hd95_mm/core"):
        assert rows[name][-1].endswith("missed 1 of 3; false 2 of 3; true negative 1 of 3")
    for told in (
        "diagonal of the scan, also for a single false voxel",
        "..._present: over the references",
        "nsd_1mm: ",
    ):
        assert told in whole.note
    (full, _) = metric_tables(scores_of(MASK, found[:3]).metrics["tasks"]["tumour"]["metrics"], "segmentation")
    assert full.rows[0][-1].endswith("missed 1 of 3; false 0; true negative 0")


EXPLAINED = [
    *(("segmentation", name) for name in ("dice", "hd95_mm", "nsd_1mm")),
    *(("classification", name) for name in ("average_precision", "f1_macro")),
    *(("regression", name) for name in ("r2", "spearman")),
    *(("survival", name) for name in ("c_index", "c_index_uno", "brier_integrated")),
]


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
        ("segmentation", "nsd_2.5mm", "nsd_2.5mm: share of both surfaces"),
        ("segmentation", "volume_error_ml", "above 0 where predictions are too large"),
        ("survival", "auc_1095", "auc_1095: of cases with the event by this time"),
        ("classification", "auc", "auc: share of pairs of a positive and a negative case"),
        ("survival", "c_index_uno", "each pair counts by the square of its earlier case's censoring_weight."),
        *((kind, name, f"{name}: ") for kind, name in EXPLAINED),
    ],
)
def test_a_metric_is_explained_as_its_kind_computes_it(kind: str, metric: str, told: str) -> None:
    (table,) = metric_tables({metric: {"value": 0.5, "n": 40}}, kind)
    assert told in table.note
    assert ("median" in table.note) == ("median" in told)


def test_parts_are_explained_once_and_a_finding_as_a_class() -> None:
    entry = {"value": 0.5, "n": 40}
    whole, parts = metric_tables({name: entry for name in ("dice", "dice/lv", "dice/rv", "nsd_1mm/lv")}, "segmentation")
    assert whole.note.startswith("dice: ") and parts.note.startswith("nsd_1mm: ")
    assert "dice: " not in parts.note
    whole, parts = metric_tables({name: entry for name in ("auc", "auc/a", "auc/b", "brier/a")}, "multilabel")
    assert whole.note.startswith("auc: mean of the findings") and parts.note.count("auc: share of pairs") == 1


def test_counts_and_methods_are_told_in_words() -> None:
    entry = {"value": 0.5, "n": 40, "ci95": [0.4, 0.6], "ci": "u-statistic-logit", "n_classes": 2, "n_events": 13}
    (table,) = metric_tables({"c_index": {**entry, "n_clipped": 0, "n_lesions": 7}}, "survival")
    assert table.rows[0][3] == "U-statistic, logit scale"
    assert table.rows[0][-1] == "over 2 classes; 13 events; lesions 7"


def test_the_summary_tells_the_skill_and_what_it_compares_with() -> None:
    task = Regression("size", RegressionOptions(kind="regression", column="size"), {"median_value": 10.0})
    cases = [ScoredCase(f"c{n}", f"p{n}", None, 0, float(n), RegressionResult(value=n + 1.0)) for n in range(12)]
    table = summary_table(scores_of(task, cases))
    assert table.rows[0][-1].endswith(f"; skill {number(1 - 12 / sum(abs(10 - n) for n in range(12)))}")
    assert table.note.startswith("Skill compares with one answer for everybody")


def of_patient(patient: str, entry: ScoredCase) -> ScoredCase:
    return replace(entry, patient=patient)


def graded(site: str, lows: int, highs: int) -> list[ScoredCase]:
    """Cases of as many patients."""
    grades = ["low"] * lows + ["high"] * highs
    return [case(site, grade, 0.03 * (7 * n % 31), number=n) for n, grade in enumerate(grades)]


def test_a_shared_page_hides_a_site_of_one_person_with_five_scans() -> None:
    eve = [of_patient("eve", case("small", "high", 0.9, number=n)) for n in range(5)]
    scores = scores_of(TASK, [*eve, *graded("middle", 6, 7), *graded("large", 12, 12)])
    table = site_table(scores, "grade", share=True)
    assert table is not None
    assert table.columns == ("site", "cases", "high", "low", "auc", "95 % interval", "notes")
    rows = {row[0]: row for row in table.rows}
    assert rows["large"][1:4] == ("24", "12", "12")
    assert rows["small"] == ("small", *("–",) * 5, "fewer than 5 patients")
    # its values would follow from the totals and the other sites'
    assert rows["middle"] == ("middle", *("–",) * 5, "left out, as smaller groups would follow from it")
    open_page = site_table(scores, "grade", share=False)
    assert open_page is not None and {row[0]: row[1:4] for row in open_page.rows}["small"] == ("5", "5", "0")


def test_a_site_has_the_mean_and_the_sample_deviation_of_its_values() -> None:
    task = Regression("size", RegressionOptions(kind="regression", column="size"), {"median_value": 2.0})
    values = [("a", 1.0), ("a", 2.0), ("a", 3.0), ("b", 5.0)]
    cases = [
        ScoredCase(f"c{n}", f"p{n}", site, 0, value, RegressionResult(value=value + 0.5))
        for n, (site, value) in enumerate(values)
    ]
    table = site_table(scores_of(task, cases), "size", share=False)
    assert table is not None
    assert table.columns[:4] == ("site", "cases", "mean target (SD)", "mae")
    assert [row[:4] for row in table.rows] == [("a", "3", "2.00 (1.00)", "0.500"), ("b", "1", "5.00 (–)", "0.500")]


@pytest.mark.parametrize(("lows", "highs", "counted"), [(5, 7, True), (4, 8, False), (12, 0, False)])
def test_a_shared_page_counts_no_class_that_few_patients_of_a_site_have(lows: int, highs: int, counted: bool) -> None:
    scores = scores_of(TASK, [*graded("a", lows, highs), *graded("b", 9, 9)])
    table = site_table(scores, "grade", share=True)
    assert table is not None
    assert ("high" in table.columns) is counted
    assert [row[:2] for row in table.rows] == [("a", "12"), ("b", "18")]
    assert table.note == (
        "" if counted else "Classes are not counted here, as that would tell of fewer than 5 patients."
    )


def test_a_shared_page_hides_a_cohort_by_its_patients() -> None:
    scores = scores_of(TASK, graded("a", 12, 12))
    metrics = scores.metrics["tasks"]["grade"]["metrics"]
    parts = {"north": (24, 24), "south": (6, 1), "west": (8, 8), "none": (0, 0)}
    cohorts = {
        name: {"labelled": cases, "patients": patients, "metrics": metrics if cases else {}}
        for name, (cases, patients) in parts.items()
    }
    body = {**scores.metrics["tasks"]["grade"], "cohorts": cohorts}
    found = replace(scores, metrics={**scores.metrics, "tasks": {"grade": body}})
    shared, whole = cohort_table(found, "grade", share=True), cohort_table(found, "grade", share=False)
    assert shared is not None and whole is not None
    assert [row[1] for row in shared.rows] == ["24", "–", "–", "0"]
    assert [row[-1] for row in shared.rows[1:3]] == [
        "fewer than 5 patients",
        "left out, as smaller groups would follow from it",
    ]
    assert [row[1] for row in whole.rows] == ["24", "6", "8", "0"]


def split_of(*parts: tuple[int, int, dict[str, int]]) -> Splits:
    """A fold whose parts hold so many patients, cases and labels."""
    balance = tuple(Balance(0, name, *held) for name, held in zip(("train", "val"), parts, strict=True))
    return Splits((Fold(("a",), ("b",)),), (), balance)


def test_a_shared_page_tells_nothing_of_few_patients_in_the_split() -> None:
    train = {"site=A": 30, "site=B": 10, "grade:high": 20, "grade:low": 20}
    val = {"site=A": 17, "site=B": 3, "grade:high": 10, "grade:low": 10}
    splits = split_of((40, 40, train), (20, 20, val))
    whole, shared = split_table(splits, share=False), split_table(splits, share=True)
    assert [row[0] for row in whole.rows] == ["patients", "cases", *train] and whole.note == ""
    assert shared.columns == ("number of", "fold 0: train / val")
    assert shared.rows == (
        ("patients", "40 / 20"),
        ("cases", "40 / 20"),
        ("grade:high", "20 / 10"),
        ("grade:low", "20 / 10"),
    )
    assert shared.note == "Left out, because a part may hold fewer than 5 patients of one kind: site."
    few = split_of((40, 40, train), (4, 20, val))
    assert split_table(few, share=True).rows == ()
    assert split_table(few, share=False).rows[0] == ("patients", "40 / 4")


def test_the_balance_has_a_column_per_fold_and_one_for_the_test_part() -> None:
    (train, val) = split_of((40, 40, {"a": 7}), (20, 21, {"a": 3})).balance
    rows = (train, val, replace(train, fold=1), replace(val, fold=1), Balance(None, "test", 9, 10, {"a": 2}))
    table = split_table(Splits((Fold(("x",), ("y",)),), (), rows), share=False)
    assert table.columns == ("number of", "fold 0: train / val", "fold 1: train / val", "test")
    assert table.numeric == table.columns[1:]
    assert table.rows[1:] == (("cases", "40 / 21", "40 / 21", "10"), ("a", "7 / 3", "7 / 3", "2"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (0.8712, "0.871"),
        (-1.234, "−1.23"),
        (12.34, "12.3"),
        (4321.6, "4,322"),
        (2.5e-4, "0.00025"),
        (2e-5, "2e−05"),
    ],
)
def test_numbers_have_about_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text
