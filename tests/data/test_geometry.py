from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from medmtl.data.geometry import (
    canonical,
    canonical_grid,
    corner_shift_mm,
    corner_shift_voxels,
    covered_share,
    restore,
    same_grid,
)
from medmtl.data.volume import Grid, Volume

SPACING = (0.7, 1.5, 3.0)
ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]
TILTS = {"straight": np.eye(3), "oblique": Rotation.from_euler("xyz", [12, -9, 15], degrees=True).as_matrix()}


def oriented(order: tuple[int, ...], signs: tuple[int, ...], tilt: npt.NDArray[np.float64]) -> Volume:
    """A volume whose array axis i runs along world axis order[i], in the direction signs[i]; then tilted."""
    directions = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        directions[world, axis] = sign * SPACING[axis]
    affine = np.eye(4)
    affine[:3, :3] = tilt @ directions
    affine[:3, 3] = (11, -7, 5)
    array = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    return Volume(array, Grid((2, 3, 4), affine), "hash", (("B073", "note"),))


def places(volume: Volume) -> dict[float, npt.NDArray[np.float64]]:
    """Voxel value -> its place in the patient; every value occurs once."""
    return {float(volume.array[index]): volume.grid.affine @ (*index, 1) for index in np.ndindex(*volume.grid.shape)}


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_canonical_keeps_every_voxel_in_its_place(order: tuple[int, ...], signs: tuple[int, ...], tilt: str) -> None:
    native = oriented(order, signs, TILTS[tilt])

    ras = canonical(native)

    before, after = places(native), places(ras)
    assert before.keys() == after.keys()
    for value, place in before.items():
        np.testing.assert_allclose(after[value], place, atol=1e-9)
    columns = ras.grid.affine[:3, :3]
    assert list(np.abs(columns).argmax(axis=0)) == [0, 1, 2]
    assert (np.diag(columns) > 0).all()
    assert ras.grid.shape == ras.array.shape
    assert ras.array.flags.c_contiguous
    assert (ras.sha256, ras.notes) == (native.sha256, native.notes)


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_restore_undoes_canonical(order: tuple[int, ...], signs: tuple[int, ...], tilt: str) -> None:
    native = oriented(order, signs, TILTS[tilt])

    back = restore(canonical(native).array, native.grid)

    np.testing.assert_array_equal(back, native.array)
    assert back.flags.c_contiguous


def test_canonical_grid_permutes_the_spacing() -> None:
    native = oriented((2, 0, 1), (-1, 1, -1), np.eye(3))

    grid = canonical_grid(native.grid)

    assert grid.shape == (3, 4, 2)
    np.testing.assert_allclose(grid.spacing, (1.5, 3.0, 0.7))


def test_restore_refuses_an_array_of_another_shape() -> None:
    native = oriented((2, 0, 1), (1, 1, 1), np.eye(3))

    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*\(3, 4, 2\)"):
        restore(np.zeros((2, 3, 4)), native.grid)


def test_corner_shift_of_a_translation_is_its_length() -> None:
    a = Grid((5, 6, 7), np.diag([1.0, 2.0, 4.0, 1.0]))
    moved = a.affine.copy()
    moved[:3, 3] = (0, 3, 4)
    b = Grid(a.shape, moved)

    assert corner_shift_mm(a, b) == pytest.approx(5)
    assert corner_shift_voxels(a, b) == pytest.approx(np.hypot(3 / 2, 4 / 4))
    assert corner_shift_voxels(b, a) == pytest.approx(np.hypot(3 / 2, 4 / 4))


def test_corner_shift_of_a_scaling_is_that_of_the_far_corner() -> None:
    a = Grid((11, 2, 2), np.eye(4))
    b = Grid(a.shape, np.diag([1.02, 1.0, 1.0, 1.0]))

    assert corner_shift_mm(a, b) == pytest.approx(10 * 0.02)
    assert corner_shift_voxels(b, a) == pytest.approx(10 * 0.02 / 1.02)


def test_corner_shift_needs_one_shape() -> None:
    with pytest.raises(ValueError, match="no corresponding corners"):
        corner_shift_mm(Grid((2, 2, 2), np.eye(4)), Grid((2, 2, 3), np.eye(4)))


@pytest.mark.parametrize(("shift", "same"), [(0.0, True), (0.19, True), (0.21, False)])
def test_same_grid_allows_a_tenth_of_a_voxel(shift: float, same: bool) -> None:
    a = Grid((4, 4, 4), np.diag([2.0, 2.0, 2.0, 1.0]))
    moved = a.affine.copy()
    moved[0, 3] = shift

    assert same_grid(a, Grid(a.shape, moved)) is same


def test_grids_of_two_shapes_or_a_flipped_axis_are_not_the_same() -> None:
    a = Grid((4, 4, 4), np.eye(4))

    assert not same_grid(a, Grid((4, 4, 5), np.eye(4)))
    assert not same_grid(a, Grid((4, 4, 4), np.diag([-1.0, 1.0, 1.0, 1.0])))


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize("shift", [0.0, 1.0, 3.2, 90.0])
def test_the_covered_share_counts_voxels_whose_centre_lies_within(tilt: str, shift: float) -> None:
    grid = oriented((1, 0, 2), (1, -1, 1), TILTS[tilt]).grid
    other = oriented((0, 1, 2), (1, 1, -1), TILTS["oblique"]).grid
    other.affine[0, 3] += shift
    within = 0
    for index in np.ndindex(*grid.shape):
        place = np.linalg.solve(other.affine, grid.affine @ (*index, 1))[:3]
        within += bool((place >= -0.5).all() and (place <= np.array(other.shape) - 0.5).all())
    assert covered_share(grid, other) == pytest.approx(within / np.prod(grid.shape))
    assert covered_share(grid, grid) == 1


def test_the_covered_share_of_a_long_axis_is_sampled() -> None:
    grid = Grid((200, 2, 2), np.eye(4))
    half = Grid((100, 2, 2), np.eye(4))
    assert covered_share(grid, half) == 0.5
    assert covered_share(half, grid) == 1
