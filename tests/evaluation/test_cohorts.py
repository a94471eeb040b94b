"""Scores of each of several cohorts, each scored as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence

from medmtl.data.case import Case
from medmtl.evaluation.cohorts import cohort_scores
from medmtl.evaluation.selection import Group, Selection
from medmtl.tasks.base import ScoredCase
from medmtl.tasks.classification import Classification
from tests.evaluation.test_site import TASK, case


class Among(Classification):
    """Says of each case how many there are."""

    def among_themselves(self, cases: Sequence[ScoredCase]) -> Sequence[ScoredCase]:
        assert len(cases) == 3
        return cases[:2]


def selection(task: Classification, *cohorts: str) -> Selection:
    cases = {f"{name}{n}": Case(f"{name}{n}", "p", None, 2, {}, cohort=name) for name in cohorts for n in range(3)}
    tasks = {"grade": task}
    return Selection("val", (0,), tasks, tasks, [Group(0, [], list(cases))], cases, {})


def scored(*names: str) -> list[ScoredCase]:
    found = [case("site", truth, 0.5) for truth in ("low", "high", "high")]
    return [
        ScoredCase(f"{name}{n}", f"p{n // 2}", None, 0, f.truth, f.result)
        for name in names
        for n, f in enumerate(found)
    ]


def test_each_cohort_is_counted_and_scored_alone_and_one_without_a_label_stands_there() -> None:
    found = cohort_scores(selection(TASK, "north", "south", "west"), {"grade": scored("north", "west")})["grade"]
    assert list(found) == ["north", "south", "west"]
    assert [(part["labelled"], part["patients"]) for part in found.values()] == [(3, 2), (0, 0), (3, 2)]
    assert found["south"]["metrics"] == {}
    assert found["north"]["metrics"]["auc"] == TASK.metrics(scored("north"))["auc"].to_json()


def test_what_other_cases_tell_of_a_case_is_asked_of_its_own_cohort() -> None:
    task = Among("grade", TASK.options)
    found = cohort_scores(selection(task, "north", "south"), {"grade": scored("north", "south")})
    assert [part["labelled"] for part in found["grade"].values()] == [2, 2]


def test_one_cohort_has_no_scores_of_its_own() -> None:
    assert cohort_scores(selection(TASK, "north"), {"grade": scored("north")}) == {}
