"""A channel's grid beside that of its case's first image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmtl.config import Config
from medmtl.data.finding import Findings
from medmtl.data.geometry import SAME_GRID_VOXELS, canonical_grid, corner_shift_voxels, covered_share, orientation
from medmtl.data.volume import Grid

NO_SHIFT = 1e-3  # voxels up to which rounding alone may have moved a corner
COVERED = 0.9  # of the first image; what a channel does not cover is filled with its outermost voxels


def check_channel_grid(grid: Grid, first: Grid, config: Config, where: Mapping[str, Any], findings: Findings) -> bool:
    """Whether a channel lies on the first one's grid, or may be brought there.

    Args:
        grid: of the channel.
        first: of the case's first image.
        config: says whether channels are resampled.
        where: the channel's file, as findings name it.
        findings: gets a reject for what cannot be brought there, and otherwise what is done to it.
    """
    shift = corner_shift_voxels(grid, first) if grid.shape == first.shape else None
    if shift is not None and shift < SAME_GRID_VOXELS:
        if shift > NO_SHIFT:
            found, fix = f"corners {shift:.3f} voxels apart", "the first image's grid is used"
            findings.fixed("B077", **where, found=found, fix=fix)
        return True
    if config.cohort.resample == "to_first":
        return _brought_to(first, grid, where, findings)
    fix = "set cohort.resample: to_first"
    if shift is None:
        findings.reject("B076", **where, found=list(grid.shape), expected=str(list(first.shape)), fix=fix)
    else:
        found = f"corners {shift:.2f} voxels apart"
        findings.reject("B077", **where, found=found, expected="channels on one grid", fix=fix)
    return False


def _brought_to(first: Grid, grid: Grid, where: Mapping[str, Any], findings: Findings) -> bool:
    """Whether resampling can give the channel a value of its own anywhere, with what it does to it."""
    # array axes of another order or direction put no voxel elsewhere
    own, target = canonical_grid(grid), canonical_grid(first)
    alike = own.shape == target.shape
    shift, code = corner_shift_voxels(own, target) if alike else 0.0, "B077" if alike else "B076"
    share = covered_share(target, own)
    covered = f"{share:.0%} of the first image covered"
    if not share:
        expected, fix = "an image of the same place", "name the image of this case, or correct its affine"
        findings.reject(code, **where, found=covered, expected=expected, fix=fix)
        return False
    if not alike:
        found, expected = f"{list(grid.shape)}", f"{list(first.shape)}"
    elif shift > NO_SHIFT:
        found, expected = f"corners {shift:.2f} voxels apart", "channels on one grid"
    else:
        found, expected = f"axes {orientation(grid)}", orientation(first)
    findings.fixed(code, **where, found=found, expected=expected, fix="brought to the first image's grid")
    if share < COVERED:
        expected, fix = f"{COVERED:.0%} or more", "beyond its faces its outermost voxels go on; look at both images"
        findings.warn(code, **where, found=covered, expected=expected, fix=fix)
    return True
