"""Boxes from a table on a small cohort: trained, resumed, scored against the table, and predicted."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import medmtl
from medmtl import config as configuration
from medmtl.data.boxes import boxes_in, cut
from medmtl.data.formats.nifti import read_image, read_label
from medmtl.device import describe_device
from medmtl.errors import InputError, InterruptedRun
from medmtl.evaluation.score import Scores, load_scores, own_selection
from medmtl.files import sha256_file
from medmtl.run_folder import RunFolder
from medmtl.tasks.box_task import BoxResult
from medmtl.training import loop
from medmtl.training.room import predict_disk
from medmtl.training.start import make_ready, plan_fold
from medmtl.training.step import train_step
from tests.conftest import TINY

TASK = {"kind": "detection", "column": "nodules", "boxes": "lps", "min_score": 0.001}
CORNERS = [f"{axis}_{end}_mm" for end in ("min", "max") for axis in "xyz"]

Boxes = Mapping[str, Sequence[Sequence[float]]]


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny cohort; its lesions' boxes, measured in its masks, stand in one table in the frame of DICOM."""
    folder = tmp_path_factory.mktemp("boxes")
    with (tiny_cohort.parent / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [["case_id", "reader", *CORNERS]]
    for row in rows:
        mask = row.pop("lesion")
        label = read_label(tiny_cohort.parent / mask) if mask else None
        row["image"] = str(tiny_cohort.parent / row["image"])
        row["nodules"] = "" if label is None else "boxes.csv"
        for box in () if label is None else boxes_in(label.array, components=True):
            ends = [label.grid.affine[:3] @ [*(np.array(corner) - 0.5), 1] for corner in (box[:3], box[3:])]
            ends = [end * [-1, -1, 1] for end in ends]
            mm = [*np.minimum(*ends), *np.maximum(*ends)]
            lines.append([row["case_id"], "x", *(f"{value:.6f}" for value in mm)])
    write_rows(folder / "boxes.csv", lines)
    write_rows(folder / "cohort.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    document = yaml.safe_load(tiny_cohort.read_text())
    document["cohort"] |= {"table": "cohort.csv", "roots": [str(tiny_cohort.parent)]}
    document["tasks"] = {"nodules": TASK}
    document.pop("primary", None)
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@pytest.fixture(scope="module")
def run(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, evaluated."""
    made = medmtl.train(cohort / "config.yaml", tmp_path_factory.mktemp("runs") / "run", device="cpu", overrides=TINY)
    medmtl.evaluate(made, device="cpu")
    return made


def scores_of(run: Path) -> Scores:
    return load_scores(own_selection([RunFolder(run)], "val"), run / "evaluation" / "val")


def truths_of(scores: Scores) -> Boxes:
    return {case.case_id: case.truth for case in scores.cases["nodules"]}


def test_it_is_scored_against_the_boxes_that_the_table_was_made_from(run: Path, tiny_cohort: Path) -> None:
    scores = scores_of(run)
    truths, lesions = truths_of(scores), 0
    assert truths
    for case_id, found in truths.items():
        image = next(iter(scores.images[case_id].values()))
        label = read_label(tiny_cohort.parent / "labels" / image.name)
        expected = boxes_in(label.array, components=True)
        np.testing.assert_allclose(sorted(map(list, found)), sorted(expected.tolist()), atol=1e-4)
        lesions += len(found)
    body = json.loads((run / "evaluation" / "val" / "metrics.json").read_text())["tasks"]["nodules"]
    assert body["labelled"] == len(truths)
    assert body["metrics"]["froc"]["n_lesions"] == lesions > 0


def test_anchors_are_planned_from_the_table_and_the_plan_says_its_frame(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text())
    assert plan["preparation"]["boxes"] == {"nodules": "lps"}
    assert plan["preparation"]["labels"] == {"nodules": "nodules"}
    assert all(1 < size < 40 for anchor in plan["tasks"]["nodules"]["anchors_mm"] for size in anchor)


@pytest.mark.covers("P20")
def test_the_room_that_its_prepared_cases_take_was_predicted(run: Path, cohort: Path) -> None:
    ready = make_ready(configuration.load(cohort / "config.yaml", TINY))
    train, val = ready.members(0)
    need = predict_disk(ready.config, ready.checked, plan_fold(ready, 0, describe_device("cpu")), [*train, *val])
    entries = list((run.parent / ".medmtl-cache").iterdir())
    taken = sum(512 * path.lstat().st_blocks for entry in entries for path in (entry, *entry.iterdir()))
    assert taken <= sum(need.entry_bytes.values()) <= 1.25 * taken
    assert max(len(list(entry.iterdir())) for entry in entries) + 1 <= max(need.entry_files.values())


def test_the_tables_hash_is_remembered(run: Path, cohort: Path) -> None:
    files = RunFolder(run).load_manifest()["files_sha256"]
    assert files["boxes.csv"] == sha256_file(cohort / "boxes.csv")


def test_a_resumed_run_is_the_uninterrupted_one_and_a_changed_table_is_refused(
    cohort: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any) -> Any:
        if arguments[1].step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*arguments)

    config, table = cohort / "config.yaml", cohort / "boxes.csv"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopped)
        with pytest.raises(InterruptedRun):
            medmtl.train(config, tmp_path / "run", device="cpu", overrides=TINY)
    before = table.read_text()
    try:
        table.write_text(before + "stranger,x,1,1,1,2,2,2\n")
        for refused in (
            lambda: medmtl.train(config, tmp_path / "run", device="cpu", overrides=TINY, resume=True),
            lambda: medmtl.evaluate(run, device="cpu"),
        ):
            with pytest.raises(InputError, match=r"boxes\.csv is not the file that was checked"):
                refused()
    finally:
        table.write_text(before)
    medmtl.train(config, tmp_path / "run", device="cpu", overrides=TINY, resume=True)
    files = sorted(path.name for path in (run / "checkpoints" / "step-000006").glob("*.safetensors"))
    assert files
    for name in files:
        one, other = (folder / "checkpoints" / "step-000006" / name for folder in (run, tmp_path / "run"))
        assert one.read_bytes() == other.read_bytes()


def test_what_is_predicted_may_be_read_as_a_table_and_is_the_same_boxes(
    run: Path, cohort: Path, tmp_path: Path
) -> None:
    """The frame and the corners of what is written are those of what is read: all the way round."""
    with (cohort / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:3]
    scans = [Path(row["image"]) for row in rows]
    table = medmtl.predict(run, scans, tmp_path / "out", device="cpu")
    with table.open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert len(written) == 3 and all(int(row["nodules_boxes"]) for row in written)
    for row, answer in zip(rows, written, strict=True):
        row["nodules"] = str(Path("out", answer["nodules_file"]))
    write_rows(tmp_path / "cohort.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    document = yaml.safe_load((cohort / "config.yaml").read_text())
    document["tasks"]["nodules"]["boxes"] = "ras"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    scores = medmtl.evaluate(run, config=tmp_path / "other.yaml", allow_overlap=True, device="cpu")["all"]
    assert len(scores.cases["nodules"]) == 3
    for case in scores.cases["nodules"]:
        assert isinstance(case.result, BoxResult)
        grid = read_image(scores.images[case.case_id]["image"]).grid
        # written with six digits, of millimetres
        expected = cut(np.array([box.voxels for box in case.result.boxes]), grid.shape)
        np.testing.assert_allclose(case.truth, expected, atol=2e-3)
    assert scores.metrics["tasks"]["nodules"]["metrics"]["map"]["value"] > 0.95
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.csv")}
    for refused in (
        lambda: medmtl.evaluate(run, config=tmp_path / "other.yaml", out=tmp_path / "out", allow_overlap=True),
        lambda: medmtl.predict(run, tmp_path / "other.yaml", tmp_path / "out", device="cpu"),
    ):
        with pytest.raises(InputError, match=r"^\[B048\] .*boxes/nodules/.* would be overwritten"):
            refused()
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.csv")} == before


@pytest.mark.slow
def test_the_lesions_of_few_cases_are_learned_from_their_boxes(cohort: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "plan.width": 8, "plan.max_width": 32, "training.steps": 200, "training.checkpoint_every": 200}
    overrides |= {"augmentation.kind": "none", "split.folds": 2}
    run = medmtl.train(cohort / "config.yaml", tmp_path / "run", device="cpu", overrides=overrides)
    metrics = medmtl.evaluate(run, device="cpu", split="all")["train"].metrics["tasks"]["nodules"]["metrics"]
    assert metrics["froc"]["value"] > 0.9
    assert metrics["ap_iou30"]["value"] > 0.8
