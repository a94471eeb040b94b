"""A scan or a mask in memory, with the grid it lies on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Grid:
    """Shape and position of a voxel array in the patient.

    Attributes:
        shape: voxels per array axis (three axes).
        affine: 4x4, voxel index -> millimetres in RAS+ world space (NIfTI convention).
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along each array axis: the column norms of the affine."""
        norms = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(norms[0]), float(norms[1]), float(norms[2]))


@dataclass(frozen=True)
class Volume:
    """Voxels on a grid.

    Attributes:
        array: three-dimensional; float32 for images, an integer type for labels.
        grid: where the voxels lie.
        sha256: of the file's bytes as read, or None for a volume made in memory.
        notes: (code, text) of repairs made while reading, such as a squeezed axis; ``check`` turns them into findings.
    """

    array: npt.NDArray[np.generic]
    grid: Grid
    sha256: str | None = None
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels per array axis."""
        return self.grid.shape

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """The voxels: ``np.asarray(volume)`` is ``volume.array``."""
        return np.array(self.array, dtype=dtype, copy=copy)


def spread_sample(array: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Every n-th voxel, (about ``count``,), or all of an array with no more.

    The step shares no factor with the later axes' lengths, so that voxels of every plane are taken.
    """
    step = max(1, array.size // count)
    while step > 1 and any(math.gcd(step, length) > 1 for length in array.shape[1:]):
        step += 1
    return array.ravel()[::step]
