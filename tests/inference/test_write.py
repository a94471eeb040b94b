from __future__ import annotations

import csv
import io
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

import medmtl
from medmtl.data.formats.nifti import read_label
from medmtl.data.volume import Grid, Volume
from medmtl.errors import InputError
from medmtl.files import sha256_file
from medmtl.inference import write
from medmtl.inference.case_prediction import CasePrediction
from medmtl.inference.write import (
    BOX_COLUMNS,
    PredictionTable,
    answer_file,
    csv_text,
    prediction_row,
    write_answers,
    write_table,
)
from medmtl.loaded import Prediction
from medmtl.tasks.box_task import BoxResult, FoundBox
from medmtl.tasks.classification import ClassificationResult
from medmtl.tasks.segmentation import SegmentationResult

GRID = Grid((3, 4, 2), np.diag([1.0, 2.0, 3.0, 1.0]))
ODD_IDS = ("../x", "..", "/etc/passwd", "a/b", "a\\b", "-rf", ".hidden", "🫀 heart", "a%2Fb", "é", "x" * 300, "x" * 301)


def prediction(case_id: str, seed: int = 0, outside: tuple[str, ...] = ()) -> CasePrediction:
    mask = np.random.default_rng(seed).integers(0, 3, GRID.shape, dtype=np.uint8)
    results = {
        "organ": SegmentationResult(Volume(mask, GRID), {"liver": 1.25, "spleen": 0.0}),
        "grade": ClassificationResult(label="high", probabilities={"low": 0.25, "high": 0.75}),
    }
    return CasePrediction(case_id, results, {"grade": (0.25, 0.75)}, outside)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.covers("B026")
@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-1-1", "-rf", "+a", "@SUM(A1)", "\tx", "\rx", '=HYPERLINK("http://x","y")']
)
def test_text_that_a_spreadsheet_would_run_is_quoted(text: str) -> None:
    (row,) = read(csv_text([{"case_id": text, "value": None}]))
    assert row == {"case_id": "'" + text, "value": ""}


@pytest.mark.parametrize("text", ["case 1", "a=b", "007", "+", "-", "+++", "-5", "+1.5e-3", 'say "no", or\nnot', "ünï"])
def test_other_text_is_kept_exactly(text: str) -> None:
    assert read(csv_text([{"case_id": text}])) == [{"case_id": text}]


def test_numbers_are_numbers_and_missing_values_are_empty() -> None:
    (row,) = read(
        csv_text([{"low": -3.25, "long": 1234.5678, "small": 1.5e-7, "count": -1234567, "none": None, "text": ""}])
    )
    assert row == {"low": "-3.25", "long": "1234.57", "small": "1.5e-07", "count": "-1234567", "none": "", "text": ""}


def test_columns_are_the_union_of_all_rows() -> None:
    assert csv_text([{"a": "x"}, {"a": "y", "b": 2.0}]) == "a,b\nx,\ny,2\n"


@pytest.mark.covers("B018")
def test_no_case_id_leaves_the_folder_and_no_two_share_a_mask(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = []
    for seed, case_id in enumerate(ODD_IDS):
        write_answers(prediction(case_id, seed), out)
        rows.append(prediction_row(prediction(case_id, seed), "0" * 64))
    write_table(rows, out / "predictions.csv")
    masks = sorted((out / "masks" / "organ").iterdir())
    assert len(masks) == len(ODD_IDS)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([*masks, out / "predictions.csv"])
    for seed, row in enumerate(read((out / "predictions.csv").read_text(encoding="utf-8"))):
        assert row["case_id"].removeprefix("'") == ODD_IDS[seed]
        found = read_label(out / row["organ_file"])
        mask = prediction("", seed)["organ"].mask
        assert mask is not None
        np.testing.assert_array_equal(found.array, mask.array)
        np.testing.assert_allclose(found.grid.affine, GRID.affine)


def test_plain_ids_are_file_names_as_they_are() -> None:
    organ = prediction("case_007.a-B")["organ"]
    assert answer_file("organ", "case_007.a-B", organ) == "masks/organ/case_007.a-B.nii.gz"


def test_what_is_written_is_the_owners_alone(tmp_path: Path) -> None:
    write_answers(prediction("case"), tmp_path / "out")
    write_table([prediction_row(prediction("case"), "0" * 64)], tmp_path / "out" / "predictions.csv")
    for path in (tmp_path / "out", *(tmp_path / "out").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_long_table_is_written_anew_every_ten_seconds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(write.time, "monotonic", lambda: clock[0])
    path = tmp_path / "predictions.csv"
    table = PredictionTable(path)
    table.write()
    assert not path.exists() and table.is_empty
    table.begin()
    listed = []
    for number in range(25):
        clock[0] += 1
        table.begin()
        table.add({"case_id": str(number)})
        listed.append(len(read(path.read_text())))
    assert listed == 9 * [0] + 10 * [10] + 6 * [20]
    table.write()
    assert [row["case_id"] for row in read(path.read_text())] == [str(number) for number in range(25)]


def test_columns_of_a_row_are_those_of_the_contract() -> None:
    row = prediction_row(prediction("c1", outside=("spacing_2", "intensity_t1")), "ab" * 32)
    assert row == {
        "case_id": "c1",
        "organ_file": "masks/organ/c1.nii.gz",
        "organ_liver_ml": 1.25,
        "organ_spleen_ml": 0.0,
        "grade": "high",
        "grade_p_low": 0.25,
        "grade_p_high": 0.75,
        "outside_training": "spacing_2 intensity_t1",
        "calibrated": "no",
        "model_sha256": "ab" * 32,
    }
    assert next(iter(row)) == "case_id"
    assert list(row)[-3:] == ["outside_training", "calibrated", "model_sha256"]


def test_a_saved_prediction_is_a_table_of_one_row_beside_its_masks(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    image = tiny_cohort.parent / "images" / "case_000.nii.gz"
    found = medmtl.load(trained_run, device="cpu").predict({"image": image}, case_id="someone")
    table = found.save(tmp_path / "out")
    (row,) = read(table.read_text(encoding="utf-8"))
    assert list(row) == [
        "case_id",
        "lesion_file",
        "lesion_lesion_ml",
        "malignancy",
        "malignancy_p_benign",
        "malignancy_p_malignant",
        "risk",
        "outside_training",
        "calibrated",
        "model_sha256",
    ]
    assert (tmp_path / "out" / row["lesion_file"]).is_file()
    assert float(row["malignancy_p_benign"]) + float(row["malignancy_p_malignant"]) == pytest.approx(1, abs=1e-5)
    newest = (trained_run / "checkpoints" / "last").read_text().strip()
    assert row["model_sha256"] == sha256_file(trained_run / "checkpoints" / newest / "average.safetensors")


def saved(place: Path, case_id: str, low: float, model: str = "a") -> list[dict[str, str]]:
    results = {"grade": ClassificationResult(label="-low", probabilities={"low": low, "high": 1 - low})}
    return read(Prediction(case_id, results, {}, (), model_sha256=model * 64).save(place).read_text(encoding="utf-8"))


def test_saving_case_after_case_keeps_their_rows(tmp_path: Path) -> None:
    names = ("p1", "=2", "\udcff", "007")
    for case_id in names:
        first = saved(tmp_path, case_id, -1.5e-7)
    assert [row["case_id"] for row in first] == ["p1", "'=2", "\\udcff", "007"]
    for case_id in names:
        again = saved(tmp_path, case_id, -1.5e-7)
    assert again == first  # cells of rows that stay are not quoted or rounded once more
    assert (again[0]["grade"], again[0]["grade_p_low"]) == ("'-low", "-1.5e-07")
    assert [row["grade_p_low"] for row in saved(tmp_path, "p1", 0.25)] == ["-1.5e-07"] * 3 + ["0.25"]


def test_a_table_of_another_model_is_not_saved_into(tmp_path: Path) -> None:
    saved(tmp_path, "p1", 0.25)
    table = tmp_path / "predictions.csv"
    long = "case_id" + 200_000 * "x"
    for text in (None, "name,age\nx,1\n", "case_id,model_sha256\nx\n", "a\0b\n1\n", long):
        table.write_text(table.read_text() if text is None else text)
        before = table.read_bytes()
        with pytest.raises(InputError, match=r"of another model|cannot be read|did not write"):
            saved(tmp_path, "p2", 0.5, model="b")
        assert table.read_bytes() == before
    table.write_text("case_id\n")  # all that a killed process left
    assert len(saved(tmp_path, "p2", 0.5, model="b")) == 1


def test_a_prediction_is_named_by_its_file(trained_run: Path, tiny_cohort: Path) -> None:
    model = medmtl.load(trained_run, device="cpu")
    assert model.predict({"image": tiny_cohort.parent / "images" / "case_003.nii.gz"}).case_id == "case_003"


def test_a_files_name_replaces_no_case(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    model, out = medmtl.load(trained_run, device="cpu"), tmp_path / "out"
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
        shutil.copy(tiny_cohort.parent / "images" / f"case_00{number}.nii.gz", tmp_path / str(number) / "t1.nii.gz")
    model.predict(tmp_path / "0" / "t1.nii.gz").save(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = tmp_path / "1" / "t1.nii.gz"
    with pytest.raises(InputError, match=r"/predictions\.csv already has a row for this file's name.*; give case_id="):
        model.predict(other).save(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    ids = [[row["case_id"] for row in read(model.predict(other, case_id=name).save(out).read_text())] for name in "12"]
    assert ids == [["t1", "1"], ["t1", "1", "2"]]
    replaced = read(model.predict(other, case_id="t1").save(out).read_text())
    assert [row["case_id"] for row in replaced] == ["1", "2", "t1"]


@pytest.mark.covers("B165")
def test_nothing_is_saved_into_a_run_or_beside_its_folds(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run / "fold-0")
    before = sorted(run.rglob("*"))
    for place in (run, run / "fold-0"):
        with pytest.raises(InputError, match=r"^\[B165\] .* is a run, and nothing is merged into one"):
            Prediction("someone", {}, {}, ()).save(place)
    assert sorted(run.rglob("*")) == before


@pytest.mark.covers("B165")
def test_nothing_is_saved_inside_a_run(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    before = sorted(run.rglob("*"))
    (tmp_path / "link").symlink_to(run / "checkpoints")
    newest = (run / "checkpoints" / "last").read_text().strip()
    for place in (
        run / "checkpoints" / newest,
        run / "mine",
        run / "a" / "b",
        run / "evaluation" / "val",
        tmp_path / "link" / "new",
    ):
        with pytest.raises(InputError, match=r"^\[B165\] .* lies in the run .*/run, and only its evaluation/ takes"):
            Prediction("someone", {}, {}, ()).save(place)
    assert sorted(run.rglob("*")) == before
    # somebody else's file of that name makes no run
    (tmp_path / "manifest.json").touch()
    assert Prediction("someone", {}, {}, ()).save(tmp_path / "out").is_file()


@pytest.mark.covers("F68")
@pytest.mark.parametrize("link", ["masks", "masks/organ"])
@pytest.mark.parametrize("leads", ["elsewhere", "nowhere"])
def test_nothing_is_written_through_a_linked_folder_of_answers(tmp_path: Path, link: str, leads: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    found = Prediction("someone", prediction("someone").results, {}, ())
    (tmp_path / "linked").symlink_to(tmp_path / "out")  # what was given may be one
    (tmp_path / "out").mkdir()
    found.save(tmp_path / "linked")
    shutil.rmtree(tmp_path / "out" / link)
    (tmp_path / "out" / link).symlink_to(tmp_path / leads)
    with pytest.raises(InputError, match=rf"^\[B165\] .*/linked/{link} is a link, and results would be written to"):
        found.save(tmp_path / "linked")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_boxes_are_a_private_table_the_highest_score_first(tmp_path: Path) -> None:
    box = FoundBox((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), (-10.5, 0.0, 1.0, -9.0, 2.0, 3.0), 0.25)
    for case_id, boxes in (("a/b", (box,)), ("none", ())):
        found = CasePrediction(case_id, {"nodule": BoxResult(boxes=boxes)}, {}, ())
        write_answers(found, tmp_path)
        row = prediction_row(found, "0" * 64)
        path = tmp_path / str(row["nodule_file"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        rows = read(path.read_text())
        assert len(rows) == len(boxes)
        assert row["nodule_file"] == answer_file("nodule", case_id, found["nodule"])
        assert row["nodule_boxes"] == len(boxes)
    (row_of,) = read((next((tmp_path / "boxes" / "nodule").glob("a*"))).read_text())
    assert list(row_of) == list(BOX_COLUMNS)
    assert (row_of["score"], row_of["x_min_mm"], row_of["z_max_mm"], row_of["x_min_voxel"]) == (
        "0.25",
        "-10.5",
        "3",
        "1",
    )
