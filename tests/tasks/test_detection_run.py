"""Boxes on a small cohort: trained, resumed, scored, reported, and predicted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import medmtl
from medmtl.data.boxes import boxes_in
from medmtl.data.formats.nifti import read_image, read_label
from medmtl.errors import InputError
from medmtl.evaluation.score import load_scores, own_selection
from medmtl.run_folder import RunFolder
from medmtl.tasks.box_task import BoxResult
from tests.conftest import TINY
from tests.stopping import train_until

pytestmark = pytest.mark.usefixtures("undrawn")

TASKS = {
    "nodules": {"kind": "detection", "column": "lesion", "components": True, "min_score": 0.001},
    "grade": {"kind": "classification", "column": "malignancy", "classes": ["benign", "malignant"]},
}


@pytest.fixture(scope="module")
def config(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny cohort, whose lesions are to be found."""
    document = yaml.safe_load(tiny_cohort.read_text())
    document["cohort"] |= {"table": str(tiny_cohort.parent / "cohort.csv")}
    document["tasks"] = TASKS
    document.pop("primary", None)
    path = tmp_path_factory.mktemp("boxes") / "config.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, evaluated."""
    made = medmtl.train(config, tmp_path_factory.mktemp("runs") / "run", device="cpu", overrides=TINY)
    medmtl.evaluate(made, device="cpu")
    return made


def test_anchors_are_planned_from_the_training_folds_lesions(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text())
    learned = plan["tasks"]["nodules"]
    assert learned["spacing"] == plan["preparation"]["spacing"]
    assert 1 <= len(learned["anchors_mm"]) <= 3
    assert all(1 < size < 40 for anchor in learned["anchors_mm"] for size in anchor)


def test_a_resumed_run_is_the_uninterrupted_one(
    config: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_until(4, config, tmp_path / "run", TINY, monkeypatch)
    medmtl.train(config, tmp_path / "run", device="cpu", overrides=TINY, resume=True)
    files = sorted(path.name for path in (run / "checkpoints" / "step-000006").glob("*.safetensors"))
    assert files
    for name in files:
        one, other = (folder / "checkpoints" / "step-000006" / name for folder in (run, tmp_path / "run"))
        assert one.read_bytes() == other.read_bytes()


def test_it_is_scored_against_the_label_files(run: Path) -> None:
    folder = run / "evaluation" / "val"
    body = json.loads((folder / "metrics.json").read_text())["tasks"]["nodules"]
    assert body["primary"] == "froc"
    assert list(body["metrics"]) == ["froc", "map", "ap_iou10", "ap_iou30", "ap_iou50"]
    scores = load_scores(own_selection([RunFolder(run)], "val"), folder)
    assert body["labelled"] == len(scores.cases["nodules"]) > 0
    lesions = 0
    for case in scores.cases["nodules"]:
        image = next(iter(scores.images[case.case_id].values()))
        expected = boxes_in(read_label(image.parents[1] / "labels" / image.name).array, components=True)
        assert np.array(case.truth).reshape(-1, 6).tolist() == expected.tolist()
        lesions += len(expected)
    assert body["metrics"]["froc"]["n_lesions"] == lesions > 0
    with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    assert sum(int(row["nodules_true"] or 0) for row in rows.values()) == lesions
    for row in rows.values():
        table = (folder / row["nodules"]).read_text().splitlines()
        assert len(table) - 1 == int(row["nodules_boxes"])


def test_what_is_read_again_is_what_was_scored(run: Path) -> None:
    folder = run / "evaluation" / "val"
    again = load_scores(own_selection([RunFolder(run)], "val"), folder)
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(again.metrics))


def test_the_page_shows_the_curve_also_where_it_is_shared(run: Path) -> None:
    assert "nodules: FROC" in medmtl.report(run).read_text()
    assert "nodules: FROC" in medmtl.report(run, share=True).read_text()


def test_boxes_are_written_in_the_scans_voxels_and_in_mm(run: Path, tmp_path: Path) -> None:
    images = {"image": _first_image(run)}
    found = medmtl.load(run, device="cpu").predict(images)
    result = found["nodules"]
    assert isinstance(result, BoxResult)
    assert result.boxes
    grid = read_image(images["image"]).grid
    (row,) = csv.DictReader(found.save(tmp_path / "out").read_text(encoding="utf-8").splitlines())
    written = list(csv.DictReader((tmp_path / "out" / row["nodules_file"]).read_text().splitlines()))
    assert len(written) == int(row["nodules_boxes"]) == len(result.boxes)
    assert float(row["nodules_score"]) == pytest.approx(float(written[0]["score"]), rel=1e-5)
    scores_of = [float(line["score"]) for line in written]
    assert scores_of == sorted(scores_of, reverse=True)
    for line in written:
        low, high = ([float(line[f"{axis}_{end}_voxel"]) for axis in "xyz"] for end in ("min", "max"))
        assert all(-1e-3 <= a < b <= n + 1e-3 for a, b, n in zip(low, high, grid.shape, strict=True))
        ends = [grid.affine[:3, :3] @ (np.array(corner) - 0.5) + grid.affine[:3, 3] for corner in (low, high)]
        mm = [float(line[f"{axis}_{end}_mm"]) for end in ("min", "max") for axis in "xyz"]
        assert mm == pytest.approx([*np.minimum(*ends), *np.maximum(*ends)], abs=1e-2)


def _first_image(run: Path) -> Path:
    scores = load_scores(own_selection([RunFolder(run)], "val"), run / "evaluation" / "val")
    return next(iter(next(iter(scores.images.values())).values()))


def test_a_folder_of_somebodys_boxes_is_not_written_into(run: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes").mkdir()
    with pytest.raises(InputError, match="boxes/"):
        medmtl.predict(run, [_first_image(run)], tmp_path, device="cpu")


def test_another_cohort_is_read_by_its_own_column_and_rule(run: Path, config: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(config.read_text())
    document["tasks"] = {"nodules": {"kind": "detection", "column": "lesion"}}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(document, sort_keys=False))
    scores = medmtl.evaluate(run, config=other, allow_overlap=True, device="cpu")["all"]
    assert all(len(case.truth) <= 1 for case in scores.cases["nodules"])
    assert any(case.truth for case in scores.cases["nodules"])


def test_folds_answer_together(config: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "training.steps": 2, "split.folds": 2}
    run = medmtl.train(config, tmp_path / "run", fold="all", device="cpu", overrides=overrides)
    scores = medmtl.evaluate(run, device="cpu")["val"]
    assert scores.metrics["tasks"]["nodules"]["metrics"]["froc"]["value"] is not None
    found = medmtl.load(run, device="cpu").predict(next(iter(scores.images.values())))["nodules"]
    assert isinstance(found, BoxResult)
    assert found.boxes


@pytest.mark.slow
def test_the_lesions_of_few_cases_are_learned(config: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "plan.width": 8, "plan.max_width": 32, "training.steps": 200, "training.checkpoint_every": 200}
    overrides |= {"augmentation.kind": "none", "split.folds": 2}
    run = medmtl.train(config, tmp_path / "run", device="cpu", overrides=overrides)
    scores = medmtl.evaluate(run, device="cpu", split="all")["train"]
    metrics = scores.metrics["tasks"]["nodules"]["metrics"]
    assert metrics["froc"]["value"] > 0.9
    assert metrics["ap_iou30"]["value"] > 0.8
