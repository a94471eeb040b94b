"""Labels that a training cannot learn from, told before it starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from medmtl.checking.whole import fits
from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.errors import InputError
from medmtl.planning import Plan
from medmtl.planning.shown_labels import shown_labels
from medmtl.tasks.base import Task

logger = logging.getLogger(__name__)


def refuse_unshown(
    plan: Plan, tasks: Mapping[str, Task], train: Sequence[Case], truths: Mapping[str, Mapping[str, Any]]
) -> None:
    """Warn where a view cannot show some labelled training cases of a task, and refuse what is then not to be learned.

    Args:
        plan: says which tasks see what.
        tasks: unfitted.
        train: the training cases.
        truths: task -> case id -> target.

    Raises:
        InputError: B116 where no labelled case is left, or what the task's ``fit`` says of those that are.
    """
    ids = {case.case_id for case in train}
    labelled = {name: [case_id for case_id in found if case_id in ids] for name, found in truths.items()}
    shown = shown_labels(plan, train, truths)
    for name, case_ids in labelled.items():
        left = [shown[name][case_id] for case_id in case_ids if case_id in shown[name]]
        if len(left) == len(case_ids):
            continue
        assert plan.case_view is not None
        lost = (
            f"tasks.{name} looks at windows around the lesion, and of its {len(case_ids)} labelled training cases "
            f"{len(left)} have a mask of {plan.case_view.around}"
        )
        way = "draw the others, or set views.kind: two or tiles"
        if not left:
            raise InputError(f"{lost}, so that it learns nothing; {way}", code="B116")
        found = Findings()
        if not fits(tasks[name], left, "", found):
            raise InputError(f"{lost}; of these alone: {found.rejected()[0].sentence()}; {way}")
        logger.warning("%s: it learns from these alone; %s", lost, way)
