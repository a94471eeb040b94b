"""The voxel size at which a cohort is worked on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from medmtl.config import Config
from medmtl.data.fingerprint import Fingerprint

COARSER_STEP = 1.05
COARSEST = 8.0  # times the planned spacing

Spacing = tuple[float, float, float]


def coarser(spacing: Spacing) -> Iterator[Spacing]:
    """Ever coarser spacings, in small steps: the finest axes are coarsened until they meet the others."""
    factor = COARSER_STEP
    while factor <= COARSEST:
        x, y, z = (max(size, math.ceil(100 * factor * min(spacing)) / 100) for size in spacing)
        yield (x, y, z)
        factor *= COARSER_STEP


def plan_spacing(
    config: Config, fingerprints: Sequence[Fingerprint], reasons: dict[str, str]
) -> tuple[float, float, float]:
    """The median voxel size in mm per axis; of few thick slices the 10th percentile, as in nnU-Net.

    Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z.

    Args:
        config: the resolved configuration; ``plan.spacing`` wins.
        fingerprints: of all cases but the test split.
        reasons: gets the reason.
    """
    if config.plan.spacing is not None:
        reasons["spacing"] = config.plan.reason("spacing")
        return config.plan.spacing
    spacings = np.array([fingerprint.grid.spacing for fingerprint in fingerprints])
    sizes = np.median([fingerprint.grid.shape for fingerprint in fingerprints], axis=0)
    median = np.median(spacings, axis=0)
    coarse = int(np.argmax(median))
    others = [axis for axis in range(3) if axis != coarse]
    reasons["spacing"] = "median voxel size of the cohort"
    if median[coarse] > 3 * median[others].max() and 3 * sizes[coarse] < sizes[others].min():
        median[coarse] = max(float(np.percentile(spacings[:, coarse], 10)), float(median[others].max()))
        reasons["spacing"] = (
            "median voxel size; the anisotropic axis takes the 10th percentile, so that thin slices are kept"
        )
    return (round(float(median[0]), 4), round(float(median[1]), 4), round(float(median[2]), 4))
