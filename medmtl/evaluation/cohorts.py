"""The scores of each of several cohorts beside the pooled ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medmtl.evaluation.selection import Selection
from medmtl.tasks.base import CaseTask, ScoredCase


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
    found: dict[str, dict[str, Any]] = {}
    for task, cases in scored.items() if len(names) > 1 else ():
        found[task] = {}
        for name in names:
            owner = selection.tasks[task]
            own: Sequence[ScoredCase] = [case for case in cases if cohort_of[case.case_id] == name]
            own = owner.among_themselves(own) if isinstance(owner, CaseTask) else own
            metrics = owner.metrics(own) if own else {}
            estimates = {metric: estimate.to_json() for metric, estimate in metrics.items()}
            patients = len({case.patient for case in own})
            found[task][name] = {"labelled": len(own), "patients": patients, "metrics": estimates}
    return found
