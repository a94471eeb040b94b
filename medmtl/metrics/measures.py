"""What is measured on a mask: the functions behind targets that are derived from a segmentation."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def volume(mask: npt.NDArray[np.integer[Any]], labels: Collection[int], spacing: Sequence[float]) -> float:
    """Volume of the voxels whose value is one of ``labels``, in mm3.

    Args:
        mask: label values, any shape.
        labels: values that count.
        spacing: voxel size per axis in mm.
    """
    return float(np.count_nonzero(np.isin(mask, list(labels))) * math.prod(spacing))


def fraction(part_mm3: float, whole_mm3: float) -> float | None:
    """``part_mm3 / whole_mm3``; None where the whole is 0."""
    return part_mm3 / whole_mm3 if whole_mm3 else None


def ejection_fraction(diastole: float, systole: float) -> float | None:
    """(diastole - systole) / diastole in percent, from two volumes of one unit; None where the diastolic one is 0."""
    return 100 * (diastole - systole) / diastole if diastole else None
