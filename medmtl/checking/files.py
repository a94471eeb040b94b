"""One case's images: opened, read to their end, and compared with each other.

A file stops at its first fault, and what depends on it is not looked at.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
    """What was seen of one case; without a fingerprint where a file was refused.

    ``voxels`` holds a digest of each channel's voxels, however they are stored; none of an image that is constant.
    """

    findings: Findings
    fingerprint: Fingerprint | None
    sha256: Mapping[str, str]
    voxels: Mapping[str, bytes] = field(default_factory=dict)


def look_at(case: Case, config: Config, tasks: Mapping[str, Task], folder: Path) -> Seen:
    """Open every file of a case; the first fault ends it."""
    findings = Findings()
    hashes: dict[str, str] = {}
    grid: Grid | None = None
    channels: dict[str, ChannelFingerprint] = {}
    voxels: dict[str, bytes] = {}
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
        if channels[channel].minimum < channels[channel].maximum:
            voxels[channel] = _digest(array)
    assert grid is not None
    counts: dict[str, dict[int, int]] = {}
    for name, task in tasks.items():
        if isinstance(task, VoxelTask) and task.columns[0] in case.files:
            found = look_at_label(case, task, grid, config, folder, findings, hashes)
            if found is None:
                return Seen(findings, None, hashes)
            counts[name] = found
    return Seen(findings, Fingerprint(canonical_grid(grid), channels, counts), hashes, voxels)


def _digest(array: npt.NDArray[np.generic]) -> bytes:
    # images are read in Fortran order, whose transpose is hashed without a copy
    return hashlib.sha256(f"{array.shape}".encode() + np.ascontiguousarray(array.T).data).digest()


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
    return first is None or check_channel_grid(volume.grid, first, config, where, findings)


def check_channel_grid(grid: Grid, first: Grid, config: Config, where: Mapping[str, Any], findings: Findings) -> bool:
    """Whether a channel lies on the first one's grid, or may be brought there."""
    if config.cohort.resample == "to_first":
        return True
    if grid.shape != first.shape:
        findings.reject(
            "B076",
            **where,
            found=list(grid.shape),
            expected=str(list(first.shape)),
            fix="set cohort.resample: to_first",
        )
        return False
    shift = corner_shift_voxels(grid, first)
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
