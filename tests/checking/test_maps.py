from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import check_cohort, check_headers
from tests.checking.scans import Scans
from tests.data.formats.nifti_files import AFFINE, SHAPE, content_of, moved, saved

DOSE = "  dose: {kind: voxel_regression, column: dose, mask: body, range: [0, 80]}\n"


class Maps(Scans):
    """Four cases with a map and its mask, which leaves out the first plane."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, masks=True)
        self.organ = DOSE
        for index, row in enumerate(self.rows):
            del row["organ"]
            row |= {"dose": f"dose_{index}.nii.gz", "body": f"body_{index}.nii.gz"}
            self.dose(index, values(index))
            body = np.ones(SHAPE, np.uint8)
            body[0] = 0
            self.body(index, body)

    def dose(self, index: int, array: npt.NDArray[Any], affine: npt.NDArray[np.float64] = AFFINE) -> None:
        saved(self.folder, content_of(array, affine), f"dose_{index}.nii.gz")

    def body(self, index: int, array: npt.NDArray[Any], affine: npt.NDArray[np.float64] = AFFINE) -> None:
        saved(self.folder, content_of(array, affine), f"body_{index}.nii.gz")


def values(index: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(index).uniform(0, 80, SHAPE).astype(np.float32)


def test_a_sound_cohort_has_no_finding_and_its_quantiles_are_those_inside_the_mask(tmp_path: Path) -> None:
    maps = Maps(tmp_path)
    first = values(1)
    first[0] = 500.0  # outside of the mask, where no rule holds
    maps.dose(1, first)
    config = configuration.load(maps.write())
    checked = check_cohort(config, build_tasks(config))
    assert list(checked.findings) == []
    found = checked.learnable("dose")["case1"]
    np.testing.assert_allclose(found, np.quantile(first[1:].astype(np.float64), np.linspace(0, 1, 101)), rtol=1e-6)
    assert checked.learnable("size")["case1"] == 1.0


@pytest.mark.parametrize(
    ("code", "value"),
    [
        pytest.param("B070", np.nan, marks=pytest.mark.covers("B070")),
        pytest.param("B071", np.inf, marks=pytest.mark.covers("B071")),
        pytest.param("B121", 80.5, marks=pytest.mark.covers("B121")),
    ],
)
def test_a_bad_value_is_one_finding_at_its_place(tmp_path: Path, code: str, value: float) -> None:
    maps = Maps(tmp_path)
    broken = values(1)
    broken[2, 1, 0] = value
    maps.dose(1, broken)
    finding = maps.only()
    assert (finding.code, finding.severity, finding.case, finding.row) == (code, "reject", "case1", 3)
    assert (finding.column, finding.file) == ("dose", "dose_1.nii.gz")


@pytest.mark.covers("B095", "B096")
def test_a_map_and_its_mask_lie_on_the_images_grid(tmp_path: Path) -> None:
    maps = Maps(tmp_path)
    maps.dose(0, values(0)[1:])
    maps.dose(1, values(1), moved(3.0))
    maps.body(2, np.ones(SHAPE, np.uint8), moved(3.0))
    found = [(f.code, f.severity, f.row, f.column) for f in maps.findings()]
    assert found == [("B095", "reject", 2, "dose"), ("B096", "reject", 3, "dose"), ("B096", "reject", 4, "body")]


@pytest.mark.covers("B095", "B096")
def test_headers_tell_where_a_map_and_its_mask_lie(tmp_path: Path) -> None:
    maps = Maps(tmp_path)
    maps.dose(0, values(0)[1:])
    maps.body(1, np.ones(SHAPE, np.uint8)[1:])
    maps.body(2, np.ones(SHAPE, np.uint8), moved(3.0))
    maps.body(3, np.ones(SHAPE, np.uint8), moved(3.0))
    maps.rows[3]["dose"] = ""  # where nothing is asked of the mask but to be one
    config = configuration.load(maps.write())
    found = [(f.code, f.row, f.column) for f in check_headers(config, build_tasks(config)).findings]
    assert found == [("B094", None, None), ("B095", 2, "dose"), ("B095", 3, "body"), ("B096", 4, "body")]


@pytest.mark.covers("B094", "B105", "B109")
def test_masks_that_are_missing_or_empty_and_the_image_in_place_of_the_map(tmp_path: Path) -> None:
    maps = Maps(tmp_path)
    maps.rows[0]["body"] = ""
    maps.body(1, np.zeros(SHAPE, np.uint8))
    maps.rows[2]["dose"] = maps.rows[2]["t1"]
    found = {(f.code, f.severity, f.row, f.column) for f in maps.findings()}
    assert found == {
        ("B094", "reject", 2, "body"),
        ("B105", "warn", 3, "body"),
        ("B109", "reject", 4, "dose"),
    }


@pytest.mark.covers("B109")
def test_the_map_of_another_case_is_told(tmp_path: Path) -> None:
    maps = Maps(tmp_path)
    (tmp_path / "dose_2.nii.gz").write_bytes((tmp_path / "dose_0.nii.gz").read_bytes())
    finding = maps.only()
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B109", "warn", 4, "dose")
    assert (finding.found, finding.expected) == ("the map of row 2", "a map of its own")

    for index in (0, 2):
        maps.dose(index, np.zeros(SHAPE, np.float32))  # no dose to either
    assert maps.findings() == []


@pytest.mark.covers("B094")
def test_a_case_without_a_map_is_not_labelled_whatever_its_mask(tmp_path: Path) -> None:
    maps = Maps(tmp_path)
    maps.rows[1]["dose"] = ""
    assert [(f.code, f.severity, f.key) for f in maps.findings()] == [("B094", "warn", "tasks.dose")]


@pytest.mark.covers("B120")
def test_maps_of_one_value_are_refused(tmp_path: Path) -> None:
    maps = Maps(tmp_path)
    for index in range(4):
        maps.dose(index, np.full(SHAPE, 7.0, np.float32))
    refused = [f for f in maps.findings() if f.severity == "reject"]
    assert [(f.code, f.key, f.column) for f in refused] == [("B120", "tasks.dose", "dose")]


def test_a_mask_that_the_table_cannot_find_is_one_finding(tmp_path: Path) -> None:
    maps = Maps(tmp_path)
    maps.rows[1]["body"] = "nowhere.nii.gz"
    assert [(f.code, f.row, f.column) for f in maps.findings()] == [("B032", 3, "body")]
