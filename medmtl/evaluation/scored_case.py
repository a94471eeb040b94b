"""One case's predictions beside its references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medmtl.data.case import Case
from medmtl.data.formats.nifti import read_image, read_label
from medmtl.data.preparation import masked
from medmtl.data.volume import Volume
from medmtl.errors import CohortError
from medmtl.evaluation.boxes import scored_boxes
from medmtl.evaluation.selection import Selection
from medmtl.tasks.base import CaseTask, Result, ScoredCase, Task
from medmtl.tasks.box_task import BoxTask
from medmtl.tasks.voxel import LabelTask, MapTask, VoxelTask


def score_case(
    selection: Selection,
    case: Case,
    results: Mapping[str, Result],
    fold: int,
    reference: Mapping[str, Mapping[str, float]],
    fitted: Mapping[str, Task],
) -> dict[str, ScoredCase]:
    """Each scored task's prediction beside its reference; ``truth`` is None where the case is not labelled.

    Args:
        selection: what is scored.
        case: one of its cases.
        results: what the model says of it.
        fold: of the model.
        reference: numbers that scores refer to.
        fitted: the tasks with what the model's training fold taught.

    Raises:
        CohortError: if a label no longer has the shape of its image.
        InputError: if a label is not the one that was checked.
    """
    found: dict[str, ScoredCase] = {}
    for name, task in selection.scored.items():
        truth = selection.truths[name].get(case.case_id)
        result = results[name]
        numbers = reference.get(name, {})
        entry = ScoredCase(case.case_id, case.patient, case.site, fold, truth, result, reference=numbers)
        if truth is not None and isinstance(task, VoxelTask):
            answer = result.mask if isinstance(task, LabelTask) else result.map
            assert answer is not None
            reader = selection.readers[name]
            label = reference_mask(task, reader, truth) if isinstance(task, LabelTask) else _read_map(reader, case)
            if label.array.shape != answer.array.shape:
                raise CohortError(
                    f"case {case.case_id!r}: the label {truth.name} no longer has the shape of its image; restore it"
                )
            case.refuse_change(truth, label.sha256)
            scores = task.mask_scores(answer.array, label.array, label.grid.spacing)
            if isinstance(task, LabelTask) and isinstance(reader, LabelTask):
                scores = task.known_scores(scores, reader.unannotated(case))
            entry = replace(entry, scores=scores)
        elif truth is not None and isinstance(task, BoxTask):
            entry = scored_boxes(entry, task, selection.readers[name], case)
        elif truth is not None:
            owner = fitted[name]
            assert isinstance(owner, CaseTask)
            entry = replace(entry, scores=owner.result_scores(result, truth))
        found[name] = entry
    return found


def reference_mask(task: LabelTask, reader: Task, path: Path) -> Volume:
    """A label file with its values as ``task`` writes them; ``reader`` is the task whose values are in the file."""
    label = read_label(path)
    if reader is task:
        return label
    assert isinstance(reader, LabelTask)
    return replace(label, array=task.translated(label.array, reader))


def _read_map(reader: Task, case: Case) -> Volume:
    """The reference values of a case, NaN where none counts; ``reader`` is the task whose columns name the files."""
    assert isinstance(reader, MapTask)
    values, column = read_image(case.files[reader.columns[0]]), reader.mask_column
    if column is None:
        return values
    mask = read_label(case.files[column])
    case.refuse_change(case.files[column], mask.sha256)
    if mask.array.shape != values.array.shape:
        raise CohortError(f"case {case.case_id!r}: the mask of {column} no longer has the shape of its map; restore it")
    return masked(values, mask)
