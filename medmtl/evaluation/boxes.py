"""A case's boxes beside those of its label file."""

from __future__ import annotations

from dataclasses import replace

from medmtl.data.case import Case
from medmtl.data.formats.nifti import read_label
from medmtl.tasks.base import ScoredCase, Task
from medmtl.tasks.box_task import BoxResult, BoxTask


def scored_boxes(entry: ScoredCase, task: BoxTask, reader: Task, case: Case) -> ScoredCase:
    """The entry with its metrics, and with the reference's boxes in voxels for its truth.

    Args:
        entry: labelled; its truth is the label file.
        task: that predicted.
        reader: the task that says which lesions the file holds.
        case: what is known of the file.

    Raises:
        InputError: if the file is not the one that was checked.
    """
    assert isinstance(reader, BoxTask) and isinstance(entry.result, BoxResult)
    label = read_label(entry.truth)
    case.refuse_change(entry.truth, label.sha256)
    truth = tuple(tuple(box) for box in reader.reference(label.array).tolist())
    return replace(entry, truth=truth, scores=task.box_scores(entry.result, truth))
