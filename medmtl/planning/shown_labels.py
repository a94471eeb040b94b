"""The labels that a training can learn from, by what its views show of the cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medmtl.data.case import Case
from medmtl.planning.plan import Plan


def shown_labels(plan: Plan, cases: Iterable[Case], truths: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Labels without those of cases that their view cannot show.

    In training a window lies around the lesion of a case's own mask. A case without one gives the tasks of that view no
    sample, whatever its label: what is learned from labels alone, such as how often a class is, must leave it out too.

    Args:
        plan: says which tasks see what.
        cases: all that may have a label.
        truths: task -> case id -> target.

    Returns:
        As ``truths``.
    """
    view = plan.case_view
    if view is None or view.kind != "lesion" or view.around is None:
        return dict(truths)
    column = view.preparation.labels[view.around]
    masked = {case.case_id for case in cases if column in case.files}
    shown = {name: {key: found[key] for key in found if key in masked} for name, found in truths.items()}
    return {name: shown[name] if name in view.tasks else found for name, found in truths.items()}
