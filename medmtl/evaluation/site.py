"""How much of a ranking the site explains: the score within sites, and what the site alone reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medmtl.metrics.estimate import Estimate
from medmtl.tasks.base import CaseTask, ScoredCase, Task

Learned = Mapping[int, Sequence[tuple[str | None, Any]]]
"""Fold -> site and target of the labelled cases that its model was trained on."""

CHANCE = 0.5  # of every ranking metric: pairs ranked rightly by a coin
NOTHING_WITHIN = "no site of any one fold holds cases that can be compared"


def within_estimates(task: Task, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
    """Every metric of a ranking task where cases of one fold and site only are compared.

    Returns:
        Nothing for a task without a ranking metric, or with fewer than two sites.
    """
    ranks = isinstance(task, CaseTask) and task.ranking_metric is not None
    return task.metrics(within_sites(cases)) if ranks and len({case.site for case in cases}) > 1 else {}


def site_estimates(
    task: CaseTask, cases: Sequence[ScoredCase], learned: Learned | None, within: Mapping[str, Estimate] | None = None
) -> dict[str, Estimate]:
    """A ranking task's score within sites, and the score of its sites.

    ``METRIC_within_site`` compares cases of one fold and site only, so that telling sites apart earns nothing.
    ``METRIC_site_alone`` is what a model reaches that was trained on the same cases and sees nothing but the site: its
    answer is the distribution of the site's targets, or of all targets for a site that it has not seen.

    Args:
        task: the fitted task.
        cases: its labelled cases.
        learned: what each fold's model was trained on; None for another cohort, of whose sites it has seen none.
        within: of :func:`within_estimates`, where they were computed before.

    Returns:
        Both by name, without ``learned`` the first alone; nothing for a task without a ranking metric, or with fewer
        than two sites.
    """
    metric = task.ranking_metric
    found = within_estimates(task, cases) if within is None else within
    if metric is None or not found:
        return {}
    own = found[metric]
    if own.value is None:
        own = replace(own, why=NOTHING_WITHIN)
    if learned is None:
        return {f"{metric}_within_site": own}
    alone = task.metrics(_known_by_site(task, cases, learned))[metric]
    return {f"{metric}_within_site": own, f"{metric}_site_alone": alone}


def headline(task: CaseTask, estimates: Mapping[str, Estimate]) -> str | None:
    """The metric to read first where it is not the primary one.

    Returns:
        The within-site score where the site alone ranks better than chance (its interval lies above 0.5); else None.
    """
    alone = estimates.get(f"{task.ranking_metric}_site_alone")
    confounded = alone is not None and alone.ci95 is not None and alone.ci95[0] > CHANCE
    return f"{task.ranking_metric}_within_site" if confounded else None


def within_sites(cases: Sequence[ScoredCase]) -> list[ScoredCase]:
    """The cases with each site of each fold as a fold of its own; a site that is not stated counts as one."""
    places = sorted({_place(case) for case in cases})
    number = {place: index for index, place in enumerate(places)}
    return [replace(case, fold=number[_place(case)]) for case in cases]


def _place(case: ScoredCase) -> tuple[int, str]:
    return case.fold, case.site or ""


def _known_by_site(task: CaseTask, cases: Sequence[ScoredCase], learned: Learned) -> list[ScoredCase]:
    answers = {}
    for fold, site in {(case.fold, case.site) for case in cases}:
        seen = [truth for where, truth in learned[fold] if where == site]
        answers[fold, site] = task.constant_result(seen or [truth for _, truth in learned[fold]])
    return [replace(case, result=answers[case.fold, case.site]) for case in cases]
