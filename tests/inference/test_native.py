from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from medmtl.data import resampling
from medmtl.data.geometry import canonical, canonical_grid
from medmtl.data.preparation import working_grid
from medmtl.data.volume import Grid, Volume
from medmtl.inference import native as native_module
from medmtl.inference.native import NativeAnswer

# array axes that point back, down and right, with anisotropic voxels
PERMUTED = Grid((9, 7, 11), np.array([[0, 0, 2.5, -40], [-0.8, 0, 0, 12], [0, -1.1, 0, 7], [0, 0, 0, 1]], float))
TURN = np.eye(4)
TURN[:3, :3] = Rotation.from_euler("xyz", [12, -7, 20], degrees=True).as_matrix()
OBLIQUE = Grid(PERMUTED.shape, TURN @ PERMUTED.affine)


def random_probability(grid: Grid, classes: int = 3) -> torch.Tensor:
    return torch.rand((classes, *grid.shape), generator=torch.Generator().manual_seed(4)).softmax(0)


def shifted(grid: Grid, spacing: tuple[float, float, float]) -> Grid:
    """A working grid that starts between the voxels of the case's own and ends inside it."""
    work = working_grid(canonical_grid(grid), spacing)
    affine = work.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [0.4, -1.3, 0.2]
    return Grid((work.shape[0], work.shape[1] - 1, work.shape[2]), affine)


def interpolated(probability_KDHW: torch.Tensor, grid: Grid, native: Grid) -> npt.NDArray[np.float64]:
    """Every native voxel's place in the working array, found through the world, and scipy's interpolation there."""
    voxels = np.indices(native.shape).reshape(3, -1)
    world = native.affine @ np.vstack([voxels, np.ones(voxels.shape[1])])
    places = np.linalg.solve(grid.affine, world)[:3]
    classes = [map_coordinates(p.astype(np.float64), places, order=1, mode="nearest") for p in probability_KDHW.numpy()]
    return np.stack(classes).reshape(len(classes), *native.shape)


def to_native(
    probability_KDHW: torch.Tensor, grid: Grid, native: Grid, decide: Callable[[torch.Tensor], torch.Tensor]
) -> Volume:
    """:class:`NativeAnswer` of all planes at once."""
    answer = NativeAnswer(grid, native, decide)
    answer.take(probability_KDHW)
    return answer.volume()


def likeliest(probability_KDHW: torch.Tensor) -> torch.Tensor:
    return probability_KDHW.argmax(0).to(torch.uint8)


@pytest.mark.parametrize("native", [PERMUTED, OBLIQUE], ids=["permuted", "oblique"])
@pytest.mark.parametrize("spacing", [(2.5, 0.8, 2.0), (1.0, 1.9, 0.6)], ids=["coarser_z", "mixed"])
@pytest.mark.parametrize("make", [shifted, lambda grid, spacing: working_grid(canonical_grid(grid), spacing)])
def test_probabilities_equal_an_interpolation_through_the_world(
    native: Grid, spacing: tuple[float, float, float], make: Any
) -> None:
    grid = make(native, spacing)
    probability = random_probability(grid)
    expected = interpolated(probability, grid, native)
    for index in range(len(probability)):
        found = to_native(probability, grid, native, lambda slab, k=index: slab[k])  # type: ignore[misc]
        np.testing.assert_allclose(np.asarray(found.array, np.float64), expected[index], atol=1e-5)
        assert found.grid is native
    decided = to_native(probability, grid, native, likeliest).array
    clear = np.ptp(np.sort(expected, axis=0)[-2:], axis=0) > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(decided[clear], expected.argmax(0)[clear])


@pytest.mark.parametrize("values", [1, 2000, 3 * 7 * 9 * 4])
def test_slabs_equal_the_whole(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = shifted(PERMUTED, (1.0, 1.9, 0.6))
    probability = random_probability(grid)
    whole = to_native(probability, grid, PERMUTED, likeliest)
    assert len(np.unique(whole.array)) == 3
    calls = []

    def decide(slab: torch.Tensor) -> torch.Tensor:
        calls.append(slab.shape)
        return likeliest(slab)

    monkeypatch.setattr(native_module, "SLAB_VALUES", values)
    found = to_native(probability, grid, PERMUTED, decide)
    np.testing.assert_array_equal(found.array, whole.array)
    planes = [shape[1] for shape in calls]
    assert sum(planes) == canonical_grid(PERMUTED).shape[0]
    assert len(planes) > 1
    assert max(planes) == 1 or max(int(np.prod(shape)) for shape in calls) <= values


@pytest.mark.parametrize("spacing", [(1.0, 1.9, 0.6), (0.8, 1.1, 2.5), (2.5, 0.8, 2.0)], ids=str)
@pytest.mark.parametrize("sizes", [(1,), (2, 1), (5, 1, 1)], ids=str)
def test_planes_that_come_one_after_the_other_equal_the_whole(
    spacing: tuple[float, float, float], sizes: tuple[int, ...]
) -> None:
    grid = working_grid(canonical_grid(PERMUTED), spacing)
    probability = random_probability(grid)
    whole = to_native(probability, grid, PERMUTED, likeliest)
    answer, start = NativeAnswer(grid, PERMUTED, likeliest), 0
    for size in itertools.cycle(sizes):
        part = probability[:, start : start + size].clone()
        if not part.shape[1]:
            break
        answer.take(part)
        part.fill_(torch.nan)  # what came is not looked at again
        start += size
    np.testing.assert_array_equal(answer.volume().array, whole.array)


@pytest.mark.parametrize("native", [PERMUTED, OBLIQUE], ids=["permuted", "oblique"])
def test_on_the_cases_own_voxels_nothing_is_interpolated(native: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> torch.Tensor:
        raise AssertionError("interpolated")

    monkeypatch.setattr(native_module, "blended", never)
    monkeypatch.setattr(resampling, "blended", never)
    labels = np.random.default_rng(0).integers(0, 3, native.shape, dtype=np.uint8)
    in_ras = canonical(Volume(labels, native))
    probability = torch.nn.functional.one_hot(torch.from_numpy(in_ras.array.astype(np.int64)), 3).movedim(-1, 0).float()
    found = to_native(probability, in_ras.grid, native, likeliest)
    np.testing.assert_array_equal(found.array, labels)
    assert found.array.dtype == np.uint8
