"""The scores of each of several cohorts beside the pooled ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medmtl.evaluation.selection import Selection
from medmtl.tasks.base import CaseTask, ScoredCase, Task


def cohort_scores(selection: Selection, scored: Mapping[str, Sequence[ScoredCase]]) -> dict[str, dict[str, Any]]:
    """Task -> cohort -> its number of labelled cases and of their patients, and all metrics over them.

    A cohort without a labelled case stands there with none and without metrics. Nothing where there is one cohort.
    What a metric asks of a whole cohort, such as how long it was followed, is asked of each by itself.

    Args:
        selection: what is scored.
        scored: task -> its labelled cases.
    """
    cohort_of = {
        case_id: cohort
        for group in selection.groups
        for case_id in group.case_ids
        if (cohort := selection.cases[case_id].cohort) is not None
    }
    names = sorted(set(cohort_of.values()))
    if len(names) < 2:
        return {}
    owners = [(set(group.case_ids), group.fitted()) for group in selection.groups]
    found: dict[str, dict[str, Any]] = {}
    for task, cases in scored.items():
        found[task] = {}
        for name in names:
            own: Sequence[ScoredCase] = [case for case in cases if cohort_of[case.case_id] == name]
            own = [case for ids, tasks in owners for case in _among(tasks[task], own) if case.case_id in ids]
            metrics = selection.tasks[task].metrics(own) if own else {}
            estimates = {metric: estimate.to_json() for metric, estimate in metrics.items()}
            patients = len({case.patient for case in own})
            found[task][name] = {"labelled": len(own), "patients": patients, "metrics": estimates}
    return found


def _among(task: Task, cases: Sequence[ScoredCase]) -> Sequence[ScoredCase]:
    """What the cases tell of each other, beside what the training fold of one model did."""
    return task.among_themselves(cases) if isinstance(task, CaseTask) else cases
