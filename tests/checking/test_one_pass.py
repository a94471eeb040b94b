# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from medmtl import api
from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import check_cohort
from medmtl.cli import main
from medmtl.errors import CohortError, ConfigError
from tests.checking.cohort_folder import CASES, CONFIG, SHAPE, Array, Folder, mask, save, scan

TO_FIRST = CONFIG.replace("  case: id", "  resample: to_first\n  case: id")


def test_a_sound_cohort_has_no_finding(folder: Folder) -> None:
    checked = folder.check()
    assert list(checked.findings) == []
    assert checked.truths["grade"] == {f"case{i}": ("low", "high")[i % 2] for i in range(CASES)}
    assert checked.truths["size"]["case3"] == 30.0
    assert set(checked.sha256) == {f"{c}_{i}.nii.gz" for c in ("t1", "t2", "organ") for i in range(CASES)}
    fingerprint = checked.fingerprints["case1"]
    assert fingerprint.grid.shape == SHAPE
    assert fingerprint.label_counts["organ"] == {0: 6 * 7 * 8 - 3, 1: 1, 2: 2}
    assert fingerprint.channels["t1"].minimum == pytest.approx(scan(10).min())
    checked.refuse()


def test_a_file_is_refused_where_it_stands_in_the_table(folder: Folder) -> None:
    (folder.path / "t2_1.nii.gz").write_bytes((folder.path / "t2_1.nii.gz").read_bytes()[:-20])
    finding = folder.only()
    assert finding.severity == "reject"
    assert (finding.case, finding.row, finding.column, finding.file) == ("case1", 3, "t2", "t2_1.nii.gz")


def test_a_constant_image_is_refused_unless_it_is_allowed(folder: Folder) -> None:
    save(folder.path / "t1_2.nii.gz", np.ones(SHAPE, np.float32))
    assert (folder.only().code, folder.only().row, folder.only().column) == ("B072", 4, "t1")
    folder.config = CONFIG.replace("  case: id", "  allow: [constant]\n  case: id")
    assert folder.findings() == []


@pytest.mark.parametrize(
    ("array", "shift", "code", "words"),
    [(scan(0)[:-1], 0.0, "B076", "[5, 7, 8]"), (scan(99), 0.2, "B077", "0.20 voxels")],
)
def test_channels_must_share_a_grid_unless_resampled(
    folder: Folder, array: Array, shift: float, code: str, words: str
) -> None:
    save(folder.path / "t2_0.nii.gz", array, shift)
    finding = folder.only()
    assert (finding.code, finding.severity, finding.column) == (code, "reject", "t2")
    assert words in (finding.found or "")
    folder.config = TO_FIRST
    finding = folder.findings()[0]
    assert (finding.code, finding.severity, finding.column) == (code, "fixed", "t2")
    assert words in (finding.found or "")
    assert folder.headers() == folder.findings()


@pytest.mark.covers("B077")
@pytest.mark.parametrize("config", [CONFIG, TO_FIRST], ids=["none", "to_first"])
def test_a_channel_that_is_hardly_off_is_put_on_the_first_grid_and_that_is_said(folder: Folder, config: str) -> None:
    folder.config = config
    folder.save("t2_0", scan(1), 0.05)
    finding = folder.only()
    assert (finding.code, finding.severity, finding.case, finding.column) == ("B077", "fixed", "case0", "t2")
    assert (finding.found, finding.fix) == ("corners 0.050 voxels apart", "the first image's grid is used")
    folder.save("t2_0", scan(1), 5e-4)
    assert folder.findings() == []


@pytest.mark.covers("B076", "B077")
@pytest.mark.parametrize(
    ("array", "shift", "code", "told"),
    [
        (scan(1), 1.0, "B077", ["fixed corners 1.00 voxels apart", "warn 83% of the first image covered"]),
        (scan(1)[:3], 0.0, "B076", ["fixed [3, 7, 8]", "warn 50% of the first image covered"]),
        (scan(1), 400.0, "B077", ["reject 0% of the first image covered"]),
        (scan(1)[:3], -7.0, "B076", ["reject 0% of the first image covered"]),
    ],
)
def test_a_channel_must_cover_what_it_is_brought_to(
    folder: Folder, array: Array, shift: float, code: str, told: list[str]
) -> None:
    folder.config = TO_FIRST
    folder.save("t2_0", array, shift)
    found = folder.findings()
    assert [f"{finding.severity} {finding.found}" for finding in found] == told
    assert {(finding.code, finding.case, finding.column) for finding in found} == {(code, "case0", "t2")}


def test_other_array_axes_are_no_other_place(folder: Folder) -> None:
    folder.config = TO_FIRST
    image = nib.Nifti1Image.from_filename(folder.path / "t2_0.nii.gz")
    turned = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt("LPS")))
    turned.to_filename(folder.path / "t2_0.nii.gz")
    finding = folder.only()
    assert (finding.code, finding.severity) == ("B077", "fixed")
    assert (finding.found, finding.expected) == ("axes LPS", "RAS")


@pytest.mark.parametrize(
    ("array", "shift", "code", "severity", "words"),
    [
        (mask(1, 2)[:, :-1], 0.0, "B095", "reject", "[6, 6, 8]"),
        (mask(1, 2), 0.2, "B096", "reject", "0.20 voxels"),
        (mask(1, 2), -0.05, "B096", "fixed", "0.050 voxels"),
        (mask(1, 2, 7), 0.0, "B100", "reject", "[0, 1, 2, 7]"),
        (mask(), 0.0, "B105", "warn", "no voxel"),
    ],
)
def test_each_rule_of_a_label_file(
    folder: Folder, array: Array, shift: float, code: str, severity: str, words: str
) -> None:
    save(folder.path / "organ_3.nii.gz", array, shift)
    finding = folder.only()
    assert (finding.code, finding.severity, finding.case, finding.column) == (code, severity, "case3", "organ")
    assert words in (finding.found or "")


def test_a_label_that_no_case_holds_is_one_finding_of_the_cohort(folder: Folder) -> None:
    for index in range(CASES):
        save(folder.path / f"organ_{index}.nii.gz", mask(1, place=index))
    finding = folder.only()
    assert (finding.code, finding.severity, finding.key, finding.case) == ("B106", "reject", "tasks.organ", None)
    assert finding.found == "no case holds [2]"


@pytest.mark.covers("B006", "B112", "B121")
@pytest.mark.parametrize(
    ("column", "cell", "code"), [("grade", "Low", "B112"), ("size", "1,5", "B006"), ("size", "101", "B121")]
)
def test_a_target_that_does_not_parse_is_refused_in_its_row(folder: Folder, column: str, cell: str, code: str) -> None:
    folder.rows[1][column] = cell
    finding = folder.only()
    assert (finding.code, finding.severity, finding.row, finding.column) == (code, "reject", 3, column)
    assert finding.found == cell
    assert "case1" not in folder.check().truths["grade" if column == "grade" else "size"]


@pytest.mark.covers("B094", "B116")
@pytest.mark.parametrize(("column", "key", "code"), [("organ", "tasks.organ", "B094"), ("size", "tasks.size", "B116")])
def test_missing_labels_are_counted_per_task(folder: Folder, column: str, key: str, code: str) -> None:
    folder.rows[1][column] = folder.rows[2][column] = ""
    finding = folder.only()
    assert (finding.code, finding.severity, finding.key) == (code, "warn", key)
    assert finding.found == "2 of 8 cases not labelled"


@pytest.mark.covers("B115", "B116", "B120")
@pytest.mark.parametrize(
    ("column", "cells", "code"),
    [
        ("size", [""] * CASES, "B116"),
        ("grade", ["low"] * CASES, "B115"),
        ("size", ["5"] * CASES, "B120"),
    ],
)
def test_a_task_that_cannot_be_learned_is_refused(folder: Folder, column: str, cells: list[str], code: str) -> None:
    for row, cell in zip(folder.rows, cells, strict=True):
        row[column] = cell
    finding = folder.only()
    assert (finding.code, finding.severity, finding.key) == (code, "reject", f"tasks.{column}")


@pytest.mark.covers("B117")
def test_a_row_without_any_target_is_told(folder: Folder) -> None:
    folder.rows[2] |= {"organ": "", "grade": "", "size": ""}
    told = {finding.code: finding for finding in folder.findings()}
    assert told.keys() == {"B094", "B116", "B117"}
    assert (told["B117"].severity, told["B117"].case, told["B117"].row) == ("warn", "case2", 4)


@pytest.mark.covers("B020")
def test_one_image_under_two_names_is_refused_on_the_later_row(folder: Folder) -> None:
    shutil.copy(folder.path / "t1_0.nii.gz", folder.path / "t1_3.nii.gz")
    finding = folder.only()
    assert (finding.code, finding.severity, finding.row) == ("B020", "reject", 5)
    assert finding.found == "the same image as row 2"
    folder.rows[3]["person"] = "p0"
    assert (folder.only().code, folder.only().severity) == ("B020", "warn")


def test_one_pass_finds_the_faults_of_every_row_and_stops_each_file_at_its_first(folder: Folder) -> None:
    (folder.path / "t1_0.nii.gz").write_bytes(b"")
    save(folder.path / "organ_0.nii.gz", mask(9))  # not looked at: its image is unusable
    save(folder.path / "organ_1.nii.gz", mask(9))
    folder.rows[2]["grade"] = "huge"
    folder.rows[3]["t2"] = "absent.nii.gz"
    found = {(finding.code, finding.row) for finding in folder.findings() if finding.severity == "reject"}
    assert found == {("B050", 2), ("B100", 3), ("B112", 4), ("B032", 5)}


def test_a_case_without_a_fault_has_a_fingerprint_and_no_other(folder: Folder) -> None:
    save(folder.path / "organ_1.nii.gz", mask(9))
    assert set(folder.check().fingerprints) == {f"case{i}" for i in range(CASES)} - {"case1"}


def test_refusing_names_the_codes_and_carries_every_finding(folder: Folder) -> None:
    folder.rows[0]["grade"] = folder.rows[1]["grade"] = "x"
    folder.rows[2]["size"] = ""
    with pytest.raises(CohortError, match=r"2 faults \(B112 x2\)") as caught:
        folder.check().refuse()
    assert sorted(finding.code for finding in caught.value.findings) == ["B112", "B112", "B116"]


def test_warnings_are_not_refused(folder: Folder) -> None:
    folder.rows[2]["size"] = ""
    checked = folder.check()
    assert [finding.code for finding in checked.findings] == ["B116"]
    checked.refuse()


def test_progress_is_told_for_every_case(folder: Folder) -> None:
    folder.check()
    config = configuration.load(folder.path / "config.yaml")
    told: list[tuple[str, int, int]] = []
    check_cohort(config, build_tasks(config), lambda stage, done, total, note="": told.append((stage, done, total)))
    assert told == [("check", done, CASES) for done in range(1, CASES + 1)]


@pytest.mark.covers("B113", "B116", "B118")
@pytest.mark.parametrize(
    ("column", "cell", "code"),
    [("grade", "low;high", "B118"), ("size", "1;2", "B118"), ("grade", "?", "B116"), ("size", "n/a", "B116")],
)
def test_each_kind_of_bad_cell_has_its_own_rule(folder: Folder, column: str, cell: str, code: str) -> None:
    folder.rows[1][column] = cell
    finding = folder.only()
    assert (finding.code, finding.severity, finding.row, finding.column) == (code, "reject", 3, column)
    assert (finding.found, finding.case) == (cell, "case1")
    assert finding.fix


@pytest.mark.covers("B113")
def test_one_class_in_three_spellings(folder: Folder) -> None:
    folder.config = CONFIG.replace("[low, high]", '["0", "1"]')
    for row, cell in zip(folder.rows, ("0", "1", "0", "1.0", "00", "1", "0", "1"), strict=True):
        row["grade"] = cell
    found = [(finding.code, finding.row, finding.found) for finding in folder.findings()]
    assert found == [("B113", 5, "1.0"), ("B113", 6, "00")]


@pytest.mark.covers("B121", "B122")
def test_doubtful_values_are_warned_about(folder: Folder) -> None:
    folder.config = CONFIG.replace(", range: [0, 100]", "")
    folder.rows[1]["size"] = folder.rows[2]["size"] = "-1"
    folder.rows[7]["size"] = "9000"
    sentinel, outlier = folder.findings()
    assert (sentinel.code, sentinel.severity, sentinel.case, sentinel.key) == ("B121", "warn", None, "tasks.size")
    assert (sentinel.column, sentinel.found) == ("size", "-1 in 2 rows, an extreme")
    assert (outlier.code, outlier.severity, outlier.case, outlier.row) == ("B122", "warn", "case7", 9)
    assert (outlier.column, str(outlier.found).split(",")[0]) == ("size", "9000")


def test_a_row_without_its_image_still_has_its_cells_checked(folder: Folder) -> None:
    folder.rows[2] |= {"t1": "absent.nii.gz", "grade": "huge", "size": "x"}
    found = [(finding.code, finding.row) for finding in folder.findings()]
    assert found == [("B032", 4), ("B112", 4), ("B119", 4)]


def test_what_a_refused_cell_may_explain_is_not_told(folder: Folder) -> None:
    for row in folder.rows:
        row |= {"organ": "", "size": ""}
    folder.rows[0] |= {"grade": "Low", "size": "x"}
    for row in folder.rows[1:]:
        row["grade"] = "high"
    rejected = {(finding.code, finding.row) for finding in folder.findings() if finding.severity == "reject"}
    assert rejected == {("B112", 2), ("B119", 2), ("B116", None)}
    told = [(finding.code, finding.case) for finding in folder.findings()]
    assert ("B117", "case0") not in told


@pytest.mark.covers("B106")
def test_a_label_that_a_refused_file_may_hold_is_not_missed(folder: Folder) -> None:
    for index in range(CASES):
        folder.save(f"organ_{index}", mask(1, place=index))
    folder.save("organ_0", mask(2), shift=3.0)
    assert [(finding.code, finding.row) for finding in folder.findings()] == [("B096", 2)]


@pytest.mark.covers("B106")
def test_a_label_that_no_training_case_holds(folder: Folder) -> None:
    folder.config = CONFIG.replace("{folds: 2}", "{column: part}")
    for index, row in enumerate(folder.rows):
        row["part"] = "train" if index < 4 else "val"
        folder.save(f"organ_{index}", mask(1, place=index) if index < 4 else mask(1, 2, place=index))
    finding = folder.only()
    assert (finding.code, finding.severity, finding.key) == ("B106", "reject", "tasks.organ")
    assert finding.found == "train 0 lacks [2]"


@pytest.mark.covers("B022")
def test_a_cohort_without_a_patient_column_is_refused(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.config = CONFIG.replace("  patient: person\n", "")
    with pytest.raises(ConfigError) as caught:
        folder.write()
    assert caught.value.key == "cohort.patient"
    assert main(["check", str(folder.path / "config.yaml")]) == 2
    assert "cohort.patient" in capsys.readouterr().err
    folder.config = CONFIG.replace("patient: person", "patient: id")
    finding = next(finding for finding in folder.findings() if finding.code == "B022")
    assert (finding.severity, finding.column) == ("warn", "id")


def test_the_command_has_the_exit_code_of_its_findings(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write()
    words = ["check", str(folder.path / "config.yaml"), "--quiet"]
    assert main([*words, "--strict"]) == 0
    folder.rows[2]["size"] = ""
    folder.write()
    assert main(words) == 0
    assert main([*words, "--strict"]) == 0  # a missing label is no fault
    assert "B116 warn: 1" in capsys.readouterr().out
    for row in folder.rows:
        row["notes"] = "1"
    folder.write()
    assert main(words) == 0
    assert main([*words, "--strict"]) == 2
    assert "B014 warn: 1" in capsys.readouterr().out
    for row in folder.rows:
        del row["notes"]
    folder.rows[2]["size"] = "2,5"
    folder.write()
    assert main(words) == 2
    said = capsys.readouterr().out
    assert "B006 reject: 1\n  row 4, case case2, column size: found 2,5; expected a number such as" in said
    assert said.splitlines()[-1] == "1 rejected, 0 warned about, 0 repaired: not fit for training"


def test_training_with_a_fault_starts_nothing(folder: Folder) -> None:
    folder.rows[2]["size"] = "2,5"
    folder.write()
    run = folder.path / "run"
    with pytest.raises(CohortError, match=r"^the check found 1 fault \(B006 x1\)"):
        api.train(folder.path / "config.yaml", run, device="cpu")
    assert not run.exists()
