"""References that are read again: none but the file that was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmtl.data.case import Case
from medmtl.data.formats.nifti import write_map, write_mask
from medmtl.data.volume import Grid
from medmtl.errors import CohortError, InputError
from medmtl.evaluation.boxes import scored_boxes
from medmtl.evaluation.scored_case import _read_map
from medmtl.files import sha256_file
from medmtl.tasks.base import ScoredCase
from medmtl.tasks.box_task import BoxResult
from medmtl.tasks.detection import Detection, DetectionOptions
from medmtl.tasks.voxel_regression import VoxelRegression, VoxelRegressionOptions

GRID = Grid((4, 5, 6), np.diag([2.0, 1.0, 1.0, 1.0]))
BODY = np.arange(120).reshape(GRID.shape) % 2


def made(folder: Path, **sha256: str) -> Case:
    """A case of a map and of a mask, which holds every second voxel."""
    files = {"dose": folder / "dose.nii.gz", "body": folder / "body.nii.gz"}
    write_map(files["dose"], np.arange(120, dtype=np.float32).reshape(GRID.shape), GRID)
    write_mask(files["body"], BODY.astype(np.uint8), GRID)
    known = {files[name]: sha256.get(name, sha256_file(file)) for name, file in files.items()}
    return Case("c", "p", None, 2, {"t1": files["body"]}, files=files, sha256=known)


def dose() -> VoxelRegression:
    options: dict[str, Any] = {"kind": "voxel_regression", "column": "dose", "mask": "body"}
    return VoxelRegression("dose", VoxelRegressionOptions(**options))


def test_values_of_a_map_count_inside_its_mask(tmp_path: Path) -> None:
    values = _read_map(dose(), made(tmp_path)).array
    np.testing.assert_array_equal(np.isnan(values), BODY == 0)
    assert np.nanmax(values) == 119


def test_a_mask_of_a_map_that_changed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[B093\] .*body\.nii\.gz is not the file that was checked"):
        _read_map(dose(), made(tmp_path, body="0" * 64))


def test_a_mask_of_another_shape_than_its_map_is_refused(tmp_path: Path) -> None:
    case = made(tmp_path)
    write_mask(case.files["body"], np.ones((4, 5, 5), np.uint8), Grid((4, 5, 5), GRID.affine))
    with pytest.raises(CohortError, match=r"^case 'c': the mask of body no longer has the shape of its map"):
        _read_map(dose(), Case("c", "p", None, 2, {}, files=case.files))


@pytest.mark.parametrize("changed", [False, True])
def test_lesions_are_those_of_the_label_file_that_was_checked(tmp_path: Path, changed: bool) -> None:
    case = made(tmp_path, **({"body": "0" * 64} if changed else {}))
    task = Detection("nodule", DetectionOptions(kind="detection", column="body"))
    entry = ScoredCase("c", "p", None, 0, case.files["body"], BoxResult())
    if changed:
        with pytest.raises(InputError, match=r"\[B093\] .*body\.nii\.gz is not the file that was checked"):
            scored_boxes(entry, task, task, case)
    else:
        assert scored_boxes(entry, task, task, case).truth == ((0, 0, 1, 4, 5, 6),)
