"""What a cohort will let be said: labelled cases per part of the split, and how wide intervals will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medmtl.checking.checked import Checked
from medmtl.data.split import Splits
from medmtl.metrics.expected_width import ExpectedWidth
from medmtl.tasks.base import Task
from medmtl.tasks.voxel import LabelTask


@dataclass(frozen=True)
class Part:
    """One part of the split, as one task sees it.

    Attributes:
        name: ``fold K`` (its validation cases), ``all folds`` (pooled out of fold) or ``test``.
        labelled: cases.
        width: of the interval of the primary metric.
    """

    name: str
    labelled: int
    width: ExpectedWidth


@dataclass(frozen=True)
class Expectation:
    """One task over all parts.

    Attributes:
        task, kind: of the configuration.
        parts: at least one.
    """

    task: str
    kind: str
    parts: tuple[Part, ...]


def expectations(checked: Checked, tasks: Mapping[str, Task], splits: Splits) -> tuple[Expectation, ...]:
    """Per task the labelled cases of each part, and the width of the 95 % interval to expect.

    Args:
        checked: a cohort without a reject.
        tasks: its tasks, unfitted.
        splits: of its patients.
    """
    parts = {f"fold {number}": [fold.val] for number, fold in enumerate(splits.folds)}
    if len(splits.folds) > 1:
        parts["all folds"] = [fold.val for fold in splits.folds]
    if splits.test:
        parts["test"] = [splits.test]
    return tuple(
        Expectation(name, task.kind, tuple(_part(part, ids, checked, task) for part, ids in parts.items()))
        for name, task in tasks.items()
    )


def _part(name: str, folds: Sequence[Sequence[str]], checked: Checked, task: Task) -> Part:
    patients = {case.case_id: case.patient for case in checked.cohort.cases}
    truths = checked.truths[task.name]
    labelled = [[case_id for case_id in fold if case_id in truths] for fold in folds]
    # an empty mask that is rightly predicted has no score
    scored = [[case_id for case_id in fold if _drawn(checked, case_id, task)] for fold in labelled]
    width = task.expected_width([[(patients[case_id], truths[case_id]) for case_id in fold] for fold in scored])
    return Part(name, sum(map(len, labelled)), width)


def _drawn(checked: Checked, case_id: str, task: Task) -> bool:
    if not isinstance(task, LabelTask):
        return True
    return bool(checked.fingerprints[case_id].label_counts[task.name].keys() & (task.legal_values() - {0}))
