"""One case's images: opened, read to their end, and compared with each other.

A file stops at its first fault, and what depends on it is not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medmtl.checking.boxes import look_at_boxes
from medmtl.checking.grids import check_channel_grid
from medmtl.checking.labels import SeenLabel, look_at_label
from medmtl.checking.maps import look_at_map
from medmtl.checking.opening import Opening
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import ChannelFingerprint, Fingerprint
from medmtl.data.geometry import canonical_grid, in_ras_order, orientation
from medmtl.data.volume import Grid, Volume
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask
from medmtl.tasks.voxel import LabelTask, MapTask


@dataclass(frozen=True)
class Seen:
    """What was seen of one case.

    Attributes:
        findings: its faults.
        fingerprint: None where a file was refused.
        sha256: file relative to the table's folder -> hash of its bytes, for files that were not refused.
        voxels: channel -> digest of its voxels in RAS order, however they are stored; none of a constant image.
        undeclared: voxel task -> values of a label file that holds one that is not declared.
        with_text: how many of its files hold free text in their header.
    """

    findings: Findings
    fingerprint: Fingerprint | None
    sha256: Mapping[str, str]
    voxels: Mapping[str, bytes] = field(default_factory=dict)
    undeclared: Mapping[str, frozenset[int]] = field(default_factory=dict)
    with_text: int = 0


def look_at(case: Case, config: Config, tasks: Mapping[str, Task], folder: Path) -> Seen:
    """Open every file of a case."""
    opening = Opening(case, folder)
    first: Grid | None = None
    channels: dict[str, ChannelFingerprint] = {}
    voxels: dict[str, bytes] = {}
    for number, (channel, path) in enumerate(case.images.items()):
        column = config.cohort_of(case).columns[channel]
        volume = opening.image(column, path)
        if volume is None or not _is_sound(volume, first, config, opening, column, path):
            continue
        if number == 0:
            first = volume.grid
        array = volume.array
        channels[channel] = ChannelFingerprint(float(array.min()), float(array.max()))
        if channels[channel].minimum < channels[channel].maximum:
            voxels[channel] = _digest(volume)
    labels: dict[str, SeenLabel] = {}
    maps: dict[str, npt.NDArray[np.float64]] = {}
    sizes: dict[str, npt.NDArray[np.float64]] = {}
    for name, task in tasks.items():
        if first is not None and isinstance(task, LabelTask) and task.columns[0] in case.files:
            seen = look_at_label(opening, task, first)
            if seen is not None:
                labels[name] = seen
        if first is not None and isinstance(task, BoxTask) and task.columns[0] in case.files:
            looked = look_at_boxes(opening, task, first)
            if looked is not None:
                sizes[name] = looked.size_N3
                labels |= {} if looked.label is None else {name: looked.label}
        if first is not None and isinstance(task, MapTask):
            quantiles = look_at_map(opening, task, first)
            if quantiles is not None:
                maps[name] = quantiles
    fingerprint = None
    if first is not None and not opening.findings.rejected():
        fingerprint = Fingerprint(
            canonical_grid(first),
            channels,
            {name: label.counts for name, label in labels.items()},
            {name: label.places for name, label in labels.items()},
            orientation(first),
            maps,
            sizes,
        )
    undeclared = {name: frozenset(label.counts) for name, label in labels.items() if not label.declared}
    return Seen(opening.findings, fingerprint, opening.sha256, voxels, undeclared, opening.with_text)


def _digest(volume: Volume) -> bytes:
    """Of the voxels in RAS order, so that a scan and its reordered copy are one."""
    array = in_ras_order(volume)
    found = hashlib.sha256(f"{array.shape}".encode())
    # plane by plane, as no more than one has to be copied; in Fortran order, as images are read, most need not be
    for plane in array.T:
        found.update(np.ascontiguousarray(plane).data)
    return found.digest()


def _is_sound(volume: Volume, first: Grid | None, config: Config, opening: Opening, column: str, path: Path) -> bool:
    where, findings = opening.where(column, path), opening.findings
    if volume.array.min() == volume.array.max() and "constant" not in config.cohort_of(opening.case).allow:
        fix = "list cohort.allow: [constant] if meant"
        findings.reject("B072", **where, found="every voxel equal", expected="an image", fix=fix)
        return False
    return first is None or check_channel_grid(volume.grid, first, config, where, findings)
