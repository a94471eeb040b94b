from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmtl.checking import labels
from medmtl.data.geometry import canonical
from medmtl.data.preparation import to_grid, working_grid
from medmtl.data.volume import Grid, Volume
from tests.checking.scans import Scans, mask, scan
from tests.data.formats.nifti_files import AFFINE, LABELS, SHAPE, VOXELS, content_of, saved

SECRET = "DOE^JANE"


@pytest.mark.covers("B085", "B086")
def test_mixed_orientations_are_accepted_and_counted(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    turned = AFFINE @ np.diag([1, -1, 1, 1.0])
    turned[:3, 3] = AFFINE[:3, 3] + 4 * AFFINE[:3, 1]
    for index in (1, 2):
        scans.image(index, scan(index)[:, ::-1], turned)
        scans.mask(index, mask(index)[:, ::-1], turned)
    scans.image(3, scan(3), np.eye(4))
    scans.mask(3, mask(3), np.eye(4))

    finding = scans.only()

    assert (finding.code, finding.severity, finding.case) == ("B086", "fixed", None)
    assert finding.found == "AIL 2, ASL 1, RAS 1"


@pytest.mark.covers("B087")
@pytest.mark.parametrize(
    ("array", "scale", "found"),
    [
        (VOXELS, (1, 5.5, 1), "z axis spacing 6.875"),
        (np.tile(VOXELS, (4, 1, 1)), (0.19, 1, 1), "y axis spacing 0.152"),
        (np.tile(VOXELS, (1, 1, 6)), (1, 1, 1), "x axis size 36"),
        (VOXELS, (1, 4.9, 1), None),
    ],
)
def test_an_outlier_of_spacing_or_size_is_told_by_its_axis(
    tmp_path: Path, array: Any, scale: tuple[float, ...], found: str | None
) -> None:
    scans = Scans(tmp_path)
    scans.image(2, array, AFFINE @ np.diag([*scale, 1.0]))
    if found is None:
        assert scans.findings() == []
        return
    finding = scans.only()
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B087", "warn", 4, "t1")
    assert finding.found == found


@pytest.mark.covers("B088")
def test_a_scan_smaller_than_the_patch_is_padded_and_told(tmp_path: Path) -> None:
    scans = Scans(tmp_path)
    scans.plan += "  shape: [4, 4, 4]\n"
    scans.image(1, np.tile(VOXELS, (1, 1, 2))[:3])  # 3 voxels along the y axis
    finding = scans.only()
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B088", "fixed", 3, "t1")
    assert finding.found == "[12, 3, 5] at working spacing"
    assert "padded with 0" in (finding.fix or "")


@pytest.mark.covers("B088")
def test_a_scan_of_one_plane_at_working_spacing_is_refused(tmp_path: Path) -> None:
    scans = Scans(tmp_path)
    scans.plan += "  spacing: [2, 3, 1.25]\n"  # the y axis has 4 voxels of 0.8 mm
    findings = scans.findings()
    assert [(f.code, f.severity, f.row) for f in findings] == [("B088", "reject", row) for row in range(2, 6)]
    assert findings[0].found == "[6, 1, 5] at working spacing"


@pytest.mark.covers("B090")
@pytest.mark.parametrize("declared", [True, False])
def test_ct_without_a_negative_value_is_told(tmp_path: Path, declared: bool) -> None:
    scans = Scans(tmp_path)
    scans.plan = "  normalisation: {t1: ct}\n" if declared else "  memory_gb: 8\n"
    scans.image(2, VOXELS // 8)  # down to -113: no air in it, and in Hounsfield units all the same
    assert scans.findings() == []
    scans.image(2, (VOXELS + 900) // 8)

    finding = scans.only()

    assert (finding.code, finding.severity, finding.row, finding.column) == ("B090", "warn", 4, "t1")
    assert (finding.found or "").startswith("values 0 to 2")


@pytest.mark.covers("B090")
def test_other_modalities_may_be_positive(tmp_path: Path) -> None:
    scans = Scans(tmp_path)
    scans.image(2, VOXELS + 900)
    assert scans.findings() == []
    scans.plan = "  memory_gb: 8\n"
    for index in range(4):
        scans.image(index, np.roll(VOXELS + 900, index, 0))
    assert scans.findings() == []


@pytest.mark.covers("B091")
@pytest.mark.parametrize("field", ["descrip", "db_name", "aux_file", "intent_name", "extension"])
def test_header_text_is_counted_and_never_shown(tmp_path: Path, field: str) -> None:
    scans = Scans(tmp_path)
    content = content_of(VOXELS[::-1])
    if field == "extension":
        text = SECRET.encode().ljust(24, b"\0")
        content = content[:108] + np.array(352 + 32, "<f4").tobytes() + content[112:348]
        content += b"\x01\0\0\0" + np.array([32, 6], "<i4").tobytes() + text + content_of(VOXELS[::-1])[352:]
    else:

        def edit(header: Any) -> None:
            header[field] = SECRET

        content = content_of(VOXELS[::-1], edit=edit)
    saved(tmp_path, content, "t1_2.nii.gz")

    finding = scans.only()

    assert (finding.code, finding.severity, finding.case) == ("B091", "warn", None)
    assert finding.found == "free text in 1 of 4 headers"
    assert SECRET not in str(finding.to_json())


@pytest.mark.covers("B110")
def test_a_value_that_resampling_loses_is_told_case_by_case(tmp_path: Path) -> None:
    scans = Scans(tmp_path, masks=True)
    scans.plan += "  spacing: [6, 0.8, 1.25]\n"  # the file's last axis runs along x in steps of 2 mm
    plane = mask(2, 2)
    plane[:, :, 0] = 3  # 20 voxels in a plane that no working voxel is nearest to
    scans.mask(2, plane)

    told = [finding for finding in scans.findings() if finding.code == "B110"]

    assert [(f.severity, f.row, f.column, f.found) for f in told] == [("warn", 4, "organ", "[3] lost by resampling")]
    assert told[0].expected == "a voxel of each at 6 x 0.8 x 1.25 mm"


@pytest.mark.covers("B110")
@pytest.mark.parametrize("places", [1, 64])
def test_lost_values_are_those_that_the_preparation_loses(
    tmp_path: Path, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "PLACES", places)
    rng = np.random.default_rng(3)
    scans = Scans(tmp_path, masks=True)
    masks = []
    for index in range(4):
        labels_of_case = (LABELS > 1).astype(np.uint8)
        labels_of_case[tuple(rng.integers(0, SHAPE))] = 2
        labels_of_case[tuple(rng.integers(0, SHAPE))] = 3
        masks.append(labels_of_case)
        scans.mask(index, labels_of_case)
    scans.plan += "  spacing: [3.1, 1.5, 1.9]\n"

    told = {f.row: f.found for f in scans.findings() if f.code == "B110"}

    expected = {}
    for index, labels_of_case in enumerate(masks):
        volume = canonical(Volume(labels_of_case, Grid(SHAPE, AFFINE)))
        kept = np.unique(to_grid(volume, working_grid(volume.grid, (3.1, 1.5, 1.9)), "nearest"))
        if lost := sorted(set(np.unique(labels_of_case).tolist()) - set(kept.tolist())):
            expected[index + 2] = f"{lost} lost by resampling"
    assert expected
    assert told == expected
