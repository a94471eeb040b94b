"""What the page says of itself: whose curves it shows, what a number is not, and how it prints."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmtl.data.formats.nifti import read_label, write_mask
from medmtl.data.volume import Volume
from medmtl.evaluation import report
from medmtl.evaluation.pictures import Picture
from medmtl.evaluation.report import write_report
from medmtl.evaluation.score import Scores
from medmtl.run_folder import RunFolder
from medmtl.tasks.segmentation import Segmentation, SegmentationOptions
from tests.evaluation.scored_run import GRID


def test_print_cuts_no_table_and_leaves_no_heading_alone(page: str) -> None:
    _, _, rules = page.partition("@media print {")
    assert ".wide { overflow: visible; }" in rules and "h2, h3 { break-after: avoid; }" in rules
    assert "nowrap" not in rules.partition("</style>")[0]


def test_curves_and_plan_of_several_folds_say_whose_they_are(
    page: str, tmp_path: Path, scores: Scores, run: RunFolder
) -> None:
    again = write_report(replace(scores, folder=tmp_path), [run, run], share=True).read_text(encoding="utf-8")
    assert "Curves and, below, the plan are those of fold 0." in again
    assert "are those of fold" not in page


def test_a_threshold_of_one_half_is_no_drop_from_the_fitted_one(
    page: str, tmp_path: Path, scores: Scores, run: RunFolder
) -> None:
    said = "at probability 0.5, not at the operating point of the run&#39;s own folds"
    other = replace(scores, split="all", folder=tmp_path)
    assert write_report(other, [run, run], share=True).read_text(encoding="utf-8").count(said) == 1
    single = replace(other, folds=(0,))
    assert said not in write_report(single, [run], share=True).read_text(encoding="utf-8")
    assert said not in page


def test_an_overlay_says_that_its_reference_is_empty(tmp_path: Path, scores: Scores, run: RunFolder) -> None:
    first, second, *_ = scores.cases["lesion"]
    write_mask(tmp_path / "nothing.nii.gz", np.zeros(GRID.shape, np.uint8), GRID)
    empty = replace(second, truth=tmp_path / "nothing.nii.gz", scores={**second.scores, "dice": 0.0})
    shutil.copytree(scores.folder / "masks", tmp_path / "masks")
    found = replace(scores, cases={**scores.cases, "lesion": [first, empty]}, folder=tmp_path)
    page = write_report(found, [run]).read_text(encoding="utf-8")
    assert "Worst: dice 0.000; the reference is empty; axial slice" in page
    assert page.count("the reference is empty") == 2  # the caption and the picture's own text


def test_losses_are_those_of_the_task_and_of_training_or_validation(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}

    def keep(task: str, training: list[tuple[int, float]], validation: list[tuple[int, float]]) -> None:
        drawn[task] = (training[:2], len(training), validation)

    monkeypatch.setattr(report, "loss_curve", keep)
    assert report._loss_curves(run, ["lesion", "size", "grade"]) == []
    assert drawn == {
        "lesion": ([(1, 1.0), (2, 0.5)], 400, [(400, 0.2)]),
        "size": ([(1, 1.5), (2, 1.0)], 400, []),
        "grade": ([], 0, []),
    }


def test_a_reference_of_another_cohort_is_shown_in_the_models_values(
    tmp_path: Path, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scores.cases["lesion"][0]
    expected = read_label(first.truth).array
    write_mask(tmp_path / "other.nii.gz", np.array([0, 7, 1], np.uint8)[expected], GRID)
    labels = {"core": 1, "rim": 7}
    other = Segmentation("lesion", SegmentationOptions(kind="segmentation", column="tumour", labels=labels))
    shown = []

    def keep(image: Volume, reference: Volume, predicted: Volume, names: dict[int, str]) -> Picture:
        shown.append((reference.array, predicted.array))
        return Picture("", "")

    monkeypatch.setattr(report, "overlay", keep)
    case = replace(first, truth=tmp_path / "other.nii.gz")
    report._overlays(replace(scores, cases={"lesion": [case]}, readers={"lesion": other}), "lesion")
    ((reference, predicted),) = shown
    np.testing.assert_array_equal(reference, expected)
    np.testing.assert_array_equal(predicted, read_label(scores.folder / f"masks/lesion/{case.case_id}.nii.gz").array)
