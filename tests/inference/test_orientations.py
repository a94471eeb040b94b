"""One case written in every axis order and sign gives one mask in the patient, whoever reads it."""

# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
import torch
from nibabel import orientations
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

import medmtl
from medmtl.data.formats.nifti import read_image
from medmtl.data.volume import Volume
from medmtl.inference.write import write_answers
from medmtl.tasks.segmentation import Segmentation

Points = npt.NDArray[np.float64]

TOLERANCE_MM = 0.01
SHARE = 0.05  # of the voxels that the reference's mask holds
EVERY = [
    [[axis, sign] for axis, sign in zip(axes, signs, strict=True)]
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.fixture(scope="module")
def scan(tiny_cohort: Path) -> nib.Nifti1Image:
    """A case that is oblique, and of other voxels than the training's, so that it is resampled."""
    volume = read_image(tiny_cohort.parent / "images" / "case_003.nii.gz")
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [8, -5, 11], degrees=True).as_matrix()
    affine = turn @ np.array([[1.1, 0, 0, -20], [0, 0.9, 0, 31], [0, 0, 1.75, -12], [0, 0, 0, 1.0]])
    return nib.Nifti1Image(np.asarray(volume.array), affine)


def written(scan: nib.Nifti1Image, order: list[list[int]], path: Path) -> nib.Nifti1Image:
    """The same voxels in the same places, stored in another order of the axes; as it was written."""
    transform = np.array(order)
    array = orientations.apply_orientation(np.asarray(scan.dataobj), transform)
    affine = scan.affine @ orientations.inv_ornt_aff(transform, scan.shape)
    image = nib.Nifti1Image(np.ascontiguousarray(array), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nib.save(image, path)
    return image


def seen_by_nibabel(path: Path) -> Points:
    """Foreground voxels in RAS millimetres, sorted by nothing."""
    mask = nib.Nifti1Image.from_filename(path)
    places: Points = np.argwhere(np.asarray(mask.dataobj)) @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    return places


def seen_by_simpleitk(path: Path) -> Points:
    """The same from another reader, whose millimetres are LPS."""
    mask = SimpleITK.ReadImage(str(path))
    index = np.argwhere(SimpleITK.GetArrayFromImage(mask))[:, ::-1]
    axes = np.array(mask.GetDirection()).reshape(3, 3) * np.array(mask.GetSpacing())
    places: Points = (index @ axes.T + np.array(mask.GetOrigin())) * [-1, -1, 1]
    return places


def assert_same_places(found: Points, expected: Points) -> None:
    assert len(found) == len(expected)
    for one, other in ((found, expected), (expected, found)):
        distance, _ = cKDTree(one).query(other)
        assert np.max(distance) < TOLERANCE_MM


def decide_above(threshold: float) -> Callable[[Segmentation, torch.Tensor], torch.Tensor]:
    return lambda task, probability_KDHW: (probability_KDHW[1] > threshold).to(torch.uint8)


def clear_threshold(model: medmtl.Model, path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """A probability that few voxels reach, in the widest gap near there, so that rounding decides no voxel."""
    seen: list[torch.Tensor] = []

    def record(task: Segmentation, probability_KDHW: torch.Tensor) -> torch.Tensor:
        seen.append(probability_KDHW[1].flatten().clone())
        return torch.zeros(probability_KDHW.shape[1:], dtype=torch.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(Segmentation, "decide", record)
        model.predict({"image": path})
    values = torch.cat(seen).sort().values.numpy().astype(np.float64)
    first = int(len(values) * (1 - SHARE))
    window = values[first : first + 300]
    gap = int(np.argmax(np.diff(window)))
    return float(window[gap : gap + 2].mean())


@pytest.mark.covers("P16")
def test_every_orientation_gives_one_mask_in_the_patient(
    scan: nib.Nifti1Image, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, model = tmp_path, medmtl.load(trained_run, device="cpu")
    written(scan, EVERY[0], out / "reference.nii.gz")
    threshold = clear_threshold(model, out / "reference.nii.gz", monkeypatch)
    monkeypatch.setattr(Segmentation, "decide", decide_above(threshold))
    write_answers(model.predict({"image": out / "reference.nii.gz"}, case_id="reference"), out)
    expected = seen_by_nibabel(out / "masks" / "lesion" / "reference.nii.gz")
    assert len({str(order) for order in EVERY}) == 48
    assert 100 < len(expected) < 2 * SHARE * np.prod(scan.shape)
    for number, order in enumerate(EVERY):
        image = written(scan, order, out / "image.nii.gz")
        prediction = model.predict({"image": out / "image.nii.gz"}, case_id=f"order_{number}")
        write_answers(prediction, out)
        path = out / "masks" / "lesion" / f"order_{number}.nii.gz"
        assert_same_places(seen_by_nibabel(path), expected)
        assert_same_places(seen_by_simpleitk(path), expected)
        saved = nib.Nifti1Image.from_filename(path)
        assert saved.shape == image.shape
        np.testing.assert_allclose(saved.affine, image.affine, atol=1e-4)
        mask = prediction["lesion"].mask
        assert isinstance(mask, Volume)
        np.testing.assert_array_equal(mask.array, np.asarray(saved.dataobj))
