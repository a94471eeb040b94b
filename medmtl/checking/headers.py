"""The headers of one case's files: their grids, without the voxels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medmtl.checking.box_rows import look_at_rows
from medmtl.checking.grids import check_channel_grid
from medmtl.checking.labels import check_label_grid
from medmtl.checking.opening import Opening
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.volume import Grid
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask


def look_at_headers(case: Case, config: Config, tasks: Mapping[str, Task], folder: Path) -> Findings:
    """Read the header of every file of a case; the first fault ends it."""
    opening = Opening(case, folder)
    findings = opening.findings
    first: Grid | None = None
    for channel, path in case.images.items():
        column = config.cohort_of(case).columns[channel]
        grid, where = opening.grid(column, path), opening.where(column, path)
        if grid is None or (first is not None and not check_channel_grid(grid, first, config, where, findings)):
            return findings
        first = first or grid
    assert first is not None
    for task in tasks.values():
        columns = [column for column in task.columns if task.voxel and column in case.files]
        if isinstance(task, BoxTask) and task.frame is not None and columns:
            look_at_rows(opening, task, first)
            continue
        for column in columns:
            path = case.files[column]
            grid = opening.grid(column, path)
            if grid is None:
                return findings
            # a mask without its map is nobody's, wherever it lies
            on_map = task.columns[0] in columns
            if on_map and not check_label_grid(grid, first, findings, opening.where(column, path)):
                return findings
    return findings
