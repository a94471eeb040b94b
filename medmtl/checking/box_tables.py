"""Tables of boxes beside the cohort: their form, and whose boxes they hold. Rows are looked at case by case."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from medmtl.data.box_table import CASE, BoxTable, read_box_table
from medmtl.data.case import Case
from medmtl.data.cohort import Cohort, sameness
from medmtl.data.finding import Findings
from medmtl.data.table import TABLES
from medmtl.disk import why
from medmtl.errors import WorkError
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask


class _Known:
    """A cohort's own ids: whose they are, and what is nearly one of them."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = {case.own_id: case for case in cases}
        self.alike: dict[Decimal | str, str] = {sameness(name): name for name in self.cases}


def check_box_tables(cohort: Cohort, tasks: Mapping[str, Task], findings: Findings) -> Cohort:
    """Read every table of boxes once.

    Args:
        cohort: as read.
        tasks: of the configuration.
        findings: gets every fault of a table as a whole; ``row`` is then the line of that table.

    Returns:
        The cohort; as of any label file, a refused table is left out of its cases.

    Raises:
        WorkError: if the file system fails.
    """
    # an id means a case within its own table only
    known = {name: _Known(cases) for name, cases in _by_cohort(cohort.identified).items()}
    for task in tasks.values():
        if not isinstance(task, BoxTask) or task.frame is None:
            continue
        column, refused = task.columns[0], set()
        owners: dict[Path, list[Case]] = {}
        for case in cohort.identified:
            if column in case.files:
                owners.setdefault(case.files[column], []).append(case)
        without = 0
        for path, cases in owners.items():
            where = {"column": column, "file": os.path.relpath(path, cohort.table.parent)}
            table = _opened(path, task, where, findings)
            before = len(findings.rejected())
            if table is None or not _serves(table, cases, known[cases[0].cohort], where, findings):
                refused.add(path)
            elif len(findings.rejected()) == before:  # else a row of an id that was refused may be anybody's
                without += sum(not table.of(case) for case in cases)
        if without:
            found, fix = f"{without} cases without a row", "kept as cases without lesions"
            findings.warn("B105", key=f"tasks.{task.name}", found=found, expected="a row for each lesion", fix=fix)
        cohort = _without(cohort, column, refused)
    return cohort


def _opened(path: Path, task: BoxTask, where: Mapping[str, Any], findings: Findings) -> BoxTable | None:
    if path.suffix.lower() not in TABLES:
        expected, fix = "a .csv or .tsv file", f"name tables of boxes, or remove tasks.{task.name}.boxes for masks"
        findings.reject("B030", **where, found="another kind of file", expected=expected, fix=fix)
        return None
    own = Findings()
    try:
        table = read_box_table(path, own)
    except OSError as error:
        raise WorkError(f"{path.name} could not be read: {why(error)}") from error
    findings.extend([replace(finding, column=finding.column or where["column"], file=where["file"]) for finding in own])
    return table


def _serves(
    table: BoxTable, cases: Sequence[Case], known: _Known, where: Mapping[str, Any], findings: Findings
) -> bool:
    """Whether a table holds boxes of its cases, or none at all; what it holds of others is told."""
    if not table.names_cases:
        if len(cases) > 1:
            found, fix = f"{len(cases)} cases name a table without it", "add the column"
            expected = "a column of case ids in a table of several cases"
            findings.reject("B013", **{**where, "column": CASE}, row=1, found=found, expected=expected, fix=fix)
        return len(cases) == 1
    owners = {case.own_id for case in cases}
    unknown, sound = 0, True
    for name, rows in table.rows.items():
        place = {**where, "column": CASE, "row": rows[0].line}
        if name in owners:
            continue
        if name in known.cases:
            sound = False
            fix = f"name this table in column {where['column']} of {known.cases[name].line}, or remove its boxes"
            expected, found = "boxes of cases that name this table", f"boxes of {known.cases[name].case_id}"
            findings.reject("B094", **place, case=known.cases[name].case_id, found=found, expected=expected, fix=fix)
        elif sameness(name) in known.alike:
            sound, near = False, known.alike[sameness(name)]
            fix = "write both alike"
            findings.reject("B094", **place, found=name, expected=f"the id of a case, such as {near}", fix=fix)
        else:
            unknown += len(rows)
    if unknown and not owners & table.rows.keys() and sound:
        expected, fix = "the ids of the cohort's cases", "write ids as the cohort's table does"
        findings.reject("B094", **where, found=f"{unknown} rows, none of a case", expected=expected, fix=fix)
        return False
    if unknown:
        fix = "they are ignored"
        findings.warn("B014", **where, found=f"{unknown} rows of cases not in the cohort", fix=fix)
    return sound or bool(owners & table.rows.keys())


def _by_cohort(cases: Sequence[Case]) -> dict[str | None, list[Case]]:
    found: dict[str | None, list[Case]] = {}
    for case in cases:
        found.setdefault(case.cohort, []).append(case)
    return found


def _without(cohort: Cohort, column: str, refused: set[Path]) -> Cohort:
    if not refused:
        return cohort

    def kept(case: Case) -> Case:
        if case.files.get(column) not in refused:
            return case
        return replace(case, files={name: path for name, path in case.files.items() if name != column})

    return replace(cohort, cases=tuple(map(kept, cohort.cases)), left_out=tuple(map(kept, cohort.left_out)))
