"""Scores of each of several cohorts, each scored as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from medmtl.data.case import Case
from medmtl.evaluation.cohorts import cohort_scores
from medmtl.evaluation.selection import Group, Selection
from medmtl.tasks.base import ScoredCase, Task
from medmtl.tasks.classification import Classification
from medmtl.tasks.survival import Survival, SurvivalOptions
from medmtl.tasks.survival.outcome import Outcome
from tests.evaluation.test_site import TASK, case


class Among(Classification):
    """Says of each case how many there are."""

    def among_themselves(self, cases: Sequence[ScoredCase]) -> Sequence[ScoredCase]:
        assert len(cases) == 3
        return cases[:2]


@dataclass(frozen=True)
class Told(Group):
    """Cases of a model whose tasks are known without its run."""

    tasks: dict[str, Task] = field(default_factory=dict)

    def fitted(self) -> dict[str, Task]:
        return self.tasks


def selection(task: Classification, *cohorts: str) -> Selection:
    cases = {f"{name}{n}": Case(f"{name}{n}", "p", None, 2, {}, cohort=name) for name in cohorts for n in range(3)}
    tasks: dict[str, Task] = {"grade": task}
    return Selection("val", (0,), tasks, tasks, [Told(0, [], list(cases), tasks)], cases, {})


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


def test_a_case_is_compared_with_what_its_own_folds_model_learned() -> None:
    """Survival's skill is to the curve of the training fold, which every fold has of its own."""
    options = SurvivalOptions(kind="survival", time="days", event="died", horizon=10)
    random, cases, found, groups = np.random.default_rng(0), {}, [], []
    for fold, mean in enumerate((3.0, 30.0)):
        outcomes = [Outcome(min(float(time), 20.0), bool(time < 20)) for time in random.exponential(mean, 60)]
        task = Survival("risk", options, Survival("risk", options).fit(outcomes))
        constant = task.constant_result(outcomes)
        for number, truth in enumerate(outcomes):
            name = f"{fold}-{number}"
            cases[name] = Case(name, name, None, 2, {}, cohort="north" if number % 2 else "south")
            found.append(ScoredCase(name, name, None, fold, truth, constant, task.result_scores(constant, truth)))
        groups.append(Told(fold, [], [name for name in cases if name.startswith(f"{fold}-")], {"risk": task}))
    chosen = Selection("val", (0, 1), groups[0].tasks, groups[0].tasks, groups, cases, {})
    for part in cohort_scores(chosen, {"risk": found})["risk"].values():
        assert part["labelled"] == 60
        assert abs(part["metrics"]["skill"]["value"]) < 1e-9
