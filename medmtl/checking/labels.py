"""A label file beside its image: grid and values."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medmtl.checking.grids import NO_SHIFT
from medmtl.checking.opening import Opening
from medmtl.data.finding import Findings
from medmtl.data.geometry import (
    SAME_GRID_VOXELS,
    canonical_grid,
    corner_shift_mm,
    corner_shift_voxels,
    orientation,
)
from medmtl.data.volume import Grid, Volume
from medmtl.tasks.base import CellError
from medmtl.tasks.voxel import LabelTask

FOREGROUND_LIMIT = 0.9  # of the voxels; no organ fills a scan
USUAL_IGNORE = 255  # the largest value of a byte, which many data sets give to what nobody labelled
PLACES = 64  # per value: what they all miss is looked at again


@dataclass(frozen=True)
class SeenLabel:
    """The values of a label file.

    Attributes:
        counts: value -> voxels.
        places: label value -> indices of some of its voxels (3, n) in RAS order, evenly drawn.
        declared: whether the task declares all of them; the file was refused otherwise.
    """

    counts: Mapping[int, int]
    places: Mapping[int, npt.NDArray[np.int32]]
    declared: bool


def look_at_label(opening: Opening, task: LabelTask, grid: Grid) -> SeenLabel | None:
    """What a label file holds, or None where it cannot belong to its image.

    Args:
        opening: the case's.
        task: whose label it is.
        grid: of the case's first channel.
    """
    column = task.columns[0]
    volume = open_label(opening, column, grid)
    return None if volume is None else _values(volume, task, opening, opening.case.files[column])


def open_label(opening: Opening, column: str, grid: Grid) -> Volume | None:
    """A label file on its image's grid, or None where it cannot belong to its image."""
    path = opening.case.files[column]
    where, findings = opening.where(column, path), opening.findings
    if any(same_content(path, image) for image in opening.case.images.values()):
        fix = "name the label file"
        findings.reject("B109", **where, found="the case's image", expected="a reader's mask", fix=fix)
        return None
    volume = opening.label(column, path)
    if volume is None:
        return None
    if not check_label_grid(volume.grid, grid, findings, where):
        return None
    return Volume(volume.array, grid)


def check_label_grid(label: Grid, grid: Grid, findings: Findings, where: Mapping[str, Any]) -> bool:
    """Whether a label lies on its image's grid."""
    if label.shape != grid.shape:
        fix = "redraw or resample the label"
        findings.reject("B095", **where, found=list(label.shape), expected=str(list(grid.shape)), fix=fix)
        return False
    shift = corner_shift_voxels(label, grid)
    if shift >= SAME_GRID_VOXELS:
        found = f"{shift:.2f} voxels or {corner_shift_mm(label, grid):.3g} mm apart"
        expected = f"corners less than {SAME_GRID_VOXELS} voxels from the image's"
        fix = "resample the label to the image's grid"
        own, image = canonical_grid(label), canonical_grid(grid)
        if own.shape == image.shape and corner_shift_voxels(own, image) < SAME_GRID_VOXELS:
            # the voxels coincide, and only the array begins at another corner
            found, expected = f"array axes {orientation(label)}", f"{orientation(grid)}, as the image's"
            fix = "save the label with the image's axes; its place is right, and no voxel need be resampled"
        findings.reject("B096", **where, found=found, expected=expected, fix=fix)
        return False
    if shift > NO_SHIFT:
        findings.fixed("B096", **where, found=f"corners {shift:.3f} voxels apart", fix="the image's grid is used")
    return True


def same_content(path: Path, image: Path) -> bool:
    """Whether two files are one, or equal byte by byte."""
    try:
        return os.path.samefile(path, image) or filecmp.cmp(path, image, shallow=False)
    except OSError:
        return False  # opening it says why


def _values(volume: Volume, task: LabelTask, opening: Opening, path: Path) -> SeenLabel:
    where, findings = opening.where(task.columns[0], path), opening.findings
    counts, places = count_values(volume)
    legal, ignored = task.legal_values(), task.ignored_value
    unlabelled = 0 if ignored is None else counts.get(ignored, 0)
    foreign = set(counts) - legal - {ignored}
    if foreign:
        declare = f"declare the value in tasks.{task.name}.labels"
        code, fix = "B100", f"{declare} or correct the file"
        if foreign == {USUAL_IGNORE}:
            code, fix = "B102", f"set tasks.{task.name}.ignore: {USUAL_IGNORE} if nobody labelled it, or {declare}"
        expected = f"only the values {', '.join(map(str, sorted(legal)))}"
        findings.reject(code, **where, found=sorted(counts), expected=expected, fix=fix)
        return SeenLabel(counts, places, False)
    _refuse_unannotated(counts, task, opening, where)
    places = {value: found for value, found in places.items() if value != ignored}
    foreground = sum(counts.get(value, 0) for value in legal - {0}) / max(1, volume.array.size - unlabelled)
    if not foreground:
        fix = "kept as a case with nothing to find"
        findings.warn("B105", **where, found="no voxel labelled", expected="a reader's mask", fix=fix)
    elif foreground > FOREGROUND_LIMIT:
        found, expected = f"{foreground:.1%} foreground", f"at most {FOREGROUND_LIMIT:.0%}"
        findings.warn("B107", **where, found=found, expected=expected, fix="look whether the mask is inverted")
    return SeenLabel(counts, places, True)


def _refuse_unannotated(counts: Mapping[int, int], task: LabelTask, opening: Opening, where: Mapping[str, Any]) -> None:
    """A label that the table says nobody looked for is in no file."""
    try:
        unannotated = task.unannotated(opening.case)
    except CellError:
        return  # a finding of the table
    drawn = sorted(label for label in unannotated if any(value in counts for value in task.values_of(label)))
    if drawn:
        found, expected = f"voxels of {', '.join(drawn)}", f"none, as {task.annotated_column} does not name it"
        fix = f"add the label to the cell of {task.annotated_column}, or correct the file"
        opening.findings.reject("B111", **where, found=found, expected=expected, fix=fix)


def count_values(volume: Volume) -> tuple[dict[int, int], dict[int, npt.NDArray[np.int32]]]:
    """Voxels per value, and the places of up to PLACES voxels of each value but 0."""
    flat = volume.array.ravel(order="F")
    inside = np.flatnonzero(flat)
    values = flat[inside]
    sorted_inside = inside[np.argsort(values, kind="stable")]
    found, numbers = np.unique(values, return_counts=True)
    counts = {0: flat.size - inside.size} if inside.size < flat.size else {}
    places = {}
    to_ras = np.linalg.inv(canonical_grid(volume.grid).affine) @ volume.grid.affine
    end = 0
    for value, number in zip(found, numbers, strict=True):
        counts[int(value)] = int(number)
        start, end = end, end + int(number)
        drawn = sorted_inside[np.linspace(start, end - 1, min(PLACES, number)).round().astype(int)]
        native = np.stack(np.unravel_index(drawn, volume.grid.shape, order="F"))
        places[int(value)] = np.rint(to_ras[:3, :3] @ native + to_ras[:3, 3:]).astype(np.int32)
    return counts, places
