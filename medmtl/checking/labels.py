"""A label file beside its image: grid and values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medmtl.checking.opening import GRID_TOLERANCE, open_volume
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.geometry import corner_shift_voxels
from medmtl.data.volume import Grid, Volume
from medmtl.tasks.base import VoxelTask


def look_at_label(
    case: Case,
    task: VoxelTask,
    grid: Grid,
    config: Config,
    folder: Path,
    findings: Findings,
    hashes: dict[str, str],
) -> dict[int, int] | None:
    """Voxels per label value, or None where the file was refused."""
    column = task.columns[0]
    path = case.files[column]
    volume = open_volume(path, True, case, column, folder, findings, hashes)
    if volume is None:
        return None
    where: dict[str, Any] = {
        "case": case.case_id,
        "row": case.row,
        "column": column,
        "file": os.path.relpath(path, folder),
    }
    if not check_label_grid(volume.grid, grid, findings, where):
        return None
    return _check_values(volume, task, findings, where)


def check_label_grid(label: Grid, grid: Grid, findings: Findings, where: Mapping[str, Any]) -> bool:
    """Whether a label lies on its image's grid."""
    if label.shape != grid.shape:
        findings.reject(
            "B095",
            **where,
            found=list(label.shape),
            expected=str(list(grid.shape)),
            fix="redraw or resample the label",
        )
        return False
    shift = corner_shift_voxels(label, grid)
    if shift >= GRID_TOLERANCE:
        findings.reject(
            "B096",
            **where,
            found=f"corners {shift:.2f} voxels from the image's",
            expected=f"less than {GRID_TOLERANCE}",
            fix="resample the label to the image's grid",
        )
        return False
    if shift > 1e-3:
        findings.fixed("B096", **where, found=f"corners {shift:.3f} voxels apart", fix="the image's grid is used")
    return True


def _check_values(
    volume: Volume, task: VoxelTask, findings: Findings, where: Mapping[str, Any]
) -> dict[int, int] | None:
    values, counts = np.unique(volume.array, return_counts=True)
    found = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    legal = task.legal_values()
    if not set(found) <= legal:
        findings.reject(
            "B100",
            **where,
            found=sorted(found),
            expected=f"values in {sorted(legal)}",
            fix=f"declare the value in tasks.{task.name}.labels or correct the file",
        )
        return None
    if set(found) <= {0}:
        findings.warn(
            "B105", **where, found="no voxel labelled", expected="a reader's mask", fix="kept as a true negative"
        )
    return found
