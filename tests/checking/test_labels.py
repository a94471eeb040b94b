from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medmtl.errors import CohortError
from tests.checking.scans import Scans, mask
from tests.data.formats.nifti_files import LABELS, SHAPE, Hostile, hostile, moved

MASKS = [pytest.param(bad, id=bad.id, marks=pytest.mark.covers(bad.code)) for bad in hostile() if bad.label]


@pytest.mark.parametrize("bad", MASKS)
def test_each_bad_mask_is_one_finding_at_its_place(tmp_path: Path, bad: Hostile) -> None:
    scans = Scans(tmp_path, masks=True)
    file = scans.plant(bad)
    scans.write()
    before = scans.hashes()

    finding = scans.only()

    assert scans.hashes() == before
    assert (finding.code, finding.severity) == (bad.code, bad.severity)
    assert (finding.case, finding.row, finding.column, finding.file) == ("case1", 3, "organ", file)
    assert finding.found
    assert finding.fix or finding.code == "B098"


@pytest.mark.covers("B050", "B051", "B081")
@pytest.mark.parametrize("code", ["B050", "B051", "B081"])
def test_a_mask_must_be_as_whole_as_an_image(tmp_path: Path, code: str) -> None:
    scans = Scans(tmp_path, masks=True)
    bad = next(file for file in hostile() if file.code == code)

    file = scans.plant(bad._replace(label=True))

    finding = scans.only()
    assert (finding.code, finding.severity, finding.column, finding.file) == (code, "reject", "organ", file)


@pytest.mark.covers("B094")
def test_an_empty_cell_is_counted_and_another_token_refused(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    scans.rows[1]["organ"] = ""
    finding = scans.only()
    assert (finding.code, finding.severity, finding.key) == ("B094", "warn", "tasks.organ")
    assert finding.found == "1 of 4 cases not labelled"

    scans.rows[1]["organ"] = "n/a"
    finding = scans.only()
    assert (finding.severity, finding.row, finding.column, finding.found) == ("reject", 3, "organ", "n/a")


@pytest.mark.covers("B096")
def test_a_shifted_mask_is_told_in_voxels_and_millimetres(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    scans.mask(2, LABELS, moved(3.0))  # along an axis of 2 mm

    assert scans.only().found == "1.50 voxels or 3 mm apart"


@pytest.mark.covers("B096")
def test_a_mask_in_place_with_other_axes_is_not_told_to_be_apart(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    grid = moved(0.0)
    mirrored = grid @ np.array([[-1, 0, 0, LABELS.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    scans.mask(2, LABELS[::-1], mirrored)

    finding = scans.only()
    assert (finding.severity, finding.found, finding.expected) == ("reject", "array axes PSL", "ASL, as the image's")
    assert "no voxel need be resampled" in (finding.fix or "")


@pytest.mark.covers("B101")
def test_a_map_that_does_not_fit_the_cohort_is_one_finding_with_the_map_to_paste(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    for index in (0, 1, 2):
        scans.mask(index, mask(index, 2, otherwise=4))
    scans.mask(3, mask(3, 2))

    findings = [finding for finding in scans.findings() if finding.code != "B106"]

    assert [(f.code, f.severity, f.row) for f in findings] == [("B100", "reject", row) for row in (2, 3, 4)] + [
        ("B101", "reject", None)
    ]
    whole = findings[-1]
    assert (whole.case, whole.key) == (None, "tasks.organ.labels")
    assert whole.found == "3 files with values undeclared"
    assert whole.expected == "only the values 0, 1, 2, 3"
    assert "{label_1: 1, label_2: 2, label_4: 4}" in (whole.fix or "")


@pytest.mark.covers("B100", "B101")
def test_one_stray_value_is_a_fault_of_its_file_only(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    stray = LABELS.copy()
    stray[0, 0, 0] = 9
    scans.mask(2, stray)

    finding = scans.only()

    assert (finding.code, finding.severity, finding.row) == ("B100", "reject", 4)
    assert finding.found == "[0, 1, 2, 3, 9]"
    assert "tasks.organ.labels" in (finding.fix or "")


@pytest.mark.covers("B102")
def test_what_nobody_labelled_is_refused_until_it_is_declared(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    for index in range(3):
        labels = mask(index)
        labels[0, 0, 0] = 255
        scans.mask(index, labels)
    found = scans.findings()
    assert [(f.code, f.severity, f.row) for f in found] == [("B102", "reject", row) for row in (2, 3, 4)]
    assert "tasks.organ.ignore: 255" in (found[0].fix or "")

    scans.organ = scans.organ.replace("}}", "}, ignore: 255}")
    assert scans.findings() == []


@pytest.mark.covers("B105", "B107")
def test_ignored_voxels_are_neither_foreground_nor_background(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    scans.organ = scans.organ.replace("}}", "}, ignore: 9}")
    scans.mask(1, np.where(mask(1) == 0, 9, mask(1)).astype(np.uint8))
    scans.mask(2, np.full(SHAPE, 9, np.uint8))
    assert [(f.code, f.row) for f in scans.findings()] == [("B107", 3), ("B105", 4)]


@pytest.mark.covers("B106")
@pytest.mark.parametrize(("highest", "absent"), [(0, "[1, 2, 3]"), (2, "[3]")])
def test_a_value_that_no_mask_holds_is_refused(tmp_path: Path, highest: int, absent: str) -> None:
    scans = Scans(tmp_path, masks=True)
    for index in range(4):
        scans.mask(index, np.roll(np.where(highest < LABELS, 0, LABELS), index, 0).astype(np.uint8))

    (refused,) = [finding for finding in scans.findings() if finding.severity == "reject"]

    assert (refused.code, refused.key, refused.found) == ("B106", "tasks.organ", f"no case holds {absent}")


@pytest.mark.covers("B109")
@pytest.mark.parametrize("link", ["same", "hard", "soft", "copy"])
def test_the_image_in_place_of_the_mask(tmp_path: Path, link: str) -> None:
    scans = Scans(tmp_path, masks=True)
    image, organ = tmp_path / "t1_2.nii.gz", tmp_path / "organ_2.nii.gz"
    organ.unlink()
    if link == "same":
        scans.rows[2]["organ"] = image.name
    elif link == "hard":
        organ.hardlink_to(image)
    elif link == "soft":
        organ.symlink_to(image)
    else:
        shutil.copyfile(image, organ)

    finding = scans.only()

    assert (finding.code, finding.severity, finding.row, finding.column) == ("B109", "reject", 4, "organ")


@pytest.mark.covers("B109")
def test_the_mask_of_another_case_is_told_unless_both_are_empty(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    (tmp_path / "organ_3.nii.gz").write_bytes((tmp_path / "organ_1.nii.gz").read_bytes())
    finding = scans.only()
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B109", "warn", 5, "organ")
    assert (finding.found, finding.file) == ("the mask of row 3", "organ_3.nii.gz")

    for index in (1, 3):
        scans.mask(index, np.zeros(SHAPE, np.uint8))
    assert [finding.code for finding in scans.findings()] == ["B105", "B105"]

    scans.organ = scans.organ.replace("}}", "}, ignore: 9}")
    for index in (1, 3):
        scans.mask(index, np.full(SHAPE, 9, np.uint8))  # nobody labelled anything
    assert [finding.code for finding in scans.findings()] == ["B105", "B105"]


@pytest.mark.covers("B107")
def test_a_mask_of_nine_tenths_is_no_finding(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    full = np.ones(120, np.uint8)
    full[:12], full[12:40], full[40:60] = 0, 2, 3
    scans.mask(0, full.reshape(SHAPE))
    assert scans.findings() == []


def partly(scans: Scans, cells: dict[int, str]) -> None:
    """Name in a column what was annotated, per case."""
    scans.organ = scans.organ.replace("}}", "}, annotated: drawn}")
    for index, row in enumerate(scans.rows):
        row["drawn"] = cells.get(index, "")


@pytest.mark.covers("B111")
def test_voxels_of_a_label_that_nobody_looked_for_are_refused(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    partly(scans, {1: "one two", 2: "one;two", 3: "one two three"})
    scans.mask(2, mask(2, 2))
    finding = scans.only()
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B111", "reject", 3, "organ")
    assert (finding.found, finding.file) == ("voxels of three", "organ_1.nii.gz")
    assert "drawn" in (finding.expected or "") and "drawn" in (finding.fix or "")
    scans.mask(1, mask(1, 2))
    assert scans.findings() == []


@pytest.mark.covers("B112", "B116")
@pytest.mark.parametrize(("cell", "code"), [("one too", "B112"), ("none", "B116")])
def test_a_cell_that_does_not_name_labels_is_one_finding(tmp_path: Path, cell: str, code: str) -> None:
    scans = Scans(tmp_path, masks=True)
    partly(scans, {1: cell})
    finding = scans.only()
    assert (finding.code, finding.severity, finding.row, finding.column) == (code, "reject", 3, "drawn")


@pytest.mark.covers("B013")
def test_the_column_of_annotated_labels_must_be_there(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    scans.organ = scans.organ.replace("}}", "}, annotated: drawn}")
    with pytest.raises(CohortError) as caught:
        scans.findings()
    assert [(f.code, f.column) for f in caught.value.findings] == [("B013", "drawn")]


@pytest.mark.covers("B106")
def test_a_label_that_no_case_annotates_cannot_be_learned(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    partly(scans, dict.fromkeys(range(4), "one two"))
    for index in range(4):
        scans.mask(index, mask(index, 2))
    assert [(f.code, f.found) for f in scans.findings()] == [("B106", "no case holds [3]")]
