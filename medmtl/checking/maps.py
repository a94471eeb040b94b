"""A map beside its image: grid, values, and the mask of those that count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from medmtl.checking.labels import check_label_grid, same_content
from medmtl.checking.opening import Opening
from medmtl.data.preparation import masked
from medmtl.data.volume import Grid
from medmtl.tasks.voxel import MapTask

QUANTILES = 101
SAMPLED = 2_000_000  # quantiles of larger maps are taken from an even subsample


def look_at_map(opening: Opening, task: MapTask, grid: Grid) -> npt.NDArray[np.float64] | None:
    """Quantiles of the values that count, from the lowest to the highest; None without a map, or where it was refused.

    Voxels that are no numbers are refused as those of an image are. Empty where no value counts, which is a warning.

    Args:
        opening: the case's.
        task: whose map it is.
        grid: of the case's first channel.
    """
    column = task.columns[0]
    if column not in opening.case.files:
        mask_column = task.mask_column
        if mask_column is not None and mask_column in opening.case.files:
            # read all the same: every file that the table names is vouched for
            opening.label(mask_column, opening.case.files[mask_column])
        return None
    path = opening.case.files[column]
    if any(same_content(path, image) for image in opening.case.images.values()):
        found, fix = "the case's image", "name the file of the map"
        opening.findings.reject("B109", **opening.where(column, path), found=found, expected="a map", fix=fix)
        return None
    values = opening.image(column, path)
    if values is None or not check_label_grid(values.grid, grid, opening.findings, opening.where(column, path)):
        return None
    mask = None
    if task.mask_column is not None:
        if task.mask_column not in opening.case.files:
            return None  # refused with the table
        file = opening.case.files[task.mask_column]
        where = opening.where(task.mask_column, file)
        mask = opening.label(task.mask_column, file)
        if mask is None or not check_label_grid(mask.grid, grid, opening.findings, where):
            return None
        if not mask.array.any():
            fix = "kept; it neither trains nor is scored"
            opening.findings.warn("B105", **where, found="no voxel counts", expected="a mask", fix=fix)
    array = masked(values, mask).array.astype(np.float32)
    counted = array[~np.isnan(array)]
    return _quantiles(counted) if _in_range(counted, task, opening, path) else None


def _in_range(counted: npt.NDArray[np.float32], task: MapTask, opening: Opening, path: Path) -> bool:
    if task.value_range is None or not counted.size:
        return True
    low, high = task.value_range
    beyond = np.count_nonzero((counted < low) | (counted > high))
    if beyond:
        found = f"{beyond} voxels beyond, {counted.min():.4g} to {counted.max():.4g}"
        expected, fix = f"values in {low:g} to {high:g}", f"correct the file or tasks.{task.name}.range"
        where = opening.where(task.columns[0], path)
        opening.findings.reject("B121", **where, found=found, expected=expected, fix=fix)
    return not beyond


def _quantiles(counted: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    if not counted.size:
        return np.empty(0)
    inner = counted[:: max(1, counted.size // SAMPLED)].astype(np.float64)
    found = np.quantile(inner, np.linspace(0, 1, QUANTILES))
    found[0], found[-1] = counted.min(), counted.max()
    return found
