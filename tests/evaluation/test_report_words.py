"""What the page says of itself: whose curves it shows, what a number is not, and how it prints."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmtl.data.formats.nifti import write_mask
from medmtl.evaluation.report import write_report
from medmtl.evaluation.score import Scores
from medmtl.run_folder import RunFolder
from tests.evaluation.test_report import GRID, make_run, make_scores


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    return make_scores(tmp_path_factory.mktemp("scores"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(scores: Scores, run: RunFolder) -> str:
    return write_report(scores, [run]).read_text(encoding="utf-8")


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
