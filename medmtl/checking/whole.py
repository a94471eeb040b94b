"""The cohort as a whole: what no single row or file can tell."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from medmtl.checking.targets import is_labelled
from medmtl.data.case import Case
from medmtl.data.cohort import Cohort
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.split import Splits
from medmtl.tasks.base import CellError, Task
from medmtl.tasks.box_task import BoxTask
from medmtl.tasks.voxel import LabelTask, MapTask

Truths = Mapping[str, Mapping[str, Any]]


def check_labels(
    cohort: Cohort, tasks: Mapping[str, Task], truths: Truths, refused: Set[str], findings: Findings, *, to_learn: bool
) -> None:
    """What the table's labels of all rows together must hold.

    Args:
        cohort: its rows.
        tasks: unfitted.
        truths: task -> case id -> target.
        refused: tasks of which a cell was refused; what depends on all of their labels is not judged.
        findings: gets every fault.
        to_learn: whether the tasks are to be trained on these rows.
    """
    rows = cohort.identified
    row_of = {case.case_id: case.row for case in rows}
    for name, task in tasks.items():
        labelled, key = truths[name], f"tasks.{name}"
        missing = sum(not is_labelled(case, task) for case in rows)
        if labelled and missing:
            found, serve = (
                f"{missing} of {len(rows)} cases not labelled",
                "do not train" if to_learn else "are not scored for",
            )
            fix = f"kept; they {serve} this task"
            findings.warn("B094" if task.voxel else "B116", key=key, found=found, fix=fix)
        if name in refused:
            continue
        for doubt in task.doubts(labelled):
            row = None if doubt.case_id is None else row_of[doubt.case_id]
            where: dict[str, Any] = {"case": doubt.case_id, "row": row, "column": doubt.column, "key": key}
            findings.warn(doubt.code, **where, found=doubt.found, expected=doubt.expected, fix=doubt.fix)
        if not labelled:
            fix = "fill or rename the column"
            findings.reject("B116", key=key, found="no labelled case", expected="labels", fix=fix)
        elif to_learn and not task.voxel:
            fits(task, list(labelled.values()), "", findings)
    for case in rows:
        if not any(is_labelled(case, task) for task in tasks.values()):
            fix = "the row trains no task"
            findings.warn("B117", case=case.case_id, row=case.row, found="no target at all", fix=fix)


def fits(task: Task, truths: list[Any], where: str, findings: Findings) -> bool:
    """Whether a task can be learned from these targets; ``where`` says whose they are."""
    try:
        task.fit(truths)
    except CellError as error:
        key, found = f"tasks.{task.name}", f"{error.found}{where}"
        findings.reject(error.code, key=key, column=error.column, found=found, expected=error.expected, fix=error.fix)
        return False
    return True


def check_voxel_labels(
    tasks: Mapping[str, Task],
    truths: Truths,
    refused: Set[str],
    cases: Mapping[str, Case],
    fingerprints: Mapping[str, Fingerprint],
    splits: Splits | None,
    findings: Findings,
) -> None:
    """Every declared label is drawn, and every region known, in every training part, and maps vary.

    A task is not judged while a file of it is refused.
    """
    for name, task in tasks.items():
        if isinstance(task, MapTask):
            known = [f.map_quantiles[name] for f in fingerprints.values() if name in f.map_quantiles]
            if known and name not in refused:
                fits(task, known, "", findings)
        if name in refused or not truths[name].keys() <= fingerprints.keys():
            continue
        if isinstance(task, BoxTask):
            _fits_boxes(task, fingerprints, splits, findings)
        if not isinstance(task, LabelTask):
            continue
        labelled = truths[name].keys()
        groups: list[tuple[str, Set[str]]] = [("no case holds", labelled)] if labelled else []
        if splits is not None and labelled:
            groups += [(f"train {number} lacks", set(fold.train)) for number, fold in enumerate(splits.folds)]
        for where, ids in groups:
            present = {value for case_id in ids & labelled for value in fingerprints[case_id].label_counts[name]}
            absent = sorted(task.legal_values() - present - {0})
            if absent:
                fix = "drop the label, or change the split"
                found, expected = f"{where} {absent}", "every label in every training part"
                findings.reject("B106", key=f"tasks.{name}", found=found, expected=expected, fix=fix)
                break
            unknown = [task.untaught(cases[case_id]) for case_id in ids & labelled]
            if unknown and (never := frozenset.intersection(*unknown)):
                found, fix = f"{where} {', '.join(sorted(never))}", "set train: labels, or change the split"
                expected = "a case in every training part of which all labels of the region were annotated"
                findings.reject("B106", key=f"tasks.{name}", found=found, expected=expected, fix=fix)
                break


def _fits_boxes(
    task: BoxTask, fingerprints: Mapping[str, Fingerprint], splits: Splits | None, findings: Findings
) -> None:
    """Every training part holds a lesion."""
    sizes = {name: f.box_sizes_mm[task.name] for name, f in fingerprints.items() if task.name in f.box_sizes_mm}
    parts = [set(sizes)] if splits is None else [set(fold.train) & sizes.keys() for fold in splits.folds]
    for number, part in enumerate(parts if sizes else ()):
        if not fits(task, [sizes[name] for name in sorted(part)], f" in train {number}", findings):
            break
