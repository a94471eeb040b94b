"""One case's images: opened, read to their end, and compared with each other.

A file stops at its first fault, and what depends on it is not looked at.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmtl.checking.labels import look_at_label
from medmtl.checking.opening import GRID_TOLERANCE, open_volume
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import ChannelFingerprint, Fingerprint
from medmtl.data.geometry import canonical_grid, corner_shift_voxels
from medmtl.data.volume import Grid, Volume
from medmtl.tasks.base import Task, VoxelTask


@dataclass(frozen=True)
class Seen:
    """What was seen of one case; without a fingerprint where a file was refused."""

    findings: Findings
    fingerprint: Fingerprint | None
    sha256: Mapping[str, str]


def look_at(case: Case, config: Config, tasks: Mapping[str, Task], folder: Path) -> Seen:
    """Open every file of a case; the first fault ends it."""
    findings = Findings()
    hashes: dict[str, str] = {}
    grid: Grid | None = None
    channels: dict[str, ChannelFingerprint] = {}
    for channel, path in case.images.items():
        column = config.cohort.channels[channel]
        volume = open_volume(path, False, case, column, folder, findings, hashes)
        if volume is None:
            return Seen(findings, None, hashes)
        if not _check_image(volume, grid, config, case, column, folder, path, findings):
            return Seen(findings, None, hashes)
        grid = grid or volume.grid
        array = volume.array
        channels[channel] = ChannelFingerprint(
            float(array.min()), float(array.max()), float(1 - np.count_nonzero(array) / array.size)
        )
    assert grid is not None
    counts: dict[str, dict[int, int]] = {}
    for name, task in tasks.items():
        if isinstance(task, VoxelTask) and task.columns[0] in case.files:
            found = look_at_label(case, task, grid, config, folder, findings, hashes)
            if found is None:
                return Seen(findings, None, hashes)
            counts[name] = found
    return Seen(findings, Fingerprint(canonical_grid(grid), channels, counts), hashes)


def _check_image(
    volume: Volume,
    first: Grid | None,
    config: Config,
    case: Case,
    column: str,
    folder: Path,
    path: Path,
    findings: Findings,
) -> bool:
    where: dict[str, Any] = {
        "case": case.case_id,
        "row": case.row,
        "column": column,
        "file": os.path.relpath(path, folder),
    }
    if volume.array.min() == volume.array.max() and "constant" not in config.cohort.allow:
        findings.reject(
            "B072",
            **where,
            found="every voxel equal",
            expected="an image",
            fix="list cohort.allow: [constant] if meant",
        )
        return False
    if first is None or config.cohort.resample == "to_first":
        return True
    if volume.grid.shape != first.shape:
        findings.reject(
            "B076",
            **where,
            found=list(volume.grid.shape),
            expected=str(list(first.shape)),
            fix="set cohort.resample: to_first",
        )
        return False
    shift = corner_shift_voxels(volume.grid, first)
    if shift >= GRID_TOLERANCE:
        findings.reject(
            "B077",
            **where,
            found=f"corners {shift:.2f} voxels apart",
            expected="channels on one grid",
            fix="set cohort.resample: to_first",
        )
        return False
    return True
