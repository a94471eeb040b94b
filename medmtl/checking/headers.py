"""The headers of one case's files: their grids, without the voxels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmtl.checking.box_rows import look_at_rows
from medmtl.checking.grids import check_channel_grid
from medmtl.checking.labels import check_label_grid
from medmtl.checking.opening import Opening, file_place
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.formats.nifti import ImageError, read_header
from medmtl.data.volume import Grid
from medmtl.errors import WorkError
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask


def look_at_headers(case: Case, config: Config, tasks: Mapping[str, Task], folder: Path) -> Findings:
    """Read the header of every file of a case; the first fault ends it."""
    findings = Findings()
    first: Grid | None = None
    for channel, path in case.images.items():
        where = file_place(case, config.cohort_of(case).columns[channel], path, folder)
        grid = _grid(case, path, where, findings)
        if grid is None or (first is not None and not check_channel_grid(grid, first, config, where, findings)):
            return findings
        first = first or grid
    assert first is not None
    for task in tasks.values():
        columns = [column for column in task.columns if task.voxel and column in case.files]
        if isinstance(task, BoxTask) and task.frame is not None and columns:
            opening = Opening(case, folder)
            look_at_rows(opening, task, first)
            findings.extend(list(opening.findings))
            continue
        for column in columns:
            where = file_place(case, column, case.files[column], folder)
            grid = _grid(case, case.files[column], where, findings)
            if grid is None:
                return findings
            # a mask without its map is nobody's, wherever it lies
            if task.columns[0] in columns and not check_label_grid(grid, first, findings, where):
                return findings
    return findings


def _grid(case: Case, path: Path, where: Mapping[str, Any], findings: Findings) -> Grid | None:
    try:
        return read_header(path)
    except ImageError as error:
        findings.reject_fault(error, **where)
        return None
    except WorkError as error:
        raise case.failed(error) from error
