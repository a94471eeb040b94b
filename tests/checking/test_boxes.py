from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import Checked, check_cohort
from tests.checking.scans import Scans
from tests.data.formats.nifti_files import AFFINE, SHAPE, content_of, moved, saved

NODULES = "  nodules: {kind: detection, column: nodules}\n"


class Nodules(Scans):
    """Four cases with two lesions each."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, masks=True)
        self.organ = NODULES
        for index, row in enumerate(self.rows):
            del row["organ"]
            row["nodules"] = f"nodules_{index}.nii.gz"
            self.nodules(index, lesions(index))

    def nodules(self, index: int, array: npt.NDArray[Any], affine: npt.NDArray[np.float64] = AFFINE) -> None:
        saved(self.folder, content_of(array, affine), f"nodules_{index}.nii.gz")

    def checked(self) -> Checked:
        config = configuration.load(self.write())
        return check_cohort(config, build_tasks(config))


def lesions(index: int) -> npt.NDArray[np.int16]:
    array = np.zeros(SHAPE, np.int16)
    array[0:2, 1:4, index : index + 1] = 1
    array[3, 4, 2:6] = 300 + index  # values need not follow each other, nor be those of other cases
    return array


def test_a_sound_cohort_has_no_finding_and_sizes_are_right_front_head_in_mm(tmp_path: Path) -> None:
    checked = Nodules(tmp_path).checked()
    assert list(checked.findings) == []
    # the array's axes lead to the front (0.8 mm), to the head (1.25 mm) and to the left (2 mm)
    np.testing.assert_allclose(checked.learnable("nodules")["case1"], [[2, 1.6, 3.75], [8, 0.8, 1.25]])
    assert checked.learnable("size")["case1"] == 1.0
    assert checked.fingerprints["case1"].label_counts["nodules"].keys() == {0, 1, 301}


@pytest.mark.covers("B095", "B097", "B105", "B109")
def test_each_bad_mask_is_one_finding_at_its_place(tmp_path: Path) -> None:
    nodules = Nodules(tmp_path)
    nodules.nodules(0, lesions(0)[1:])
    nodules.nodules(1, np.where(lesions(1) == 1, -1, 0).astype(np.int16))
    nodules.nodules(2, np.zeros(SHAPE, np.uint8))
    nodules.rows[3]["nodules"] = nodules.rows[3]["t1"]
    found = [(f.code, f.severity, f.row, f.column) for f in nodules.findings()]
    assert found == [
        ("B095", "reject", 2, "nodules"),
        ("B097", "reject", 3, "nodules"),
        ("B105", "warn", 4, "nodules"),
        ("B109", "reject", 5, "nodules"),
    ]


@pytest.mark.covers("B096", "B107")
def test_a_mask_elsewhere_and_one_of_nearly_everything(tmp_path: Path) -> None:
    nodules = Nodules(tmp_path)
    nodules.nodules(0, lesions(0), moved(3.0))
    nodules.nodules(1, np.ones(SHAPE, np.uint8))
    assert [(f.code, f.severity, f.row) for f in nodules.findings()] == [("B096", "reject", 2), ("B107", "warn", 3)]


@pytest.mark.covers("B106")
def test_a_cohort_without_a_lesion_in_a_training_part_is_refused_once(tmp_path: Path) -> None:
    nodules = Nodules(tmp_path)
    for index in range(3):
        nodules.nodules(index, np.zeros(SHAPE, np.uint8))
    refused = [f for f in nodules.findings() if f.severity == "reject"]
    assert [(f.code, f.key, f.column) for f in refused] == [("B106", "tasks.nodules", "nodules")]


@pytest.mark.covers("B109")
def test_the_mask_of_another_case_is_told(tmp_path: Path) -> None:
    nodules = Nodules(tmp_path)
    nodules.rows[1]["nodules"] = nodules.rows[0]["nodules"]
    assert [(f.code, f.severity, f.row) for f in nodules.findings()] == [("B109", "warn", 3)]


@pytest.mark.covers("B110")
def test_a_lesion_that_is_lost_by_resampling_is_told(tmp_path: Path) -> None:
    nodules = Nodules(tmp_path)
    nodules.plan += "  spacing: [4, 1.6, 2.5]\n"
    array = lesions(1)
    array[1, 0, 5] = 7
    nodules.nodules(1, array)
    assert [(f.code, f.row) for f in nodules.findings() if f.code == "B110" and "7" in str(f.found)] == [("B110", 3)]


@pytest.mark.covers("B110")
def test_lesions_of_one_value_that_resampling_loses_or_joins_are_told(tmp_path: Path) -> None:
    nodules = Nodules(tmp_path)
    nodules.organ = NODULES.replace("}", ", components: true}")
    assert nodules.findings() == []
    array = (lesions(1) > 0).astype(np.uint8)
    array[1, 0, 5] = 1  # a third lesion, of one voxel
    nodules.nodules(1, array)
    assert nodules.findings() == []
    nodules.plan += "  spacing: [4, 1.6, 2.5]\n"
    found = {f.row: f.found for f in nodules.findings() if f.code == "B110"}
    assert found[3] == "3 lesions, 1 once resampled"


@pytest.mark.covers("B108")
def test_one_value_in_several_parts_is_doubted_unless_parts_are_lesions(tmp_path: Path) -> None:
    nodules = Nodules(tmp_path)
    nodules.nodules(1, (lesions(1) > 0).astype(np.uint8))
    one_part = np.zeros(SHAPE, np.uint8)
    one_part[1:3, 1:3, 1:3] = 9
    nodules.nodules(2, one_part)
    finding = nodules.only()
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B108", "warn", 3, "nodules")
    assert finding.found == "one value in 2 parts"
    assert finding.fix == "kept as one lesion; set tasks.nodules.components: true if each part is one"
    nodules.organ = NODULES.replace("}", ", components: true}")
    assert nodules.findings() == []
