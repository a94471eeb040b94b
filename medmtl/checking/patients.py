"""Patients with several labelled rows, where a task takes each row for a patient."""

from __future__ import annotations

from collections.abc import Mapping

from medmtl.checking.whole import Truths
from medmtl.data.cohort import Cohort
from medmtl.data.finding import Findings
from medmtl.tasks.base import Task


def check_rows_per_patient(
    cohort: Cohort, tasks: Mapping[str, Task], truths: Truths, findings: Findings, *, to_learn: bool
) -> None:
    """One finding for each labelled row of a patient after the first.

    It is refused where the task cannot learn from it, and otherwise a warning.

    Args:
        cohort: its rows.
        tasks: unfitted.
        truths: task -> case id -> target.
        findings: gets every fault.
        to_learn: whether the tasks are to be trained on these rows.
    """
    for name, task in tasks.items():
        if task.rows_per_patient == "any":
            continue
        tell = findings.reject if to_learn and task.rows_per_patient == "one" else findings.warn
        first: dict[str, int] = {}
        for case in cohort.identified:
            if case.case_id in truths[name] and first.setdefault(case.patient, case.row) != case.row:
                tell(
                    "B198",
                    case=case.case_id,
                    row=case.row,
                    column=task.columns[0],
                    key=f"tasks.{name}",
                    found=f"row {first[case.patient]} is this patient's too",
                    expected="one labelled row per patient",
                    fix="keep that of the scan from which its time counts, and empty the target's cells of the others",
                )
