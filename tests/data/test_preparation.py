from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from threadpoolctl import threadpool_limits

from medmtl.data import preparation as preparation_module
from medmtl.data.box_table import boxes_of
from medmtl.data.boxes import boxes_in
from medmtl.data.case import Case
from medmtl.data.geometry import canonical_grid
from medmtl.data.preparation import FOREGROUND_SAMPLES, normalise, prepare_case, working_grid
from medmtl.data.prepared import Intensity, Preparation
from medmtl.data.volume import Grid
from medmtl.errors import InputError

Array = npt.NDArray[Any]

SHAPE = (20, 24, 18)
AFFINE = np.array([[1.0, 0, 0, -7.0], [0, 1.3, 0, 4.0], [0, 0, 2.0, -30.0], [0, 0, 0, 1]])
SPACING = (1.5, 1.5, 1.5)
ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def save(path: Path, array: Array, affine: Array = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)  # type: ignore[no-untyped-call]
    return path


def test_no_patch_is_drawn_around_what_nobody_labelled(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5], mask[8:12] = 1, 255
    case = case_of({"t1": save(tmp_path / "t1.nii.gz", np.ones(SHAPE, np.float32))}, save(tmp_path / "m.nii.gz", mask))
    prepared = prepare_case(case, replace(preparation(), ignored={"organ": 255}))
    assert list(prepared.foreground["organ"]) == [1]
    assert 255 in prepared.labels["organ"]


def preparation(*channels: str, spacing: tuple[float, float, float] = SPACING, to_first: bool = False) -> Preparation:
    return Preparation(spacing, channels or ("t1",), {"organ": "mask"}, to_first)


def case_of(images: dict[str, Path], mask: Path | None = None) -> Case:
    return Case("007", "007", None, 2, images, files={"mask": mask} if mask else {})


def places(shape: tuple[int, ...], affine: Array) -> Array:
    """World position of every voxel, (3, *shape)."""
    index = np.indices(shape).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *shape)


def turned(array: Array, affine: Array, axes: tuple[int, ...], signs: tuple[int, ...]) -> tuple[Array, Array]:
    """The same voxels at the same places, stored with other axes."""
    affine = affine.copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    return np.transpose(array, axes), affine[:, [*axes, 3]]


def oblique(affine: Array) -> Array:
    a, b = np.radians(20), np.radians(-15)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    result = affine.copy()
    result[:3] = about_z @ about_x @ affine[:3]
    return result


def test_a_landmark_keeps_its_place_in_all_orientations(tmp_path: Path) -> None:
    for tilted, (axes, signs) in itertools.product((False, True), ORIENTATIONS):
        affine = oblique(AFFINE) if tilted else AFFINE
        landmark = (affine @ [8.3, 13.6, 7.9, 1])[:3]
        distance = np.linalg.norm(places(SHAPE, affine) - landmark[:, None, None, None], axis=0)
        blob, ball = np.exp(-((distance / 3) ** 2)).astype(np.float32), (distance < 6).astype(np.uint8)
        image = save(tmp_path / "image.nii", *turned(blob, affine, axes, signs))
        mask = save(tmp_path / "mask.nii", *turned(ball, affine, axes, signs))
        prepared = prepare_case(case_of({"t1": image}, mask), preparation())
        assert np.allclose(prepared.grid.spacing, SPACING)
        assert np.array_equal(np.abs(prepared.grid.affine[:3, :3]).argmax(0), [0, 1, 2])
        where = places(prepared.grid.shape, prepared.grid.affine)
        for weight, voxels in ((prepared.image_CDHW[0], 0.05), (prepared.labels["organ"], 0.5)):
            found = (where * weight).sum((1, 2, 3)) / weight.sum()
            assert np.linalg.norm(found - landmark) < voxels * SPACING[0]


@pytest.mark.covers("B085", "B086")
def test_a_scan_stored_otherwise_gives_the_same_voxels(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    mask = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint8)
    for affine in (AFFINE, oblique(AFFINE)):
        for axes, signs in ORIENTATIONS:  # half of them mirror: the affine's determinant is negative
            image = save(tmp_path / "image.nii", *turned(array, affine, axes, signs))
            label = save(tmp_path / "mask.nii", *turned(mask, affine, axes, signs))
            found = prepare_case(case_of({"t1": image}, label), preparation(spacing=(1.0, 1.3, 2.0)))
            assert np.array_equal(found.image_CDHW[0], array)
            assert np.array_equal(found.labels["organ"], mask)
            assert np.allclose(found.grid.affine, affine, atol=1e-4)


@pytest.mark.covers("B085")
def test_an_oblique_scan_has_the_voxels_of_its_upright_twin(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    upright, tilted = (
        prepare_case(case_of({"t1": save(tmp_path / "image.nii", array, affine)}), preparation())
        for affine in (AFFINE, oblique(AFFINE))
    )
    assert np.allclose(upright.image_CDHW, tilted.image_CDHW, atol=1e-4)
    assert np.allclose(tilted.grid.affine[:3, :3], oblique(upright.grid.affine)[:3, :3], atol=1e-5)


def test_resampling_agrees_with_scipy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=SHAPE).astype(np.float32)
    mask = rng.integers(0, 5, SHAPE).astype(np.uint8)
    case = case_of({"t1": save(tmp_path / "a.nii", array)}, save(tmp_path / "m.nii", mask))
    prepared = prepare_case(case, preparation(spacing=(1.7, 1.1, 3.1)))
    back = np.linalg.inv(AFFINE) @ prepared.grid.affine
    index = places(prepared.grid.shape, back)
    linear = ndimage.map_coordinates(array, index, order=1, mode="nearest")
    assert np.allclose(prepared.image_CDHW[0], linear, atol=1e-4)
    nearest = ndimage.map_coordinates(mask, index, order=0, mode="nearest")
    ties = (np.abs(index - np.floor(index) - 0.5) < 1e-3).any(0)
    assert np.array_equal(prepared.labels["organ"][~ties], nearest[~ties])
    assert prepared.labels["organ"].dtype == np.uint8


def test_equal_spacing_leaves_voxels_alone(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    prepared = prepare_case(case_of({"t1": save(tmp_path / "a.nii", array)}), preparation(spacing=(1.005, 1.295, 2.01)))
    assert np.array_equal(prepared.image_CDHW[0], array)
    assert prepared.image_CDHW.dtype == np.float32
    assert np.allclose(prepared.grid.affine, AFFINE, atol=1e-6)
    assert prepared.native.shape == SHAPE


def test_the_working_grid_keeps_the_first_outer_face_and_the_extent() -> None:
    grid = Grid(SHAPE, AFFINE)
    target = working_grid(grid, (0.4, 2.6, 2.0))
    assert target.shape == (50, 12, 18)
    assert np.allclose(grid.affine @ [-0.5, -0.5, -0.5, 1], target.affine @ [-0.5, -0.5, -0.5, 1])
    assert np.allclose(grid.affine @ [19.5, 23.5, 17.5, 1], target.affine @ [49.5, 11.5, 17.5, 1])
    assert working_grid(grid, (500.0, 1.3, 2.0)).shape == (1, 24, 18)


def test_the_native_grid_is_the_files(tmp_path: Path) -> None:
    array, affine = turned(np.ones(SHAPE, np.float32) * np.arange(18), oblique(AFFINE), (2, 0, 1), (1, -1, 1))
    prepared = prepare_case(case_of({"t1": save(tmp_path / "a.nii", array.astype(np.float32), affine)}), preparation())
    assert prepared.native.shape == array.shape
    assert np.allclose(prepared.native.affine, affine, atol=1e-5)
    assert np.allclose(
        prepared.grid.affine[:3, :3] / 1.5, canonical_grid(prepared.native).affine[:3, :3] / AFFINE.diagonal()[:3]
    )


def test_channels_and_labels_on_other_grids_are_refused_by_name(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    first = save(tmp_path / "first.nii", array)
    moved = AFFINE.copy()
    moved[0, 3] += 0.2
    near = AFFINE.copy()
    near[0, 3] += 0.05
    shifted, close = save(tmp_path / "shifted.nii", array, moved), save(tmp_path / "close.nii", array, near)
    smaller = save(tmp_path / "smaller.nii", array[1:])
    with pytest.raises(InputError, match=r"case '007': t2 .*0\.20 voxels apart"):
        prepare_case(case_of({"t1": first, "t2": shifted}), preparation("t1", "t2"))
    with pytest.raises(InputError, match=r"case '007': t2 .*shape \[19, 24, 18\], expected \[20, 24, 18\]"):
        prepare_case(case_of({"t1": first, "t2": smaller}), preparation("t1", "t2"))
    mask = save(tmp_path / "mask.nii", np.ones(SHAPE, np.uint8), moved)
    with pytest.raises(InputError, match="case '007': mask "):
        prepare_case(case_of({"t1": first}, mask), preparation())
    prepared = prepare_case(case_of({"t1": first, "t2": close}), preparation("t1", "t2"))
    assert np.array_equal(prepared.image_CDHW[0], prepared.image_CDHW[1])


def test_resample_to_first_brings_another_grid_to_the_same_places(tmp_path: Path) -> None:
    def ramp(shape: tuple[int, ...], affine: Array) -> Array:
        return np.asarray(np.tensordot([1.0, -2.0, 0.5], places(shape, affine), 1), np.float32)

    other = oblique(AFFINE) @ np.diag([0.7, 0.9, 0.5, 1])
    shape = (50, 50, 70)
    middle = AFFINE @ [*((np.array(SHAPE) - 1) / 2), 1] - other @ [*((np.array(shape) - 1) / 2), 1]
    other[:3, 3] += middle[:3]
    images = {
        "t1": save(tmp_path / "a.nii", ramp(SHAPE, AFFINE)),
        "t2": save(tmp_path / "b.nii", ramp(shape, other), other),
    }
    prepared = prepare_case(case_of(images), preparation("t1", "t2", to_first=True))
    inner = (slice(None),) + (slice(4, -4),) * 3
    expected = ramp(prepared.grid.shape, prepared.grid.affine)
    assert np.abs(prepared.image_CDHW[inner] - expected[inner[1:]]).max() < 1e-3
    with pytest.raises(InputError, match="t2"):
        prepare_case(case_of(images), preparation("t1", "t2"))


def test_statistics_and_hashes(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.float32)
    array[:10] = np.random.default_rng(0).normal(50, 10, (10, 24, 18))
    path = save(tmp_path / "a.nii.gz", array)
    prepared = prepare_case(case_of({"t1": path}), preparation(spacing=(1.0, 1.3, 2.0)))
    inside = array[array != 0].astype(np.float64)
    expected = {
        "mean": array.mean(dtype=np.float64),
        "std": array.std(dtype=np.float64),
        "nonzero_mean": inside.mean(),
        "nonzero_std": inside.std(),
        "nonzero_fraction": 0.5,
        "p005": np.percentile(array, 0.5),
        "p995": np.percentile(array, 99.5),
        "min": array.min(),
        "max": array.max(),
    }
    assert prepared.statistics[0] == pytest.approx(expected)
    assert prepared.sha256 == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}


def test_foreground_is_sampled_evenly_and_repeatably(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:18, 2:20] = 3
    mask[4, 5, 6] = 1
    image = save(tmp_path / "a.nii", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    case = case_of({"t1": image}, save(tmp_path / "m.nii", mask))
    first, second = (prepare_case(case, preparation(spacing=(1.0, 1.3, 2.0))).foreground["organ"] for _ in range(2))
    assert set(first) == {1, 3}
    assert first[1].tolist() == [[4, 5, 6]]
    assert len(np.unique(first[3], axis=0)) == FOREGROUND_SAMPLES
    assert (mask[tuple(first[3].T)] == 3).all()
    assert np.abs(first[3].mean(0) - np.argwhere(mask == 3).mean(0)).max() < 0.6
    assert np.array_equal(first[3], second[3])


def test_labels_are_optional(tmp_path: Path) -> None:
    image = save(tmp_path / "a.nii", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    assert prepare_case(case_of({"t1": image}), preparation()).labels == {}
    damaged = tmp_path / "m.nii"
    damaged.write_bytes(b"no image")
    prepared = prepare_case(case_of({"t1": image}, damaged), preparation(), with_labels=False)
    assert prepared.labels == prepared.foreground == {}


def test_each_kind_of_normalisation() -> None:
    image = np.array([[0.0, 0.0, 10.0, 30.0]], np.float32).reshape(1, 1, 1, 4)
    own = {"mean": 10.0, "std": 5.0, "nonzero_mean": 20.0, "nonzero_std": 10.0}

    def normalised(rule: Intensity) -> list[float]:
        result = normalise(image, [own], [rule])
        assert result.dtype == np.float32
        return [float(value) for value in result.ravel()]

    assert normalised(Intensity("zscore")) == [-2, -2, 0, 4]
    assert normalised(Intensity("zscore_nonzero")) == [0, 0, -1, 1]
    assert normalised(Intensity("ct", clip=(5.0, 25.0), mean=15.0, std=2.0)) == [-5, -5, -2.5, 5]
    assert normalised(Intensity("none")) == [0, 0, 10, 30]
    constant = {"mean": 4.0, "std": 0.0}
    assert not normalise(np.full((1, 2, 2, 2), 4, np.float32), [constant], [Intensity("zscore")]).any()


def test_a_map_is_interpolated_over_the_voxels_that_count(tmp_path: Path) -> None:
    x, _, z = places(SHAPE, AFFINE)
    inside = np.zeros(SHAPE, np.uint8)
    inside[6:15, 4:20, 3:14] = 255  # anything but 0 counts
    values = np.where(inside != 0, 2 * x + z, 999).astype(np.float32)
    files = {
        "dose": save(tmp_path / "dose.nii.gz", values),
        "body": save(tmp_path / "body.nii.gz", inside),
    }
    case = Case("c", "c", None, 2, {"t1": save(tmp_path / "t1.nii.gz", np.ones(SHAPE, np.float32))}, files=files)
    wanted = replace(preparation(), labels={}, maps={"dose": ("dose", "body"), "all": ("dose", None)})
    prepared = prepare_case(case, wanted)
    found = prepared.labels["dose"]
    assert found.dtype == np.float32
    known = ~np.isnan(found)
    index = places(prepared.grid.shape, np.linalg.inv(AFFINE) @ prepared.grid.affine)
    share = ndimage.map_coordinates((inside != 0).astype(float), index, order=1, mode="nearest")
    np.testing.assert_array_equal(known, share > 0.5 + 1e-6)
    # nothing of the 999 outside has leaked in; at the mask's rim the mean is of the inner voxels alone
    x, _, z = places(prepared.grid.shape, prepared.grid.affine)
    np.testing.assert_allclose(found[known], (2 * x + z)[known], atol=2.5)
    deep = ndimage.binary_erosion(known, iterations=2)
    np.testing.assert_allclose(found[deep], (2 * x + z)[deep], atol=1e-3)
    assert list(prepared.foreground["dose"]) == [1]
    assert not np.isnan(prepared.labels["all"]).any()
    assert prepared.foreground["all"] == {}
    assert "dose" not in prepare_case(replace(case, files={}), wanted).labels


def test_an_absent_optional_channel_is_zero_after_normalisation_and_has_no_statistics(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(50, 9, SHAPE).astype(np.float32)
    case = case_of({"t2": save(tmp_path / "t2.nii.gz", image)})
    settings = replace(preparation("t1", "t2"), optional=("t1",))
    prepared = prepare_case(case, settings)
    alone = prepare_case(case, preparation("t2"))
    assert prepared.statistics == ({}, *alone.statistics)
    np.testing.assert_array_equal(prepared.image_CDHW[1], alone.image_CDHW[0])
    np.testing.assert_array_equal(prepared.native.affine, alone.native.affine)
    ct = Intensity("ct", clip=(-100.0, 300.0), mean=40.0, std=10.0)
    for rule in (Intensity("zscore"), Intensity("zscore_nonzero"), ct, Intensity("none")):
        assert not normalise(prepared.image_CDHW, prepared.statistics, (rule, rule))[0].any()


def test_a_channel_that_must_be_there_is_not_made_up(tmp_path: Path) -> None:
    case = case_of({"t2": save(tmp_path / "t2.nii.gz", np.ones(SHAPE, np.float32))})
    with pytest.raises(KeyError, match="t1"):
        prepare_case(case, replace(preparation("t1", "t2"), optional=("t2",)))


def test_boxes_of_a_table_are_where_a_mask_of_the_same_balls_is_in_all_orientations(tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    wanted = replace(preparation(), labels={"mask": "mask", "table": "table"}, boxes={"table": "lps"})
    for tilted, (axes, signs) in itertools.product((False, True), ORIENTATIONS):
        affine = oblique(AFFINE) if tilted else AFFINE
        centres = [(affine @ [*index, 1])[:3] for index in ([6.3, 13.6, 7.9], [14.0, 8.0, 12.0])]
        where = places(SHAPE, affine)
        balls = sum(
            (value * (np.linalg.norm(where - centre[:, None, None, None], axis=0) <= radius)).astype(np.uint8)
            for value, centre, radius in zip((1, 2), centres, (6, 5), strict=True)
        )
        rows = [
            f"007,{-x:.6f},{-y:.6f},{z:.6f},{2 * radius}\n" for (x, y, z), radius in zip(centres, (6, 5), strict=True)
        ]
        table.write_text("case_id,x_mm,y_mm,z_mm,diameter_mm\n" + "".join(rows))
        image = save(tmp_path / "image.nii", *turned(np.ones(SHAPE, np.float32), affine, axes, signs))
        mask = save(tmp_path / "mask.nii", *turned(np.asarray(balls), affine, axes, signs))
        case = replace(case_of({"t1": image}), files={"mask": mask, "table": table})
        prepared = prepare_case(case, wanted)
        drawn, painted = (boxes_in(prepared.labels[name], components=False) for name in ("mask", "table"))
        # a mask's box reaches from face to face of its voxels, which are up to 2 mm or 1.33 working voxels wide
        assert drawn.shape == painted.shape == (2, 6)
        assert np.abs(drawn - painted).max() <= 2
        assert np.abs((drawn - painted).reshape(2, 2, 3).mean(axis=1)).max() <= 1
        exact = boxes_of(case, "table", "lps")[0].in_voxels(prepared.grid)
        assert np.abs(exact - painted).max() <= 0.5 + 1e-6
        assert (exact[:, 3:] - exact[:, :3]) * SPACING == pytest.approx(np.array([[12.0] * 3, [10.0] * 3]), abs=1e-4)
        assert prepared.foreground["table"].keys() == {1, 2}
        assert prepared.sha256[str(table)] == hashlib.sha256(table.read_bytes()).hexdigest()


@pytest.mark.parametrize("part", [7, 1 << 18])
def test_statistics_are_numpys_however_they_are_summed(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation_module, "PART_VOXELS", part)
    rng = np.random.default_rng(0)
    far = (3e4 + rng.normal(size=SHAPE)).astype(np.float32)
    holed, constant = np.where(rng.random(SHAPE) < 0.9, 0, far), np.zeros(SHAPE, np.float32)
    constant[3:5] = 100
    for array in (far, holed, constant, np.zeros(SHAPE, np.float32)):
        case = case_of({"t1": save(tmp_path / "a.nii", array)})
        (found,) = prepare_case(case, preparation(spacing=(1.0, 1.3, 2.0))).statistics
        inside = array[array != 0].astype(np.float64) if array.any() else array.astype(np.float64)
        wanted = {"mean": array.mean(dtype=float), "std": array.std(dtype=float)}
        wanted |= {"nonzero_mean": inside.mean(), "nonzero_std": inside.std()}
        for name, value in wanted.items():
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_statistics_do_not_depend_on_the_threads_of_blas(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(30, 7, (64, 64, 64)).astype(np.float32)
    case = case_of({"t1": save(tmp_path / "a.nii", array)})
    found = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            found.append(prepare_case(case, preparation()).statistics)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("kind", ["zscore", "zscore_nonzero", "ct", "none"])
def test_normalising_in_place_gives_the_same_bits(kind: Any) -> None:
    rng = np.random.default_rng(0)
    image = np.where(rng.random((2, *SHAPE)) < 0.3, 0, rng.normal(100, 20, (2, *SHAPE))).astype(np.float32)
    statistics = [{"mean": 90.0, "std": 3.0, "nonzero_mean": 101.0, "nonzero_std": 7.0}, {}]
    rules = [Intensity(kind, (80.0, 130.0), 99.0, 9.0)] * 2
    apart = normalise(image.copy(), statistics, rules)
    assert normalise(image, statistics, rules, image) is image
    np.testing.assert_array_equal(image, apart)
    assert not image[1].any()


def test_slabs_of_a_resampled_scan_equal_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    case = case_of({"t1": save(tmp_path / "a.nii", array)})
    whole = prepare_case(case, preparation(spacing=(1.7, 1.1, 3.1))).image_CDHW
    monkeypatch.setattr(preparation_module, "SLAB_VOXELS", 1)
    np.testing.assert_array_equal(prepare_case(case, preparation(spacing=(1.7, 1.1, 3.1))).image_CDHW, whole)
