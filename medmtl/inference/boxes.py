"""Boxes of windows as those of a scan, and of a scan as those of the patient."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from monai.data.box_utils import non_max_suppression

from medmtl.data.volume import Grid
from medmtl.tasks.box_task import SAME_LESION, Corners, FoundBox

APART = 0.25  # of a box's size, by which two windows may see its centre apart
LEAST_APART = 2.0  # voxels
TOUCHING = 1.0  # voxel from a window's edge, within which a box reaches it


def moved(found_M7: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
    """Boxes of a window in voxels of what it was cut from; rows with a score of 0 fall away.

    Args:
        found_M7: corners in voxels of the window, and a score.
        start: where the window begins; negative where the window is the larger one.
    """
    kept = found_M7[~(found_M7[:, 6] <= 0)].float().cpu()
    return kept + torch.tensor([*start, *start, 0], dtype=torch.float32)


def in_the_core(found_M7: torch.Tensor, place: Sequence[slice], size: Sequence[int], overlap: float) -> torch.Tensor:
    """Boxes whose centre does not lie far inside the half of an overlap that the next window sees better.

    A lesion that a window's edge cuts would leave the box of a part, which the whole one does not suppress. The edges
    of the scan cut nothing. How far is a quarter of the box, or two voxels if that is more, where it does not reach the
    window's edge: two windows see a lesion's centre a little apart, and of one that lies between them neither box may
    be lost for the other's sake.

    Args:
        found_M7: in voxels of the scan.
        place: of the window.
        size: of the scan.
        overlap: share of a window that the next one covers.
    """
    centre_M3 = (found_M7[:, :3] + found_M7[:, 3:6]) / 2
    apart_M3 = ((found_M7[:, 3:6] - found_M7[:, :3]) * APART).clamp(min=LEAST_APART)
    kept = torch.ones(len(found_M7), dtype=torch.bool)
    for axis, (window, extent) in enumerate(zip(place, size, strict=True)):
        length = window.stop - window.start
        margin = (length - max(1, int(length * (1 - overlap)))) / 2
        low_M, middle_M, high_M, apart_M = (
            found_M7[:, axis],
            centre_M3[:, axis],
            found_M7[:, 3 + axis],
            apart_M3[:, axis],
        )
        if window.start > 0:
            cut_M = low_M < window.start + TOUCHING
            kept &= ~(middle_M < window.start + margin - apart_M * ~cut_M)
        if window.stop < extent:
            cut_M = high_M > window.stop - TOUCHING
            kept &= ~(middle_M > window.stop - margin + apart_M * ~cut_M)
    return found_M7[kept]


def joined(parts: Sequence[torch.Tensor], size: Sequence[int]) -> torch.Tensor:
    """Boxes of all windows inside the scan, of one lesion the box of the highest score (non-maximum suppression)."""
    found = torch.cat([*parts, torch.empty(0, 7)])
    if not bool(torch.isfinite(found).all()):
        return found
    found[:, :6] = found[:, :6].clamp(min=0).minimum(torch.tensor([*size, *size], dtype=torch.float32))
    found = found[(found[:, 3:6] > found[:, :3]).all(dim=1)]
    return found[non_max_suppression(found[:, :6], found[:, 6], SAME_LESION)]


def in_the_patient(found_M7: npt.NDArray[np.float64], grid: Grid, native: Grid) -> list[FoundBox]:
    """Boxes on a working grid as those of the scan's file and of the scanner's frame.

    Args:
        found_M7: corners in voxels of ``grid``, and a score.
        grid: of the prepared case; its axes are those of the native grid in another order, scaled and shifted.
        native: of the case's first image.
    """
    return [
        FoundBox(
            _corners(row, np.linalg.inv(native.affine) @ grid.affine, 0.5), _corners(row, grid.affine, 0.0), row[6]
        )
        for row in found_M7.tolist()
    ]


def _corners(row: Sequence[float], affine: npt.NDArray[np.float64], shift: float) -> Corners:
    """The box around a box's eight mapped corners; voxel i has its middle at i for an affine, and at i + 0.5 here."""
    ends = [(row[axis] - 0.5, row[axis + 3] - 0.5) for axis in range(3)]
    mapped = np.array([affine[:3, :3] @ corner + affine[:3, 3] for corner in itertools.product(*ends)]) + shift
    return (*mapped.min(axis=0).tolist(), *mapped.max(axis=0).tolist())
