"""The table of an experiment, or its several tables as one."""

from __future__ import annotations

from collections.abc import Mapping

from medmtl.checking.targets import layout
from medmtl.config import Config
from medmtl.data.cohort import Cohort, read_cohort
from medmtl.data.finding import Findings
from medmtl.data.joined import finding_of, join
from medmtl.errors import CohortError
from medmtl.spelling import did_you_mean
from medmtl.tasks.base import Task


def read_sources(config: Config, tasks: Mapping[str, Task], findings: Findings) -> Cohort:
    """Read the cohort, or every cohort and join them.

    Args:
        config: the resolved configuration.
        tasks: its tasks, unfitted.
        findings: gets every fault of every table.

    Raises:
        CohortError: if a table cannot be read as one, or lacks a declared column; carries all findings.
        WorkError: if the file system fails.
    """
    if not config.cohorts:
        return read_cohort(layout(config, tasks), findings)
    found: dict[str, Cohort] = {}
    errors: list[CohortError] = []
    for section in config.cohorts:
        own = Findings()
        try:
            found[section.name] = read_cohort(layout(config, tasks, section), own)
        except CohortError as error:
            errors.append(error)
        findings.extend([finding_of(finding, section.name) for finding in own])
    if errors:
        raise CohortError(str(errors[0]), tuple(findings))
    for task in tasks.values():
        _check_columns(task, found, findings)
    return join(found, frozenset(section.name for section in config.cohorts if section.site is not None))


def _check_columns(task: Task, found: Mapping[str, Cohort], findings: Findings) -> None:
    """A cohort without the columns of a task is not labelled for it; one with half of them is a mistake."""
    for name, cohort in found.items():
        columns = dict.fromkeys(task.columns)
        absent = [column for column in columns if column not in cohort.columns]
        if not absent:
            continue
        where = {"key": f"tasks.{task.name}", "column": absent[0], "found": f"no such column in {name}"}
        hint = did_you_mean(absent[0], cohort.columns, "; ")
        if len(absent) < len(columns):
            fix = f"add it, or remove {', '.join(sorted(set(columns) - set(absent)))} from that table{hint}"
            findings.reject("B013", **where, expected="all columns of a task, or none", fix=fix)
        else:
            fix = f"kept: none of its cases is labelled for the task{hint}"
            findings.warn("B094" if task.voxel else "B116", **where, fix=fix)
