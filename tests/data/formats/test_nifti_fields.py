# mypy: disable-error-code=no-untyped-call
from __future__ import annotations

import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from medmtl.data.formats.nifti import read_header, read_image, read_label, write_mask
from medmtl.data.volume import Grid
from medmtl.tasks.segmentation import Segmentation, SegmentationOptions
from tests.data.formats.nifti_files import (
    AFFINE,
    COLOURED,
    EDITS,
    LABELS,
    SHAPE,
    STACKED,
    Edit,
    content_of,
    loaded,
    refusal,
    saved,
    setting,
    sform_only,
    sheared,
    spoiled,
    with_affine,
)

READERS = [read_image, read_label, read_header]


def marked(*rows: tuple[Any, ...]) -> list[Any]:
    """Rows of a table whose first entry is the rule that they show."""
    return [pytest.param(*row, marks=pytest.mark.covers(row[0])) for row in rows]


@pytest.mark.parametrize(("code", "edit"), marked(*EDITS))
@pytest.mark.parametrize("read", READERS)
def test_header_fields(tmp_path: Path, code: str, edit: Edit, read: Callable[[Path], Any]) -> None:
    assert refusal(saved(tmp_path, content_of(edit=edit)), read).code == code


@pytest.mark.covers("B066", "B074", "B108")
@pytest.mark.parametrize(
    ("code", "edit"), [*(("B074", edit) for edit in STACKED), *(("B066", edit) for edit in COLOURED)]
)
def test_a_stack_or_a_colour_is_refused_and_a_mask_gets_its_own_hint(tmp_path: Path, code: str, edit: Edit) -> None:
    path = saved(tmp_path, content_of(edit=edit))

    assert refusal(path, read_image).code == refusal(path, read_header).code == code
    error = refusal(path, read_label)
    assert error.code == "B108"
    assert "one value per voxel" in error.fix


@pytest.mark.covers("B062")
def test_b062_takes_no_memory(tmp_path: Path) -> None:
    path = saved(tmp_path, content_of(edit=setting("dim", [3, 32767, 32767, 3, 1, 1, 1, 1])), "image.nii")
    error = refusal(path)

    assert error.code == "B062"
    assert error.found == f"{32767 * 32767 * 3} voxels"


@pytest.mark.covers("B063")
def test_b063_a_stream_that_expands_beyond_the_limit(tmp_path: Path) -> None:
    content = content_of(np.zeros((64, 64, 64), np.uint8))
    path = saved(tmp_path, content)
    assert path.stat().st_size < len(content) / 100

    def limited(path: Path) -> object:
        return read_image(path, max_voxels=64**3 - 1)

    assert refusal(path, limited).code == "B063"
    assert read_image(path, max_voxels=64**3).grid.shape == (64, 64, 64)


def test_the_bound_on_expansion_is_that_of_deflate() -> None:
    zeros = bytes(8 << 20)

    assert len(zeros) / len(zlib.compress(zeros, 9)) < 1032


@pytest.mark.covers("B084")
def test_small_shear_is_accepted(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path, content_of(edit=with_affine(sheared(5e-5))))).grid.shape == SHAPE


@pytest.mark.covers("B080")
@pytest.mark.parametrize(("factor", "refused"), [(1.005, False), (1.02, True), (0.98, True)])
def test_b080_pixdim_against_the_affine(tmp_path: Path, factor: float, refused: bool) -> None:
    def edit(header: Any) -> None:
        sform_only(header)
        header["pixdim"][2] *= factor

    path = saved(tmp_path, content_of(edit=edit))

    if refused:
        assert refusal(path).code == "B080"
    else:
        np.testing.assert_allclose(read_image(path).grid.affine, AFFINE, atol=1e-6)


@pytest.mark.covers("B081", "P17")
def test_b081_no_code(tmp_path: Path) -> None:
    def edit(header: Any) -> None:
        header["sform_code"] = header["qform_code"] = 0

    assert refusal(saved(tmp_path, content_of(edit=edit))).code == "B081"


@pytest.mark.covers("B082")
@pytest.mark.parametrize(("shift", "refused"), [(0.09, False), (0.11, True), (40, True)])
def test_b082_sform_against_qform(tmp_path: Path, shift: float, refused: bool) -> None:
    path = saved(tmp_path, content_of(edit=setting("qoffset_x", AFFINE[0, 3] + shift)))

    if refused:
        error = refusal(path)
        assert (error.code, error.found) == ("B082", f"sform ASL, qform ASL, {shift:.3g} mm apart")
    else:
        np.testing.assert_allclose(read_image(path).grid.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize(
    ("code", "content"),
    marked(
        ("B067", spoiled(2**24 + 1, np.int64)),
        ("B067", spoiled(-(2**24) - 1, np.int32)),
        ("B068", spoiled(1e39, np.float64)),
        ("B068", content_of(edit=setting("scl_slope", 1e38))),
        ("B070", spoiled(np.nan)),
        ("B070", spoiled(np.nan, np.float64)),
        ("B071", spoiled(np.inf)),
        ("B071", spoiled(-np.inf, np.float64)),
    ),
)
def test_voxels(tmp_path: Path, code: str, content: bytes) -> None:
    assert refusal(saved(tmp_path, content)).code == code


@pytest.mark.covers("B070")
def test_a_bad_voxel_is_counted_and_located(tmp_path: Path) -> None:
    assert refusal(saved(tmp_path, spoiled(np.nan))).found == "1 NaN voxels, first at (1, 2, 3)"


@pytest.mark.covers("B067")
def test_integers_up_to_2_to_24_are_exact(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path, spoiled(2**24, np.int32))).array[1, 2, 3] == 2**24


@pytest.mark.covers("B103")
@pytest.mark.parametrize(
    ("largest", "dtype"), [(3, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "int32")]
)
@pytest.mark.parametrize("stored", [np.int32, np.int64, np.uint64, np.float64])
def test_labels_are_exact_integers(tmp_path: Path, largest: int, dtype: str, stored: Any) -> None:
    labels = LABELS.astype(stored)
    labels[0, 0, 0] = largest

    volume = read_label(saved(tmp_path, content_of(labels)))

    assert volume.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.array, labels)
    assert volume.notes == ()


def test_labels_of_either_byte_order(tmp_path: Path) -> None:
    labels = LABELS.astype(np.int16)

    volume = read_label(saved(tmp_path, content_of(labels, order=">")))

    np.testing.assert_array_equal(volume.array, labels)
    assert volume.array.dtype == np.dtype(np.uint8)


@pytest.mark.covers("B098")
def test_b098_near_integers_are_rounded_and_counted(tmp_path: Path) -> None:
    labels = LABELS.astype(np.float32)
    labels[0, 0, :2] += np.float32(0.0005)

    volume = read_label(saved(tmp_path, content_of(labels)))

    np.testing.assert_array_equal(volume.array, LABELS)
    assert volume.notes == (("B098", "2 voxels rounded to integers"),)


def test_a_scaled_label_of_integers_is_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        read_label(saved(tmp_path, content_of(LABELS, edit=setting("scl_slope", 2)))).array, 2 * LABELS
    )


@pytest.mark.parametrize(
    ("code", "value", "dtype"),
    marked(
        ("B097", 0.5, np.float32),
        ("B097", 1.002, np.float64),
        ("B097", np.nan, np.float32),
        ("B097", np.inf, np.float32),
        ("B097", -1, np.int16),
        ("B097", -1, np.float32),
        ("B103", 2**24 + 1, np.int64),
        ("B103", 2**63 + 5, np.uint64),
        ("B103", 2**24 + 1, np.float64),
    ),
)
def test_label_values(tmp_path: Path, code: str, value: float, dtype: Any) -> None:
    labels = LABELS.astype(dtype)
    labels[1, 2, 3] = value

    error = refusal(saved(tmp_path, content_of(labels)), read_label)

    assert error.code == code
    if code == "B097":
        assert "1 " in error.found
        assert error.found.endswith("first at (1, 2, 3)")


@pytest.mark.covers("B099")
def test_b099_scaling_that_gives_no_integers(tmp_path: Path) -> None:
    path = saved(tmp_path, content_of(LABELS, edit=setting("scl_slope", 0.3)))

    assert refusal(path, read_label).code == "B099"


@pytest.mark.covers("B104")
@pytest.mark.parametrize("largest", [0, 255, 256, 65535, 65536])
def test_written_masks_are_read_alike_by_nibabel(tmp_path: Path, largest: int) -> None:
    mask = np.zeros(SHAPE, np.int64)
    mask[3, 1, 2] = largest
    path = tmp_path / "mask.nii.gz"

    write_mask(path, mask, Grid(SHAPE, AFFINE))

    image = loaded(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), mask)
    for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        np.testing.assert_allclose(affine, AFFINE, atol=1e-5)
        assert code == 1
    assert image.header.get_xyzt_units()[0] == "mm"
    volume = read_label(path)
    np.testing.assert_array_equal(volume.array, mask)
    assert volume.array.dtype == image.get_data_dtype()
    np.testing.assert_allclose(volume.grid.affine, AFFINE, atol=1e-6)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.covers("B104")
@pytest.mark.parametrize(("largest", "dtype"), [(255, "uint8"), (256, "uint16"), (65535, "uint16")])
def test_b104_the_largest_declared_value_reaches_the_file(tmp_path: Path, largest: int, dtype: str) -> None:
    options = SegmentationOptions(kind="segmentation", column="organ", labels={"one": 1, "last": largest})
    probability_KDHW = torch.zeros(3, *SHAPE)
    probability_KDHW[2] = 1
    mask = Segmentation("organ", options).decide(probability_KDHW).numpy()
    path = tmp_path / "mask.nii.gz"

    write_mask(path, mask, Grid(SHAPE, AFFINE))

    assert loaded(path).get_data_dtype() == np.dtype(dtype)
    assert np.unique(np.asarray(loaded(path).dataobj)).tolist() == [largest]
    assert np.unique(read_label(path).array).tolist() == [largest]


@pytest.mark.covers("B104")
def test_b104_a_value_beyond_65535_cannot_be_declared() -> None:
    with pytest.raises(ValidationError, match="less than 65536"):
        SegmentationOptions(kind="segmentation", column="organ", labels={"last": 65536})


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii"])
def test_equal_masks_give_equal_bytes_and_replace(tmp_path: Path, name: str) -> None:
    grid = Grid(SHAPE, AFFINE)
    one, other = tmp_path / f"one_{name}", tmp_path / f"other_{name}"
    other.write_bytes(b"old")

    write_mask(one, LABELS, grid)
    write_mask(other, np.asfortranarray(LABELS.astype(np.int64)), grid)

    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes()[4:8] == bytes(4) or name == "mask.nii"  # no time of writing in the gzip header
    np.testing.assert_array_equal(read_label(one).array, LABELS)
    assert sorted(file.name for file in tmp_path.iterdir()) == [one.name, other.name]


def test_a_boolean_mask_on_an_oblique_grid(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -10, 35], degrees=True).as_matrix() @ np.diag([0.8, -1.25, 2])
    path = tmp_path / "mask.nii.gz"

    write_mask(path, LABELS > 1, Grid(SHAPE, affine))

    volume = read_label(path)
    np.testing.assert_array_equal(volume.array, LABELS > 1)
    np.testing.assert_allclose(volume.grid.affine, affine, atol=1e-6)


def test_axes_longer_than_nifti_1_allows(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    mask = np.zeros((40_000, 2, 2), np.uint8)
    mask[39_999, 1, 1] = 1

    write_mask(path, mask, Grid((40_000, 2, 2), np.eye(4)))

    np.testing.assert_array_equal(read_label(path).array, mask)
    assert isinstance(nib.load(path), nib.Nifti2Image)


@pytest.mark.parametrize("bad", [LABELS[:2], LABELS.astype(np.int16) - 1, LABELS + np.int64(2**40), LABELS / 2])
def test_a_mask_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path: Path, bad: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="mask"):
        write_mask(tmp_path / "mask.nii.gz", bad, Grid(SHAPE, AFFINE))

    assert list(tmp_path.iterdir()) == []
