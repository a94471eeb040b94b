# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import csv
import gc
import itertools
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import medmtl
from medmtl.data.formats.nifti import write_mask
from medmtl.data.volume import Grid, Volume
from medmtl.errors import CohortError, InputError
from medmtl.evaluation import score
from medmtl.evaluation.score import evaluate_selection, own_selection
from medmtl.run_folder import open_folds
from medmtl.tasks.segmentation import Segmentation
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("undrawn")

SEGMENTATION = {"dice", "hd95_mm", "nsd_1mm", "volume_error_ml"}
METRICS = {
    "lesion": SEGMENTATION | {f"{name}/lesion" for name in SEGMENTATION},
    "malignancy": {"auc", "average_precision", "balanced_accuracy", "f1_macro", "sensitivity", "specificity", "brier"},
    "risk": {"mae", "rmse", "r2", "spearman", "skill", "slope", "bias", "loa_lower", "loa_upper"},
}
SITE = {"auc_within_site", "auc_site_alone"}  # where there is more than one site
EMPTY = {f"{name}_present{end}" for name in ("dice", "hd95_mm") for end in ("", "/lesion")}  # where a mask is empty


def copied(run: Path, config: Path, place: Path) -> tuple[Path, Path]:
    """Run and cohort side by side as they were, so that the run finds its table; returns run and cohort folder."""
    shutil.copytree(run, place / "runs" / "run")
    cohort = shutil.copytree(config.parent, place / config.parent.parent.name / config.parent.name)
    return place / "runs" / "run", cohort


def brightest(task: Segmentation, probability_KDHW: torch.Tensor) -> torch.Tensor:
    """A mask that is neither empty nor everything, of whatever a network of few steps says."""
    lesion = probability_KDHW[1]
    return (lesion > lesion.quantile(0.97)).to(torch.uint8)


def metrics_of(folder: Path) -> Any:
    """``metrics.json``, where it is JSON: NaN and Infinity are not."""

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} in metrics.json")

    return json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_of(cohort: Path) -> dict[str, dict[str, str]]:
    with (cohort / "cohort.csv").open(newline="", encoding="utf-8") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def run(trained_run: Path, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run, evaluated."""
    place, _ = copied(trained_run, tiny_cohort, tmp_path_factory.mktemp("evaluated"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmentation, "decide", brightest)
        medmtl.evaluate(place, device="cpu")
    return place


@pytest.fixture(scope="module")
def folds(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds and a test split; the first two cases have no mask."""
    place = tmp_path_factory.mktemp("folds")
    cohort = shutil.copytree(tiny_cohort.parent, place / "cohort")
    text = (cohort / "cohort.csv").read_text()
    for case_id in ("case_000", "case_001"):
        text = text.replace(f"labels/{case_id}.nii.gz", "")
    (cohort / "cohort.csv").write_text(text)
    overrides = {**TINY, "training.steps": 2, "split.test": 0.2, "split.folds": 2}
    return medmtl.train(cohort / "config.yaml", place / "run", fold="all", device="cpu", overrides=overrides)


def test_metrics_json_is_as_in_the_contract(run: Path) -> None:
    body = metrics_of(run / "evaluation" / "val")
    assert set(body) == {"schema", "split", "folds", "cases", "note", "tasks"}
    assert (body["schema"], body["split"], body["folds"]) == (1, "val", [0])
    assert body["cases"] == len(json.loads((run / "splits.json").read_text())["folds"][0]["val"])
    assert "conditional on the trained models" in body["note"]
    assert list(body["tasks"]) == list(METRICS)
    for name, task in body["tasks"].items():
        assert set(task) - {"headline"} == {"kind", "labelled", "primary", "metrics"}
        assert set(task["metrics"]) - SITE - EMPTY == METRICS[name]
        assert task["primary"] == next(iter(task["metrics"]))
        assert 0 < task["labelled"] <= body["cases"]
    kinds = [task["kind"] for task in body["tasks"].values()]
    assert kinds == ["segmentation", "classification", "regression"]


def test_every_estimate_has_a_value_or_says_why_not(run: Path) -> None:
    for task in metrics_of(run / "evaluation" / "val")["tasks"].values():
        for name, estimate in task["metrics"].items():
            if estimate["value"] is None:
                assert estimate["why"] and "ci95" not in estimate, name
                continue
            assert isinstance(estimate["value"], float), name
            assert set(estimate) >= {"value", "ci95", "ci", "n", "better", "unit"}, name
            assert 0 < estimate["n"] <= task["labelled"], name
            assert estimate["better"] in ("higher", "lower", "zero", "one"), name
            # six cases are fewer than the ten that an interval wants
            assert estimate["ci95"] is None and estimate["why"], name
    dice = metrics_of(run / "evaluation" / "val")["tasks"]["lesion"]["metrics"]["dice"]
    assert {"n_missed", "n_false", "n_true_negative"} <= set(dice)


def test_cases_csv_has_a_row_per_case_and_its_columns_task_by_task(run: Path, tiny_cohort: Path) -> None:
    rows = rows_of(run / "evaluation" / "val")
    assert [row["case_id"] for row in rows] == json.loads((run / "splits.json").read_text())["folds"][0]["val"]
    kinds = ("dice", "hd95_mm", "nsd_1mm", "volume_error_ml")
    per_label = [f"lesion/{kind}/lesion" for kind in (*kinds, "missed", "false", "true_negative")]
    assert list(rows[0]) == [
        *("case_id", "patient", "site", "fold"),
        *("lesion_true", "lesion", "lesion_lesion_ml"),
        *(f"lesion/{kind}" for kind in kinds),
        *per_label,
        *("malignancy_true", "malignancy", "malignancy_p_benign", "malignancy_p_malignant"),
        *("risk_true", "risk", "risk/absolute_error", "risk/training_median"),
    ]
    table = table_of(tiny_cohort.parent)
    for row in rows:
        source = table[row["case_id"]]
        assert (row["patient"], row["site"]) == (source["patient_id"], source["site"])
        assert row["malignancy_true"] == source["malignancy"]
        assert row["risk_true"] == ("" if source["risk"] == "" else f"{float(source['risk']):g}")
        if row["risk_true"]:
            error = abs(float(row["risk"]) - float(row["risk_true"]))
            assert float(row["risk/absolute_error"]) == pytest.approx(error, abs=1e-3)


def test_dice_follows_from_the_written_masks_and_the_references(run: Path, tiny_cohort: Path) -> None:
    folder, cohort = run / "evaluation" / "val", tiny_cohort.parent
    table, found = table_of(cohort), []
    for row in rows_of(folder):
        mask = nib.Nifti1Image.from_filename(folder / row["lesion"])
        image = nib.Nifti1Image.from_filename(cohort / table[row["case_id"]]["image"])
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
        predicted = np.asarray(mask.dataobj) == 1
        assert predicted.any()
        volume = predicted.sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000
        assert float(row["lesion_lesion_ml"]) == pytest.approx(volume, abs=1e-3)
        if not table[row["case_id"]]["lesion"]:
            assert row["lesion_true"] == row["lesion/dice"] == ""
            continue
        reference = np.asarray(nib.Nifti1Image.from_filename(cohort / table[row["case_id"]]["lesion"]).dataobj) == 1
        dice = 2 * (predicted & reference).sum() / (predicted.sum() + reference.sum())
        assert float(row["lesion/dice"]) == pytest.approx(dice, abs=1e-5)
        found.append(dice)
    stored = metrics_of(folder)["tasks"]["lesion"]
    assert stored["labelled"] == stored["metrics"]["dice"]["n"] == len(found)
    assert stored["metrics"]["dice"]["value"] == pytest.approx(np.mean(found))
    assert max(found) > 0


def test_the_masks_of_a_cohort_are_never_held_together(run: Path, tmp_path: Path) -> None:
    held: list[int] = []

    def count(stage: str, done: int, total: int, note: str = "") -> None:
        gc.collect()
        held.append(sum(type(thing) is Volume for thing in gc.get_objects()))

    scores = medmtl.evaluate(run, device="cpu", out=tmp_path / "again", progress=count)["val"]
    assert len(held) > 2
    assert set(held) == {held[0]}
    assert all(case.result.mask is None for case in scores.cases["lesion"])


def test_an_evaluation_is_the_owners_alone(run: Path) -> None:
    paths = [run / "evaluation", *(run / "evaluation").rglob("*")]
    assert {path.name for path in paths} >= {"metrics.json", "cases.csv", "report.html", "masks", "val"}
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_page_written_again_has_the_same_bytes(run: Path) -> None:
    page = run / "evaluation" / "val" / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert medmtl.report(run) == page
    assert page.read_bytes() == before


def test_a_split_that_was_not_evaluated_has_no_page(run: Path) -> None:
    with pytest.raises(InputError, match="the train split was not evaluated yet"):
        medmtl.report(run, split="train")


@pytest.mark.parametrize("split", ["test", "tune"])
def test_a_split_without_cases_is_refused(run: Path, split: Any) -> None:
    with pytest.raises(InputError, match=split):
        medmtl.evaluate(run, split=split, device="cpu")
    assert not (run / "test_access.jsonl").exists()
    assert not (run / "evaluation" / split).exists()


def test_an_evaluation_that_breaks_off_leaves_no_page_to_write(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = copied(trained_run, tiny_cohort, tmp_path)
    medmtl.evaluate(place, device="cpu")
    medmtl.report(place)
    scored = itertools.count()

    def break_off(*arguments: Any) -> Any:
        if next(scored) == 1:
            raise OSError("disk full")
        return whole(*arguments)

    whole = score.score_case
    monkeypatch.setattr(score, "score_case", break_off)
    with pytest.raises(OSError, match="disk full"):
        medmtl.evaluate(place, device="cpu")
    with pytest.raises(InputError, match="not evaluated yet"):
        medmtl.report(place)


@pytest.mark.covers("B031")
def test_a_table_edited_since_the_training_is_refused(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    place, cohort = copied(trained_run, tiny_cohort, tmp_path)
    with (cohort / "cohort.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(CohortError, match="B031"):
        medmtl.evaluate(place, device="cpu")


def test_a_label_of_another_shape_than_its_image_is_refused(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    place, cohort = copied(trained_run, tiny_cohort, tmp_path)
    for label in (cohort / "labels").iterdir():
        write_mask(label, np.ones((4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4)))
    with pytest.raises(CohortError, match="no longer has the shape of its image"):
        medmtl.evaluate(place, device="cpu")


def test_a_run_without_folds_has_no_validation(tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "training.steps": 1}
    run = medmtl.train(tiny_cohort, tmp_path / "run", fold="none", device="cpu", overrides=overrides)
    with pytest.raises(InputError, match="no val cases"):
        medmtl.evaluate(run, device="cpu")
    assert list(medmtl.evaluate(run, split="all", device="cpu")) == ["train"]
    assert {path.name for path in (run / "evaluation").iterdir()} == {"train"}
    scores = evaluate_selection(own_selection(open_folds(run), "train"), tmp_path / "scores", device="cpu")
    assert {row["fold"] for row in rows_of(scores.folder)} == {"none"}
    assert scores.folds == ("none",)
    assert scores.metrics["cases"] == 12
    assert "resubstitution" in scores.metrics["note"]


@pytest.mark.covers("B093")
@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_file_that_changed_since_the_training_is_refused(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, kind: str
) -> None:
    place, cohort = copied(trained_run, tiny_cohort, tmp_path)
    val = json.loads((place / "splits.json").read_text())["folds"][0]["val"]
    case_id = next(name for name in val if table_of(cohort)[name]["lesion"])
    path = cohort / kind / f"{case_id}.nii.gz"
    image = nib.Nifti1Image.from_filename(path)
    array = np.asarray(image.dataobj).copy()
    array.flat[0] = 1 - array.flat[0]
    nib.Nifti1Image(array, image.affine, image.header).to_filename(path)
    with pytest.raises(
        InputError, match=rf"\[B093\] case '{case_id}' \(row \d+\): {path.name} is not the file that was checked"
    ):
        medmtl.evaluate(place, device="cpu")
    assert not (place / "evaluation" / "val" / "metrics.json").exists()


def test_a_changed_label_is_refused_when_the_page_is_written_again(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    place, cohort = copied(trained_run, tiny_cohort, tmp_path)
    medmtl.evaluate(place, device="cpu")
    for path in (cohort / "labels").iterdir():
        label = nib.Nifti1Image.from_filename(path)
        nib.Nifti1Image(np.asarray(label.dataobj)[::-1], label.affine).to_filename(path)
    with pytest.raises(InputError, match="B093"):
        medmtl.report(place)


def test_folds_are_pooled_out_of_fold(folds: Path) -> None:
    scores = medmtl.evaluate(folds, device="cpu")["val"]
    splits = json.loads((folds / "fold-0" / "splits.json").read_text())
    assert scores.folder == folds / "evaluation" / "val"
    body, rows = metrics_of(scores.folder), rows_of(scores.folder)
    assert body["folds"] == [0, 1]
    held_out = [(case_id, fold) for fold, part in enumerate(splits["folds"]) for case_id in part["val"]]
    assert [row["case_id"] for row in rows] == [case_id for case_id, _ in held_out]
    assert len(set(held_out)) == len(rows) == body["cases"] == 12 - len(splits["test"])
    answers = json.loads((scores.folder / "activations.json").read_text())
    assert [(answer["case_id"], answer["fold"]) for answer in answers] == held_out
    assert [(row["case_id"], int(row["fold"])) for row in rows] == held_out
    risks = [row["risk"] for row in rows]
    models = [medmtl.load(folds / f"fold-{fold}", device="cpu") for fold in (0, 1)]
    for chosen in (0, len(rows) - 1):
        case_id, fold = held_out[chosen]
        own, other = (models[k].predict(scores.images[case_id])["risk"].cells("r")["r"] for k in (fold, 1 - fold))
        assert f"{own:.6g}" == risks[chosen] != f"{other:.6g}"
    before = (scores.folder / "report.html").read_bytes()
    assert medmtl.report(folds).read_bytes() == before


def test_thresholds_calibration_and_medians_are_those_of_the_folds(folds: Path, tmp_path: Path) -> None:
    scores = medmtl.evaluate(folds, device="cpu")["val"]
    splits = json.loads((folds / "fold-0" / "splits.json").read_text())
    plans = [json.loads((folds / f"fold-{fold}" / "plan.json").read_text()) for fold in (0, 1)]
    medians = [plan["tasks"]["risk"]["median_value"] for plan in plans]
    assert medians[0] != medians[1]
    rows = {row["case_id"]: row for row in rows_of(scores.folder)}
    body = metrics_of(scores.folder)["tasks"]
    thresholds = body["malignancy"]["metrics"]["sensitivity"]["threshold_by_fold"]
    error = constant = 0.0
    for fold, part in enumerate(splits["folds"]):
        for case_id in part["val"]:
            row = rows[case_id]
            if row["risk_true"]:
                assert float(row["risk/training_median"]) == pytest.approx(medians[fold], rel=1e-5)
                error += abs(float(row["risk"]) - float(row["risk_true"]))
                constant += abs(medians[fold] - float(row["risk_true"]))
            if row["malignancy_true"]:
                assert float(row["malignancy/threshold"]) == pytest.approx(thresholds[str(fold)], abs=1e-5)
                pair = [float(row[f"malignancy/calibrated_p_{name}"]) for name in ("benign", "malignant")]
                assert sum(pair) == pytest.approx(1, abs=1e-5)
    assert body["risk"]["metrics"]["skill"]["value"] == pytest.approx(1 - error / constant, rel=1e-3)
    assert body["malignancy"]["metrics"]["brier_calibrated"]["value"] is not None
    # what several folds say of cases that they trained on is not out of fold
    assert not score.own_selection(open_folds(folds), "train").is_out_of_fold
    copy = shutil.copytree(folds.parent, tmp_path / "copy") / "run"
    test = medmtl.evaluate(copy, split="test", device="cpu")["test"]
    metrics = test.metrics["tasks"]["malignancy"]["metrics"]
    assert metrics["sensitivity"]["threshold"] == 0.5
    assert "fixed" in metrics["sensitivity"]["threshold_source"]
    assert "brier_calibrated" not in metrics
    average = [case.reference["training_median"] for case in test.cases["risk"]]
    assert average == pytest.approx([sum(medians) / 2] * len(average))


def test_columns_stand_task_by_task_also_where_the_first_case_has_no_label(folds: Path, tmp_path: Path) -> None:
    medmtl.evaluate(folds, out=tmp_path / "out", device="cpu")
    rows = rows_of(tmp_path / "out")
    assert rows[0]["lesion_true"] == ""
    columns = [column for column in rows[0] if column not in ("case_id", "patient", "site", "fold")]
    tasks = [column.replace("/", "_").partition("_")[0] for column in columns]
    assert [task for task, _ in itertools.groupby(tasks)] == ["lesion", "malignancy", "risk"]
    assert "lesion/dice" in columns


def test_the_test_split_is_predicted_by_all_folds_and_each_access_is_logged(folds: Path) -> None:
    scores = medmtl.evaluate(folds, split="test", device="cpu")["test"]
    medmtl.report(folds, split="test")  # its labels are read again
    for fold in (0, 1):
        lines = (folds / f"fold-{fold}" / "test_access.jsonl").read_text().splitlines()
        assert [json.loads(line)["split"] for line in lines] == ["test", "test"]
    test = json.loads((folds / "fold-0" / "splits.json").read_text())["test"]
    body, rows = metrics_of(scores.folder), rows_of(scores.folder)
    assert (body["split"], body["folds"], body["cases"]) == ("test", [0, 1], len(test))
    assert [row["case_id"] for row in rows] == test
    assert {row["fold"] for row in rows} == {"all"}
    image = scores.images[test[0]]
    single = [medmtl.load(folds / f"fold-{fold}", device="cpu").predict(image) for fold in (0, 1)]
    both = medmtl.load(folds, device="cpu").predict(image)
    for column in ("malignancy_p_benign", "malignancy_p_malignant"):
        each = [float(str(found["malignancy"].cells("malignancy")[column])) for found in single]
        assert float(rows[0][column]) == pytest.approx(sum(each) / 2, abs=1e-5)
        assert each[0] != each[1]
    assert len({found.model_sha256 for found in (*single, both)}) == 3


def test_the_training_split_of_several_folds_holds_each_case_once(folds: Path, tmp_path: Path) -> None:
    found = medmtl.evaluate(folds, split="all", out=tmp_path / "out", device="cpu")
    assert list(found) == ["train", "val", "test"]
    rows = [row["case_id"] for row in rows_of(tmp_path / "out" / "train")]
    assert sorted(rows) == sorted(row["case_id"] for row in rows_of(tmp_path / "out" / "val"))
    assert len(set(rows)) == len(rows)
