"""The rows of one case in a table of boxes, beside its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medmtl.checking.labels import FOREGROUND_LIMIT
from medmtl.checking.opening import Opening, file_place
from medmtl.data.box_table import BoxFault, BoxRow, BoxTable, boxes_of, read_box_table
from medmtl.data.boxes import cut, whole_voxels
from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.geometry import SAME_GRID_VOXELS, canonical_grid
from medmtl.data.preparation import working_grid
from medmtl.data.volume import Grid
from medmtl.metrics.box_overlap import box_iou
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import SAME_LESION, BoxTask

ROUNDING = 1e-6  # voxels


def look_at_rows(opening: Opening, task: BoxTask, grid: Grid) -> npt.NDArray[np.float64] | None:
    """The sizes of a case's boxes in mm along right, front and head, (n, 3), or None where a row was refused.

    Findings about a row have its line in the table of boxes.

    Args:
        opening: the case's.
        task: whose boxes they are.
        grid: of the case's first channel.
    """
    assert task.frame is not None
    column = task.columns[0]
    path = opening.case.files[column]
    # faults of the table as a whole are told once, not by case
    table = read_box_table(path, Findings())
    if table is None:
        return None
    where, findings = opening.where(column, path), opening.findings
    opening.sha256[where["file"]] = table.sha256
    rows = table.of(opening.case)
    if not _are_sound(table, rows, where, findings):
        return None
    upright, extents = canonical_grid(grid), table.extents(rows, task.frame)
    boxes = extents.in_voxels(upright)
    lines = [_at(where, row) for row in rows]
    if not _lie_in(boxes, upright.shape, lines, findings):
        return None
    once = extents.once()
    repeated = len(rows) - len(once.centre_N3)
    if repeated:
        found, fix = f"{repeated} of {len(rows)} rows repeat another", "each box counts once"
        findings.warn("B109", **where, found=found, expected="a row per lesion", fix=fix)
    boxes = cut(once.in_voxels(upright), upright.shape)
    alike = int((np.triu(box_iou(boxes, boxes), 1) > SAME_LESION).any(axis=0).sum())
    if alike:
        found = f"{alike} of {len(boxes)} boxes on an earlier one"
        fix = "join several readers' boxes of one lesion; of boxes as near as these a prediction keeps one"
        expected = f"overlaps up to {SAME_LESION:g} of the union"
        findings.warn("B109", **where, found=found, expected=expected, fix=fix)
    return np.asarray((boxes[:, 3:] - boxes[:, :3]) * upright.spacing)


def warn_of_small_boxes(
    sound: Sequence[tuple[Case, Fingerprint]],
    tasks: Mapping[str, Task],
    spacing: Sequence[float],
    folder: Path,
    findings: Findings,
) -> None:
    """Boxes of tables that working spacing does not show as they are.

    Args:
        sound: cases whose files were not refused.
        tasks: of the configuration.
        spacing: working voxel size in mm.
        folder: the cohort table's.
        findings: gets a warning per case.
    """
    expected = f"a voxel or more along each axis at {' x '.join(f'{size:g}' for size in spacing)} mm"
    for name, task in tasks.items():
        for case, fingerprint in sound:
            if not isinstance(task, BoxTask) or task.frame is None or name not in fingerprint.box_sizes_mm:
                continue
            target, column = working_grid(fingerprint.grid, spacing), task.columns[0]
            boxes = boxes_of(case, column, task.frame)[0].in_voxels(target)
            small = int((boxes[:, 3:] - boxes[:, :3] < 1 - ROUNDING).any(axis=1).sum())
            hidden = len(boxes) - len(np.unique(whole_voxels(boxes, target.shape), axis=0))
            parts = [f"{small} under a voxel" if small else "", f"{hidden} like another" if hidden else ""]
            if small or hidden:
                findings.warn(
                    "B110",
                    **file_place(case, column, case.files[column], folder),
                    found=f"{', '.join(filter(None, parts))} (of {len(boxes)})",
                    expected=expected,
                    fix="learned as a voxel, or as one; set a finer plan.spacing",
                )


def _at(where: Mapping[str, Any], row: BoxRow) -> dict[str, Any]:
    return {**where, "row": row.line}


def _are_sound(table: BoxTable, rows: Sequence[BoxRow], where: Mapping[str, Any], findings: Findings) -> bool:
    sound = True
    for row in rows:
        try:
            table.values(row)
        except BoxFault as fault:
            sound = False
            findings.reject_fault(fault, **_at(where, row))
    return sound


def _lie_in(
    box_N6: npt.NDArray[np.float64], shape: Sequence[int], lines: Sequence[Mapping[str, Any]], findings: Findings
) -> bool:
    """Whether every box has its middle in the scan; those that its edge cuts are told."""
    size, inside = np.array(shape), True
    for box, where in zip(box_N6, lines, strict=True):
        middle = (box[:3] + box[3:]) / 2
        beyond = max(float(-box[:3].min()), float((box[3:] - size).max()))
        if (middle < -SAME_GRID_VOXELS).any() or (middle > size + SAME_GRID_VOXELS).any():
            inside = False
            axis = int(np.maximum(-middle, middle - size).argmax())
            findings.reject(
                "B096",
                **where,
                found=f"the middle at {middle[axis]:.1f} of {size[axis]} voxels",
                expected="a box in its scan, in mm of the frame that the task states",
                fix="look at the task's boxes (ras or lps), the case's id and the unit",
            )
        elif beyond > SAME_GRID_VOXELS:
            findings.fixed("B096", **where, found=f"{beyond:.1f} voxels outside", fix="cut at the scan's edge")
        own = cut(box[None], shape)[0]
        share = float((own[3:] - own[:3]).prod() / size.prod())
        if share > FOREGROUND_LIMIT:
            found, expected = f"{share:.1%} of the scan", f"at most {FOREGROUND_LIMIT:.0%}"
            findings.warn("B107", **where, found=found, expected=expected, fix="look at the unit, which is mm")
    return inside
