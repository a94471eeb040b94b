"""Where voxels lie in the patient: axis order, and how far two grids are apart.

World space is RAS+ in millimetres throughout: x grows to the patient's right, y to the front, z to the head.
"""

# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from nibabel import orientations

from medmtl.data.volume import Grid, Volume

SAME_GRID_VOXELS = 0.1  # the contract's bound for "the same grid"
SAMPLED = 64  # places along an axis


def orientation(grid: Grid) -> str:
    """Where the array axes lead, by their closest world axes: ``RAS`` for right, anterior, superior."""
    return "".join(orientations.aff2axcodes(grid.affine))


def canonical_grid(grid: Grid) -> Grid:
    """The same voxels with their axes permuted and flipped to the order closest to right, anterior, superior.

    Args:
        grid: any grid, also an oblique one.

    Returns:
        The grid that :func:`canonical` gives; the voxels keep their places in the patient.
    """
    axes = _axes(grid)
    shape = [0, 0, 0]
    for source, target in enumerate(axes[:, 0].astype(int)):
        shape[target] = grid.shape[source]
    affine = grid.affine @ orientations.inv_ornt_aff(axes, grid.shape)
    return Grid((shape[0], shape[1], shape[2]), np.asarray(affine, dtype=np.float64))


def canonical(volume: Volume) -> Volume:
    """A volume with its axes permuted and flipped to the order closest to RAS; nothing is resampled.

    Returns:
        A volume whose array is contiguous; hash and notes are kept.
    """
    array = np.ascontiguousarray(in_ras_order(volume))
    return Volume(array, canonical_grid(volume.grid), volume.sha256, volume.notes)


def in_ras_order(volume: Volume) -> npt.NDArray[np.generic]:
    """The voxels as :func:`canonical` has them, without a copy: a view whose axes may be permuted and flipped."""
    array: npt.NDArray[np.generic] = orientations.apply_orientation(volume.array, _axes(volume.grid))
    return array


def restore(array_ras: npt.NDArray[np.generic], native: Grid) -> npt.NDArray[np.generic]:
    """The inverse of :func:`canonical`: an array in RAS order brought back to the axis order of a native grid.

    Args:
        array_ras: on ``canonical_grid(native)``.
        native: grid of the file.

    Returns:
        A contiguous array of shape ``native.shape``.

    Raises:
        ValueError: if the array's shape does not belong to the grid.
    """
    expected = canonical_grid(native).shape
    if array_ras.shape != expected:
        raise ValueError(f"an array of shape {array_ras.shape} does not lie on a grid of RAS shape {expected}")
    ras = np.array([[0, 1], [1, 1], [2, 1]])
    back = orientations.ornt_transform(ras, _axes(native))
    return np.ascontiguousarray(orientations.apply_orientation(array_ras, back))


def corner_shift_mm(a: Grid, b: Grid) -> float:
    """The largest distance in mm between corresponding corner voxels of two grids of one shape.

    Raises:
        ValueError: if the shapes differ.
    """
    corners = _corners(a, b)
    return _longest((a.affine - b.affine) @ corners)


def corner_shift_voxels(a: Grid, b: Grid) -> float:
    """Like :func:`corner_shift_mm`, but measured in voxels of ``a``.

    Raises:
        ValueError: if the shapes differ.
    """
    corners = _corners(a, b)
    return _longest(np.linalg.solve(a.affine, b.affine @ corners) - corners)


def same_grid(a: Grid, b: Grid) -> bool:
    """Whether two grids have one shape and no corner is a tenth of a voxel of ``a`` or more apart."""
    return a.shape == b.shape and corner_shift_voxels(a, b) < SAME_GRID_VOXELS


def covered_share(grid: Grid, other: Grid) -> float:
    """The share of a grid's voxels whose centres lie within the outer faces of another one.

    It is counted on all voxels of an axis of up to 64, and on as many places at equal distances of a longer one.
    """
    placement = np.linalg.inv(other.affine) @ grid.affine
    counts = [min(size, SAMPLED) for size in grid.shape]
    steps = zip(grid.shape, counts, strict=True)
    x, y, z = np.ix_(*((np.arange(count) + 0.5) * (size / count) - 0.5 for size, count in steps))
    inside = np.ones(counts, bool)
    for (a, b, c, offset), size in zip(placement[:3], other.shape, strict=True):
        place = a * x + b * y + c * z + offset
        inside &= (place >= -0.5) & (place <= size - 0.5)
    return float(inside.mean())


def _axes(grid: Grid) -> npt.NDArray[np.float64]:
    return np.asarray(orientations.io_orientation(grid.affine), dtype=np.float64)


def _corners(a: Grid, b: Grid) -> npt.NDArray[np.float64]:
    if a.shape != b.shape:
        raise ValueError(f"grids of shape {a.shape} and {b.shape} have no corresponding corners")
    ends = [(0, size - 1) for size in a.shape]
    return np.array([(*corner, 1) for corner in itertools.product(*ends)], dtype=np.float64).T


def _longest(vectors: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(vectors[:3], axis=0).max())
