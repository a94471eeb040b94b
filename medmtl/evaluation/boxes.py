"""A case's boxes beside those of its label file, or of its rows in a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from medmtl.data.box_table import boxes_of
from medmtl.data.boxes import cut
from medmtl.data.case import Case
from medmtl.data.formats.nifti import read_header, read_label
from medmtl.tasks.base import ScoredCase, Task
from medmtl.tasks.box_task import BoxResult, BoxTask


def scored_boxes(entry: ScoredCase, task: BoxTask, reader: Task, case: Case) -> ScoredCase:
    """The entry with its metrics, and with the reference's boxes in voxels for its truth.

    Args:
        entry: labelled; its truth is the label file or the table.
        task: that predicted.
        reader: the task that says which lesions the file holds.
        case: what is known of the file.

    Raises:
        InputError: if the file is not the one that was checked.
    """
    assert isinstance(reader, BoxTask) and isinstance(entry.result, BoxResult)
    truth = tuple(tuple(box) for box in _reference(entry, reader, case).tolist())
    return replace(entry, truth=truth, scores=task.box_scores(entry.result, truth))


def _reference(entry: ScoredCase, reader: BoxTask, case: Case) -> npt.NDArray[np.float64]:
    if reader.frame is None:
        label = read_label(entry.truth)
        case.refuse_change(entry.truth, label.sha256)
        return reader.reference(label.array)
    # the table's own numbers: a box that was drawn into voxels would be off by up to half of one
    extents, _ = boxes_of(case, reader.columns[0], reader.frame)
    grid = read_header(next(iter(case.images.values())))
    return cut(extents.in_voxels(grid), grid.shape)
