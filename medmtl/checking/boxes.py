"""The label file of a box task beside its image: its lesions and their sizes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medmtl.checking.labels import FOREGROUND_LIMIT, SeenLabel, count_values, open_label
from medmtl.checking.opening import Opening
from medmtl.data.geometry import canonical
from medmtl.data.volume import Grid
from medmtl.tasks.box_task import BoxTask


def look_at_boxes(opening: Opening, task: BoxTask, grid: Grid) -> tuple[SeenLabel, npt.NDArray[np.float64]] | None:
    """What a label file holds, and the sizes of its lesions in mm along right, front and head; None where it cannot
    belong to its image.

    Args:
        opening: the case's.
        task: whose lesions they are.
        grid: of the case's first channel.
    """
    column = task.columns[0]
    volume = open_label(opening, column, grid)
    if volume is None:
        return None
    where = opening.where(column, opening.case.files[column])
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
    return SeenLabel(counts, places, True), (boxes[:, 3:] - boxes[:, :3]) * upright.grid.spacing
