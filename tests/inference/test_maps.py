"""A map from training to files, on a cohort whose scans are stored in different orders of their axes."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medmtl import api
from medmtl.data.formats.nifti import read_image, write_map
from medmtl.data.volume import Grid
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("undrawn")

TASK = "  smooth: {kind: voxel_regression, column: smooth, mask: body, unit: grey}\n"


def with_maps(folder: Path) -> Path:
    """A synthetic cohort whose first task is its smoothed scan, inside a mask; one case has no map."""
    config = api.synth(folder, cases=12)
    table = folder / "cohort.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        scan = nib.load(folder / row["image"])  # type: ignore[attr-defined]
        array = np.asarray(scan.dataobj, np.float32)
        smooth = nib.Nifti1Image(gaussian_filter(array, 2), scan.affine)  # type: ignore[no-untyped-call]
        body = nib.Nifti1Image((array > np.median(array)).astype(np.uint8), scan.affine)  # type: ignore[no-untyped-call]
        row |= {"smooth": f"smooth_{number}.nii.gz" if number else "", "body": f"body_{number}.nii.gz"}
        smooth.to_filename(folder / f"smooth_{number}.nii.gz")
        body.to_filename(folder / row["body"])
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    config.write_text(config.read_text().replace("tasks:\n", f"tasks:\n{TASK}"))
    return config


def test_a_map_is_learned_scored_written_and_reported_again(tmp_path: Path) -> None:
    config = with_maps(tmp_path / "cohort")
    run = api.train(config, tmp_path / "run", device="cpu", overrides=TINY)
    scores = api.evaluate(run, device="cpu")["val"]
    found = scores.metrics["tasks"]["smooth"]["metrics"]
    assert list(found) == ["mae", "rmse", "psnr", "ssim"]
    assert found["mae"]["unit"] == "grey"
    case = scores.cases["smooth"][0]
    row = int(case.case_id.removeprefix("case_"))
    reference = read_image(tmp_path / "cohort" / f"smooth_{row}.nii.gz")
    inside = read_image(tmp_path / "cohort" / f"body_{row}.nii.gz").array != 0
    written = read_image(scores.folder / "maps" / "smooth" / f"{case.case_id}.nii.gz")
    assert written.grid.shape == reference.grid.shape
    np.testing.assert_array_equal(written.grid.affine, reference.grid.affine)
    error = np.abs(written.array.astype(float) - reference.array.astype(float))[inside].mean()
    assert case.scores["mae"] == pytest.approx(error, rel=1e-9)

    before = (scores.folder / "report.html").read_bytes()
    api.report(run)
    assert (scores.folder / "report.html").read_bytes() == before

    table = api.predict(run, [str(tmp_path / "cohort" / "cohort.csv")], tmp_path / "out", device="cpu")
    with table.open(newline="") as file:
        answer = list(csv.DictReader(file))[row]
    assert answer["smooth_file"] == f"maps/smooth/{case.case_id}.nii.gz"
    again = read_image(tmp_path / "out" / answer["smooth_file"])
    np.testing.assert_array_equal(again.array, written.array)
    assert float(answer["smooth_mean"]) == pytest.approx(float(written.array.mean(dtype=float)), rel=1e-4)


def test_a_written_map_is_read_back_to_the_bit(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(0, 1e3, (4, 5, 6)).astype(np.float32)
    grid = Grid((4, 5, 6), np.diag([-1.5, 2.0, 3.0, 1.0]))
    write_map(tmp_path / "m.nii.gz", array, grid)
    read = read_image(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(read.array, array)
    np.testing.assert_array_equal(read.grid.affine, grid.affine)
    with pytest.raises(ValueError, match="finite"):
        write_map(tmp_path / "n.nii.gz", np.full_like(array, np.nan), grid)
    with pytest.raises(ValueError, match="grid of shape"):
        write_map(tmp_path / "n.nii.gz", array[1:], grid)
