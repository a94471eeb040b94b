"""A cohort of which half was annotated for one of two labels: trained, scored and predicted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import medmtl
from medmtl import config as configuration
from medmtl.run_folder import RunFolder
from medmtl.tasks.segmentation.annotation import without_note
from medmtl.training.session import open_session
from medmtl.training.start import make_ready, start_run
from tests.checking.cohort_folder import Folder, mask
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("undrawn")


def half_annotated(path: Path) -> Folder:
    """Eight cases; of the last four the mask holds the rim only, and says so."""
    path.mkdir()
    folder = Folder(path)
    folder.config = folder.config.replace("core: 2}}", "core: 2}, annotated: drawn}")
    for index, row in enumerate(folder.rows):
        row["drawn"] = "" if index < 4 else "rim"
        if index >= 4:
            folder.save(f"organ_{index}", mask(1, place=index))
    return folder


def assert_noted(run: Path) -> None:
    """What training loads says of each sample whether the core may hide in its background."""
    session = open_session(RunFolder.open(run))
    seen: dict[str, bool] = {}
    for dataset in (session.training, session.validation):
        assert dataset is not None
        for step in range(len(dataset)):
            (view,) = dataset[step].views.values()
            _, hidden_BL = without_note(view.targets["organ"], 3, 2)
            assert not hidden_BL[:, 0].any()
            seen |= dict(zip(view.case_ids, hidden_BL[:, 1].tolist(), strict=True))
    assert seen == {f"case{index}": index >= 4 for index in range(8)}


def test_it_trains_scores_what_was_annotated_and_predicts_every_label(tmp_path: Path) -> None:
    folder = half_annotated(tmp_path / "cohort")
    folder.write()
    config = folder.path / "config.yaml"
    overrides = {**TINY, "training.steps": 4}
    run = medmtl.train(config, tmp_path / "run", device="cpu", overrides={**overrides, "plan.precision": "bf16"})
    assert_noted(run)
    scores = medmtl.evaluate(run, device="cpu")["val"]
    metrics = json.loads((run / "evaluation" / "val" / "metrics.json").read_text())["tasks"]["organ"]["metrics"]
    assert (metrics["dice/rim"]["n"], metrics["dice/core"]["n"], metrics["dice"]["n"]) == (4, 2, 4)
    assert metrics["dice/core"]["n_not_annotated"] == 2
    with (run / "evaluation" / "val" / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    partly = {f"case{index}" for index in range(4, 8)}
    assert {case_id for case_id, row in rows.items() if row["organ/dice/core"] == ""} == partly & rows.keys()
    assert all(row["organ/dice"] == row["organ/dice/rim"] for case_id, row in rows.items() if case_id in partly)
    medmtl.report(run)
    found = medmtl.load(run, device="cpu").predict(next(iter(scores.images.values())))
    assert {"organ_rim_ml", "organ_core_ml"} <= found["organ"].cells("organ").keys()


def test_another_cohorts_own_column_says_what_was_annotated_there(tmp_path: Path) -> None:
    folder = half_annotated(tmp_path / "cohort")
    folder.write()
    run = medmtl.train(
        folder.path / "config.yaml", tmp_path / "run", device="cpu", overrides={**TINY, "training.steps": 1}
    )
    other = half_annotated(tmp_path / "elsewhere")
    other.config = other.config.replace("rim: 1, core: 2", "core: 7, rim: 5").replace("drawn", "seen")
    for index, row in enumerate(other.rows):
        row |= {"id": f"other{index}", "person": f"other{index}", "seen": "core" if index < 2 else "rim;core"}
        row.pop("drawn")
        other.save(f"organ_{index}", mask(*([7] if index < 2 else [5, 7]), place=index))
    other.write()
    configuration.load(other.path / "config.yaml")
    medmtl.evaluate(run, config=other.path / "config.yaml", allow_overlap=True, device="cpu")
    written = next((run / "evaluation").glob("*/metrics.json"))
    metrics = json.loads(written.read_text())["tasks"]["organ"]["metrics"]
    assert (metrics["dice/rim"]["n"], metrics["dice/core"]["n"]) == (6, 8)


def as_regions(folder: Folder) -> Folder:
    regions = "annotated: drawn, train: regions, regions: {whole: [rim, core], inner: [core]}}"
    folder.config = folder.config.replace("annotated: drawn}", regions)
    return folder


def test_a_case_of_which_no_region_is_known_is_not_labelled(tmp_path: Path) -> None:
    ready = make_ready(configuration.load(half_regions(tmp_path / "cohort"), TINY))
    session = open_session(start_run(ready, tmp_path / "run", 0, "cpu"))
    (view,) = session.training.views
    known = {f"case{index}" for index in range(4)}
    drawn = {case.case_id for case in view.cases}
    assert view.truths["organ"].keys() & drawn == known & drawn
    present: dict[str, bool] = {}
    for dataset in (session.training, session.validation):
        assert dataset is not None
        for step in range(len(dataset)):
            (batch,) = dataset[step].views.values()
            present |= dict(zip(batch.case_ids, batch.present["organ"].tolist(), strict=True))
    assert present == {f"case{index}": f"case{index}" in known for index in range(8)}


def half_regions(path: Path) -> Path:
    folder = as_regions(half_annotated(path))
    folder.write()
    return folder.path / "config.yaml"


@pytest.mark.covers("B106")
def test_a_region_that_no_case_knows_in_whole_cannot_be_learned(tmp_path: Path) -> None:
    folder = as_regions(half_annotated(tmp_path / "cohort"))
    for index, row in enumerate(folder.rows):
        row["drawn"] = "rim" if index % 4 < 2 else "core"
        folder.save(f"organ_{index}", mask(1 if index % 4 < 2 else 2, place=index))
    folder.write()
    (found,) = [finding for finding in folder.check().findings if finding.severity == "reject"]
    assert (found.code, found.key, found.found) == ("B106", "tasks.organ", "no case holds whole")
    assert found.fix is not None and found.fix.startswith("set train: labels")
