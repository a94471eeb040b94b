"""The label file of a box task beside its image: its lesions and their sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medmtl.checking.box_rows import look_at_rows
from medmtl.checking.labels import FOREGROUND_LIMIT, SeenLabel, count_values, open_label
from medmtl.checking.opening import Opening
from medmtl.data.geometry import canonical
from medmtl.data.table import TABLES
from medmtl.data.volume import Grid
from medmtl.tasks.box_task import BoxTask


@dataclass(frozen=True)
class SeenBoxes:
    """The lesions of a case.

    Attributes:
        size_N3: in mm along right, front and head.
        label: the values of its label file; None where the boxes stand in a table.
    """

    size_N3: npt.NDArray[np.float64]
    label: SeenLabel | None


def look_at_boxes(opening: Opening, task: BoxTask, grid: Grid) -> SeenBoxes | None:
    """What a label file or a table holds, or None where it cannot belong to its image.

    Args:
        opening: the case's.
        task: whose lesions they are.
        grid: of the case's first channel.
    """
    if task.frame is not None:
        sizes = look_at_rows(opening, task, grid)
        return None if sizes is None else SeenBoxes(sizes, None)
    column = task.columns[0]
    path = opening.case.files[column]
    where = opening.where(column, path)
    if path.suffix.lower() in TABLES:
        fix = f"name label files, or set tasks.{task.name}.boxes: ras or lps for tables of boxes"
        opening.findings.reject("B050", **where, found="a table", expected="a label file", fix=fix)
        return None
    volume = open_label(opening, column, grid)
    if volume is None:
        return None
    counts, places = count_values(volume)
    foreground = 1 - counts.get(0, 0) / volume.array.size
    if not foreground:
        fix = "kept as a case without lesions"
        opening.findings.warn("B105", **where, found="no voxel labelled", expected="a reader's mask", fix=fix)
    elif foreground > FOREGROUND_LIMIT:
        found, expected = f"{foreground:.1%} foreground", f"at most {FOREGROUND_LIMIT:.0%}"
        opening.findings.warn("B107", **where, found=found, expected=expected, fix="look whether the mask is inverted")
    upright = canonical(volume)
    boxes = task.reference(upright.array)
    if len(counts.keys() - {0}) == 1 and not task.parts_are_lesions:
        _doubt_one_value(opening, task, path, upright.array, boxes[0])
    return SeenBoxes((boxes[:, 3:] - boxes[:, :3]) * upright.grid.spacing, SeenLabel(counts, places, True))


def _doubt_one_value(
    opening: Opening, task: BoxTask, path: Path, label: npt.NDArray[np.generic], box: npt.NDArray[np.float64]
) -> None:
    """A mask that says lesion or not has one box around all lesions, unless its parts are told apart."""
    low, high = box[:3].astype(int), box[3:].astype(int)
    inside = label[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] != 0
    _, parts = ndimage.label(inside, np.ones((3, 3, 3)))
    if parts > 1:
        opening.findings.warn(
            "B108",
            **opening.where(task.columns[0], path),
            found=f"one value in {parts} parts",
            expected="a value for each lesion",
            fix=f"kept as one lesion; set tasks.{task.name}.components: true if each part is one",
        )
