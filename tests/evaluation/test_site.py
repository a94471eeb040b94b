from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from medmtl.data.case import Case
from medmtl.data.split import Fold, Splits
from medmtl.evaluation.score import Scores, metrics_json
from medmtl.evaluation.selection import learned_by
from medmtl.evaluation.site import NOTHING_WITHIN, headline, site_estimates, within_estimates
from medmtl.evaluation.tables import summary_table, within_site_table
from medmtl.metrics.estimate import Estimate
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import ScoredCase
from medmtl.tasks.classification import Classification, ClassificationOptions, ClassificationResult
from medmtl.tasks.regression.task import Regression, RegressionOptions
from medmtl.tasks.survival import Outcome, Survival, SurvivalOptions, SurvivalResult

TASK = Classification("grade", ClassificationOptions(kind="classification", column="grade", classes=("low", "high")))


def case(site: str | None, truth: str, high: float, fold: int = 0, number: int = 0) -> ScoredCase:
    name = f"{site}{truth}{fold}{number}"
    result = ClassificationResult(label="high" if high > 0.5 else "low", probabilities={"low": 1 - high, "high": high})
    return ScoredCase(name, name, site, fold, truth, result)


def confounded() -> list[ScoredCase]:
    """40 cases; 18 of 20 at ``a`` are high, 2 of 20 at ``b``. The model tells the sites apart and nothing else."""
    return [
        case(site, "high" if rank < highs else "low", probability, number=rank)
        for site, highs, probability in (("a", 18, 0.8), ("b", 2, 0.2))
        for rank in range(20)
    ]


def learned_of(cases: list[ScoredCase]) -> dict[int, list[tuple[str | None, str]]]:
    return {fold: [(c.site, c.truth) for c in cases] for fold in {c.fold for c in cases}}


def test_a_model_that_tells_sites_apart_earns_nothing_within_them() -> None:
    cases = confounded()
    found = site_estimates(TASK, cases, learned_of(cases))
    assert list(found) == ["auc_within_site", "auc_site_alone"]
    assert found["auc_within_site"].value == 0.5
    # 20 x 20 pairs: 18 x 18 right, 2 x 2 wrong, and 2 x 18 x 2 within a site, which are ties
    assert found["auc_site_alone"].value == pytest.approx((18 * 18 + 0.5 * 2 * 18 * 2) / 400)
    assert TASK.metrics(cases)["auc"].value == pytest.approx(0.9)
    assert headline(TASK, found) == "auc_within_site"


def test_sites_are_compared_within_a_fold_only() -> None:
    cases = [case("a", "high", 0.6), case("a", "low", 0.4), case("b", "low", 0.7)]
    cases += [case("a", "low", 0.9, fold=1), case("b", "high", 0.3, fold=1), case("b", "low", 0.5, fold=1)]
    within = site_estimates(TASK, cases, learned_of(cases))["auc_within_site"]
    # pairs: fold 0 at a (0.6 over 0.4, right); fold 1 at b (0.3 under 0.5, wrong)
    assert within.value == 0.5


def test_the_site_knows_its_training_cases_and_not_those_that_are_scored() -> None:
    cases = [case("a", "high", 0.9), case("a", "low", 0.1), case("b", "low", 0.2)]
    upside_down = {0: [("a", "low"), ("b", "high")]}
    # (high at a, low at b) is wrong, (high, low) at a is a tie
    assert site_estimates(TASK, cases, upside_down)["auc_site_alone"].value == 0.25


def test_a_site_that_was_not_trained_on_has_the_share_of_all() -> None:
    cases = [case("a", "high", 0.9), case("new", "low", 0.1)]
    learned = {0: [("a", "high"), ("a", "high"), ("b", "low")]}  # a: 1, new: 2/3
    assert site_estimates(TASK, cases, learned)["auc_site_alone"].value == 1.0


def test_sites_with_equal_shares_reach_chance_and_the_primary_metric_stays_the_headline() -> None:
    cases = [
        case(site, truth, 0.8 if truth == "high" else 0.3, number=n)
        for site in ("a", "b")
        for truth in ("low", "high")
        for n in range(10)
    ]
    found = site_estimates(TASK, cases, learned_of(cases))
    assert found["auc_site_alone"].value == 0.5
    assert found["auc_within_site"].value == 1.0
    assert headline(TASK, found) is None


def test_a_site_that_may_rank_no_better_than_chance_is_no_headline() -> None:
    cases = [
        case(site, "high" if rank < highs else "low", 0.5, number=rank)
        for site, highs in (("a", 11), ("b", 9))
        for rank in range(20)
    ]
    found = site_estimates(TASK, cases, learned_of(cases))
    low, high = found["auc_site_alone"].ci95 or (1.0, 0.0)
    assert low < 0.5 < 0.55 < high
    assert headline(TASK, found) is None


def test_few_cases_are_not_called_confounded() -> None:
    cases = [case("a", "high", 0.9, number=n) for n in range(4)] + [case("b", "low", 0.1, number=n) for n in range(4)]
    found = site_estimates(TASK, cases, learned_of(cases))
    assert found["auc_site_alone"].value == 1.0
    assert found["auc_site_alone"].ci95 is None
    assert headline(TASK, found) is None


def test_where_the_site_is_the_target_nothing_can_be_said_within_it() -> None:
    cases = [case(site, truth, 0.9, number=n) for site, truth in (("a", "high"), ("b", "low")) for n in range(12)]
    found = site_estimates(TASK, cases, learned_of(cases))
    assert (found["auc_within_site"].value, found["auc_within_site"].why) == (None, NOTHING_WITHIN)
    assert found["auc_site_alone"].value == 1.0
    assert headline(TASK, found) == "auc_within_site"


def test_the_reason_is_true_where_each_site_has_both_classes_in_different_folds() -> None:
    cases = [case(site, truth, 0.9, fold) for site in "ab" for fold, truth in enumerate(("high", "low"))]
    within = site_estimates(TASK, cases, learned_of(cases))["auc_within_site"]
    assert (within.value, within.why) == (None, "no site of any one fold holds cases that can be compared")


def test_the_reason_is_true_of_survival_whose_target_has_no_classes() -> None:
    options = SurvivalOptions(kind="survival", time="days", event="died", horizon=10)
    task = Survival("risk", options, {"followed_to": 1.0})
    cases = [ScoredCase(site, site, site, 0, Outcome(3.0, True), SurvivalResult(risk=0.5)) for site in "ab"]
    within = site_estimates(task, cases, None)["c_index_within_site"]
    assert (within.value, within.why) == (None, "no site of any one fold holds cases that can be compared")


@pytest.mark.parametrize("site", ["a", None])
def test_one_site_has_nothing_to_be_told_apart(site: str | None) -> None:
    cases = [case(site, "high", 0.9), case(site, "low", 0.1)]
    assert site_estimates(TASK, cases, learned_of(cases)) == {}


def test_a_task_that_ranks_nothing_is_left_alone() -> None:
    task = Regression("size", RegressionOptions(kind="regression", column="size"))
    assert site_estimates(task, confounded(), {0: []}) == {}


def test_metrics_json_names_the_headline_and_keeps_the_primary_metric() -> None:
    cases = confounded()
    learned = {"grade": learned_of(cases)}
    entry = metrics_json("val", [0], 40, {"grade": TASK}, {"grade": cases}, learned)["tasks"]["grade"]
    assert (entry["primary"], entry["headline"]) == ("auc", "auc_within_site")
    assert {"auc", "auc_within_site", "auc_site_alone"} <= entry["metrics"].keys()


def test_the_score_within_sites_is_computed_once_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = confounded()
    learned = {"grade": learned_of(cases)}
    within = {"grade": within_estimates(TASK, cases)}
    fresh = metrics_json("val", [0], 40, {"grade": TASK}, {"grade": cases}, learned)
    calls = []
    whole = Classification.metrics

    def counted(self: Classification, scored: Sequence[ScoredCase]) -> dict[str, Estimate]:
        calls.append(len(scored))
        return whole(self, scored)

    monkeypatch.setattr(Classification, "metrics", counted)
    metrics = metrics_json("val", [0], 40, {"grade": TASK}, {"grade": cases}, learned, within=within)
    assert metrics == fresh
    assert len(calls) == 2  # of all pairs, and of the site alone
    scores = Scores("val", (0,), {"grade": TASK}, {"grade": cases}, metrics, Path(), {}, within=within)
    table = within_site_table(scores, "grade")
    summary_table(scores)
    assert table is not None and table.rows[0][3] == "0.500"
    assert "average_precision" in [row[0] for row in table.rows] and "Not so of average precision" in table.note
    assert len(calls) == 2


class Run:
    """A run that is nothing but its fold and the split."""

    def __init__(self, fold: int | str) -> None:
        self.fold = fold

    def load_manifest(self) -> dict[str, Any]:
        return {"fold": self.fold}

    def load_splits(self) -> Splits:
        return Splits((Fold(("a", "b"), ("c", "d")), Fold(("c", "d"), ("a", "b", "e"))), ("t",), ())

    def load_plan(self) -> Any:
        return SimpleNamespace(case_view=None)


@pytest.mark.parametrize(
    ("folds", "split", "trained"),
    [
        ((0, 1), "val", {0: "ab", 1: "d"}),
        ((1,), "train", {1: "d"}),
        ((0, 1), "test", {0: "abd"}),  # all models answer together, under the first one's number
        (("none",), "test", {0: "abde"}),  # also who is in some folds alone
    ],
)
def test_a_site_is_learned_from_the_labelled_cases_that_the_models_were_trained_on(
    folds: tuple[int | str, ...], split: str, trained: dict[int, str]
) -> None:
    cases = [Case(name, name, f"at {name}", 2, {}) for name in "abcdet"]
    targets = {name: f"truth of {name}" for name in "abdet"}
    runs = cast("list[RunFolder]", [Run(fold) for fold in folds])
    expected = {fold: [(f"at {name}", targets[name]) for name in names] for fold, names in trained.items()}
    assert learned_by(runs, split, cases, {"grade": targets}) == {"grade": expected}
