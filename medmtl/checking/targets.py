"""Which columns hold targets, and what their cells say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.cohort import Cohort, CohortLayout
from medmtl.data.finding import Findings
from medmtl.sections import CohortSection
from medmtl.tasks.base import CellError, Task
from medmtl.tasks.voxel import LabelTask


def layout(config: Config, tasks: Mapping[str, Task], section: CohortSection | None = None) -> CohortLayout:
    """Which columns of the table are read, and as what; of one of several cohorts, those of its section."""
    section = section or config.cohort
    targets = frozenset(column for task in tasks.values() for column in task.columns)
    return CohortLayout(
        table=section.table,
        case=section.case,
        patient=section.patient,
        site=section.site,
        channels=section.columns,
        value_columns=tuple(dict.fromkeys(c for task in tasks.values() for c in _value_columns(task))),
        file_columns=tuple(dict.fromkeys(c for task in tasks.values() if task.voxel for c in task.columns)),
        covariates=tuple(section.covariates),
        split=config.split.column,
        missing=section.missing,
        roots=section.roots,
        allow_shared_image="shared-image" in section.allow,
        optional=section.optional,
        may_lack=targets if config.cohorts else frozenset(),
    )


def _value_columns(task: Task) -> tuple[str, ...]:
    """Columns whose cells are read as text."""
    if not task.voxel:
        return task.columns
    return (task.annotated_column,) if isinstance(task, LabelTask) and task.annotated_column is not None else ()


def read_targets(cohort: Cohort, tasks: Mapping[str, Task], findings: Findings) -> dict[str, dict[str, Any]]:
    """Parse every target cell, also of rows that were left out; a bad one is a finding and gives no target."""
    truths: dict[str, dict[str, Any]] = {name: {} for name in tasks}
    for case in cohort.identified:
        for name, task in tasks.items():
            try:
                truth = task.read(case)
            except CellError as error:
                findings.reject_fault(error, case=case.case_id, row=case.row)
                continue
            if truth is not None:
                truths[name][case.case_id] = truth
    return truths


def is_labelled(case: Case, task: Task) -> bool:
    """Whether the table has something for the task, valid or not; a voxel task has its labels in the first column."""
    columns = task.columns[:1] if task.voxel else task.columns
    return any(case.cells[column] is not None for column in columns)


def refused_targets(cohort: Cohort, tasks: Mapping[str, Task], truths: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Tasks of which a cell was refused; what their labels hold together cannot be told."""
    return {
        name
        for name, task in tasks.items()
        if any(case.case_id not in truths[name] and is_labelled(case, task) for case in cohort.identified)
    }
