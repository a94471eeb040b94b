"""Everything that is decided before the first step, with its reason.

Geometry is planned from all cases but the test split; statistics of intensities and targets come from the training
fold. The plan is frozen in ``plan.json``; training, resume, evaluation and prediction read it and decide nothing again.
"""

from __future__ import annotations

from medmtl.planning.duration import passes_per_step, with_duration
from medmtl.planning.network import plan_towers, towers_by_view
from medmtl.planning.plan import CaseView, Plan
from medmtl.planning.planner import make_plan
from medmtl.planning.rows import plan_rows
from medmtl.planning.statistics import CaseFacts, learned, observed_range, with_statistics

__all__ = [
    "CaseFacts",
    "CaseView",
    "Plan",
    "learned",
    "make_plan",
    "observed_range",
    "passes_per_step",
    "plan_rows",
    "plan_towers",
    "towers_by_view",
    "with_duration",
    "with_statistics",
]
