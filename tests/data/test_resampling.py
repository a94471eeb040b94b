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
SPACINGS = [(0.8, 0.9, 2.5), (1.6, 1.8, 5.0), (0.5, 1.3, 1.0), (2.4, 0.6, 2.51)]


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


def test_of_two_voxels_at_one_distance_all_places_take_the_same() -> None:
    # 0.3 is no sum of powers of two, so that computed places lie on either side of the middle
    grid = Grid((40, 1, 1), np.diag([0.3, 1, 1, 1.0]))
    axes = axes_between(grid, working_grid(grid, (0.6, 1, 1)))
    assert axes is not None
    found = nearest(torch.arange(40)[:, None, None], axes).flatten()
    np.testing.assert_array_equal(found.diff(), 2)


def test_grids_of_other_directions_are_told_apart() -> None:
    turned = SOURCE.affine @ np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    flipped = SOURCE.affine @ np.diag([-1, 1, 1, 1.0])
    sheared = SOURCE.affine @ np.array([[1, 0.01, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for affine in (turned, flipped, sheared):
        assert resampling.axes_between(SOURCE, Grid(SOURCE.shape, affine)) is None
