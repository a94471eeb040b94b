"""Distances between the surfaces of two masks, in mm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from medmtl.metrics.intervals import BoolArray, FloatArray
from medmtl.metrics.overlap import outcome

# Spacings come from single-precision headers: ten voxels of 0.1 mm must lie within 1 mm.
ROUNDING_MM = 1e-5


@dataclass(frozen=True)
class SurfaceScores:
    """How far two surfaces lie apart.

    Attributes:
        hd95_mm: 95th percentile of the symmetric Hausdorff distance; None where both masks are empty.
        nsd: normalised surface Dice, in 0 to 1; None where both masks are empty.
    """

    hd95_mm: float | None
    nsd: float | None


def surface_scores(
    predicted: BoolArray, truth: BoolArray, spacing: Sequence[float], tolerance_mm: float = 1.0
) -> SurfaceScores:
    """HD95 and NSD of two masks.

    The surface of a mask is its voxels that have a face neighbour outside it; what lies beyond the image is outside.
    HD95 is the larger of the two directed 95th percentiles. NSD is the share of both surfaces' voxels that lie within
    ``tolerance_mm`` of the other surface (Nikolov et al. 2018, https://arxiv.org/abs/1809.04430), counting voxels as
    MONAI does and not weighting by area as in the paper.

    Args:
        predicted: predicted mask, any number of axes.
        truth: reference mask of the same shape.
        spacing: voxel size per axis in mm.
        tolerance_mm: distance up to which surfaces count as the same.

    Returns:
        Both None if both masks are empty. If one is, NSD is 0 and HD95 the diagonal of the image's extent,
        sqrt(sum((n_i * spacing_i)^2)), which is more than any two voxels can lie apart.

    Raises:
        ValueError: if the shapes differ, or ``spacing`` has not one number per axis.
    """
    if len(spacing) != truth.ndim:
        raise ValueError(f"spacing needs {truth.ndim} numbers, got {len(spacing)}")
    found = outcome(predicted, truth)
    if found == "true_negative":
        return SurfaceScores(None, None)
    if found != "both":
        return SurfaceScores(math.hypot(*(n * s for n, s in zip(truth.shape, spacing, strict=True))), 0.0)
    box = _bounding_box(predicted | truth)
    edge_predicted, edge_truth = _edge(predicted[box], spacing), _edge(truth[box], spacing)
    to_truth, to_predicted = _nearest(edge_predicted, edge_truth), _nearest(edge_truth, edge_predicted)
    near = np.count_nonzero(np.concatenate([to_truth, to_predicted]) <= tolerance_mm + ROUNDING_MM)
    return SurfaceScores(
        hd95_mm=float(max(np.percentile(to_truth, 95), np.percentile(to_predicted, 95))),
        nsd=float(near / (len(to_truth) + len(to_predicted))),
    )


def _edge(mask: BoolArray, spacing: Sequence[float]) -> FloatArray:
    """Where the surface's voxels lie, in mm."""
    return np.asarray(np.argwhere(mask & ~binary_erosion(mask)) * np.asarray(spacing), np.float64)


def _nearest(points: FloatArray, others: FloatArray) -> FloatArray:
    """Of each point the distance to the others. A tree costs what the surfaces hold, and not what their box does."""
    return np.asarray(cKDTree(others).query(points)[0], np.float64)


def _bounding_box(mask: BoolArray) -> tuple[slice, ...]:
    """The smallest box around a mask. Erosion takes what is outside for background, so no margin is needed."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (hit,) = np.nonzero(mask.any(axis=others))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)
