"""One image under two names."""

# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import gzip
import shutil

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from tests.checking.cohort_folder import CONFIG, SHAPE, Folder

COLUMN = CONFIG.replace("{folds: 2}", "{column: part}")
SHARED = CONFIG.replace("  case: id", "  allow: [shared-image]\n  case: id")


@pytest.mark.covers("B020")
def test_equal_voxels_in_different_bytes_are_one_image(folder: Folder) -> None:
    whole = gzip.decompress((folder.path / "t1_0.nii.gz").read_bytes())
    (folder.path / "t1_3.nii.gz").write_bytes(gzip.compress(whole, 9, mtime=1))
    finding = folder.only()
    assert (finding.code, finding.severity, finding.case, finding.row) == ("B020", "reject", "case3", 5)
    assert (finding.column, finding.file, finding.found) == ("t1", "t1_3.nii.gz", "the same image as row 2")
    folder.rows[3]["person"] = "p0"
    assert (folder.only().code, folder.only().severity) == ("B020", "warn")


@pytest.mark.covers("B020")
@pytest.mark.parametrize("code", ["LPS", "ARS", "SPL"])
def test_a_reoriented_copy_is_the_same_image(folder: Folder, code: str) -> None:
    image = nib.Nifti1Image.from_filename(folder.path / "t1_0.nii.gz")
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(code))
    for name in ("t1_3", "t2_3"):
        source = image if name == "t1_3" else nib.Nifti1Image.from_filename(folder.path / "t2_3.nii.gz")
        turned = source.as_reoriented(turn)
        assert turned.shape != SHAPE or code == "LPS"
        turned.to_filename(folder.path / f"{name}.nii.gz")
    folder.rows[3]["organ"] = ""
    (finding,) = [found for found in folder.findings() if found.severity == "reject"]
    assert (finding.code, finding.row, finding.found) == ("B020", 5, "the same image as row 2")


@pytest.mark.covers("B020")
@pytest.mark.parametrize(("part", "severity"), [("train", "warn"), ("val", "reject")])
def test_parts_that_the_user_chose_decide(folder: Folder, part: str, severity: str) -> None:
    folder.config = COLUMN
    for index, row in enumerate(folder.rows):
        row["part"] = "train" if index < 4 else "val"
    twin = 3 if part == "train" else 7
    shutil.copy(folder.path / "t1_0.nii.gz", folder.path / f"t1_{twin}.nii.gz")
    assert (folder.only().code, folder.only().severity, folder.only().row) == ("B020", severity, twin + 2)


@pytest.mark.covers("B019")
def test_one_file_in_two_rows_is_the_tables_rule(folder: Folder) -> None:
    folder.rows[3]["t1"] = folder.rows[0]["t1"]
    assert (folder.only().code, folder.only().severity, folder.only().row) == ("B019", "reject", 5)
    folder.config = SHARED
    folder.rows[3]["person"] = "p0"
    assert folder.findings() == []


@pytest.mark.covers("B020")
def test_one_file_is_never_the_image_of_two_patients(folder: Folder) -> None:
    folder.config = SHARED
    folder.rows[3]["t1"] = folder.rows[0]["t1"]
    finding = folder.only()
    assert (finding.code, finding.severity, finding.row, finding.found) == (
        "B020",
        "reject",
        5,
        "the same image as row 2",
    )
    assert finding.fix == "remove one row, or give both the same patient"
    folder.config = SHARED.replace("{folds: 2}", "{column: part}")
    for index, row in enumerate(folder.rows):
        row["part"] = "train" if index < 4 else "val"
    assert (folder.only().code, folder.only().severity) == ("B020", "warn")


def test_constant_images_are_not_called_one(folder: Folder) -> None:
    folder.config = CONFIG.replace("  case: id", "  allow: [constant]\n  case: id")
    for index in (0, 1):
        folder.save(f"t2_{index}", np.ones(SHAPE, np.float32))
    assert folder.findings() == []


@pytest.mark.covers("B020")
def test_one_image_is_not_two_channels_of_a_case(folder: Folder) -> None:
    folder.rows[3]["t2"] = folder.rows[3]["t1"]
    finding = folder.only()
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B020", "reject", 5, "t2")
    assert finding.found == "the image of another channel"
    folder.rows[3]["t2"] = "t2_3.nii.gz"
    shutil.copy(folder.path / "t1_3.nii.gz", folder.path / "t2_3.nii.gz")
    finding = folder.only()
    assert (finding.code, finding.severity, finding.row, finding.file) == ("B020", "reject", 5, "t2_3.nii.gz")
    assert finding.found == "the same image as channel t1"
