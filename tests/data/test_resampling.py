from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from medmtl.data import resampling
from medmtl.data.preparation import working_grid
from medmtl.data.resampling import Axes, Axis, axes_between, blended, in_plane, nearest
from medmtl.data.volume import Grid

SOURCE = Grid((9, 12, 7), np.array([[0.8, 0, 0, -3], [0, 0.9, 0, 5], [0, 0, 2.5, 1], [0, 0, 0, 1.0]]))
SPACINGS = [(0.8, 0.9, 2.5), (1.6, 1.8, 5.0), (0.5, 1.3, 1.0), (2.4, 0.6, 2.51), (1.6, 0.92, 2.6)]


def between(spacing: tuple[float, float, float]) -> Axes:
    axes = axes_between(SOURCE, working_grid(SOURCE, spacing))
    assert axes is not None
    return axes


def random_values() -> torch.Tensor:
    return torch.rand((2, *SOURCE.shape), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_torchs_kernel_gives_what_blending_axis_by_axis_and_scipy_give(spacing: tuple[float, float, float]) -> None:
    axes = between(spacing)
    assert all(axis.is_aligned for axis in axes)
    values = blended(random_values(), axes[0].places, 1)
    found = in_plane(values, axes)
    by_axis = blended(blended(values, axes[1].places, 2), axes[2].places, 3)
    torch.testing.assert_close(found, by_axis, rtol=0, atol=1e-5)
    places = np.stack(np.meshgrid(*(axis.places.numpy() for axis in axes), indexing="ij"))
    for one, expected in zip(found, random_values().double().numpy(), strict=True):
        np.testing.assert_allclose(one, map_coordinates(expected, places, order=1, mode="nearest"), atol=1e-5)


def test_a_grid_that_begins_elsewhere_is_not_given_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = between((0.5, 1.3, 1.0))
    moved = (axes[0], replace(axes[1], offset=axes[1].offset + 0.3), axes[2])
    values = blended(random_values(), moved[0].places, 1)
    expected = blended(blended(values, moved[1].places, 2), moved[2].places, 3)
    assert not moved[1].is_aligned
    torch.testing.assert_close(in_plane(values, moved), expected, rtol=0, atol=0)


def test_nothing_is_copied_where_the_voxels_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    axes, values = between(SPACINGS[0]), random_values()
    assert all(axis.is_same for axis in axes)
    assert in_plane(values, axes) is values
    assert nearest(values[0], axes).data_ptr() == values.data_ptr()
    assert not Axis(9, 9, 1.01, 0.005).is_same


def test_the_axes_above_hold_one_of_as_many_voxels_of_another_size() -> None:
    _, y, z = between(SPACINGS[-1])
    assert (y.source, z.source) == (y.target, z.target) and not y.is_same and not z.is_same


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_a_label_has_the_value_of_the_closest_voxels_that_most_of_them_have(spacing: tuple[float, ...]) -> None:
    """By brute force over the voxels of the source."""
    axes = between((spacing[0], spacing[1], spacing[2]))
    labels = torch.randint(0, 3, SOURCE.shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    closest = []
    for axis in axes:
        distance = (axis.places.clamp(0, axis.source - 1)[:, None] - torch.arange(axis.source)).abs()
        closest.append([torch.nonzero(row <= row.min() + 1e-6).flatten().tolist() for row in distance])
    found = nearest(labels, axes)
    assert (found.shape, found.dtype) == (tuple(len(places) for places in closest), torch.uint8)
    for place in np.ndindex(*found.shape):
        voxels = np.ix_(*(own[index] for own, index in zip(closest, place, strict=True)))
        values, counts = np.unique(labels.numpy()[voxels], return_counts=True)
        assert found[place] == values[counts == counts.max()].max()


@pytest.mark.parametrize("spacing", [0.6, 0.9, 1.2])
def test_a_label_is_not_moved_against_its_image(spacing: float) -> None:
    # 0.3 is no sum of powers of two, so that computed places lie on either side of the middle
    grid = Grid((40, 41, 42), np.diag([0.3, 0.3, 0.3, 1.0]))
    target = working_grid(grid, (spacing,) * 3)
    axes = axes_between(grid, target)
    assert axes is not None
    mm = np.stack(np.meshgrid(*(np.arange(n) * 0.3 for n in grid.shape), indexing="ij"))
    centre = np.array([6.1, 5.8, 6.3])[:, None, None, None]
    ball = torch.from_numpy((np.linalg.norm(mm - centre, axis=0) < 4).astype(np.uint8))
    voxels = np.argwhere(nearest(ball, axes).numpy())
    found = (target.affine[:3, :3] @ voxels.mean(axis=0)) + target.affine[:3, 3]
    # of two voxels always the same one would move it by half a voxel of the scan, 0.15 mm
    assert np.abs(found - centre.flatten()).max() < 0.075
    assert len(voxels) * spacing**3 == pytest.approx(int(ball.sum()) * 0.3**3, rel=0.03)


def test_grids_of_other_directions_are_told_apart() -> None:
    turned = SOURCE.affine @ np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    flipped = SOURCE.affine @ np.diag([-1, 1, 1, 1.0])
    sheared = SOURCE.affine @ np.array([[1, 0.01, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for affine in (turned, flipped, sheared):
        assert resampling.axes_between(SOURCE, Grid(SOURCE.shape, affine)) is None
