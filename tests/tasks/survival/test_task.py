"""Survival: what is learned, predicted and scored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lifelines import KaplanMeierFitter
from lifelines.utils import concordance_index, restricted_mean_survival_time

from medmtl.metrics.figures import KaplanMeierFigure
from medmtl.metrics.kaplan_meier import censoring_curve
from medmtl.tasks.base import CaseTask, CellError, ScoredCase
from medmtl.tasks.survival import Outcome, Survival, SurvivalOptions, SurvivalResult
from medmtl.tasks.survival.curve import GRID
from tests.metrics.survival_cohort import BrierScore, follow_up
from tests.tasks.contract import CaseTaskContract

HORIZON = 40.0


class TestContract(CaseTaskContract):
    options: ClassVar[Mapping[str, Any]] = {"kind": "survival", "time": "days", "event": "died", "horizon": 60}
    truths: ClassVar[Sequence[Any]] = [
        Outcome(10.0, True),
        Outcome(80.0, False),
        Outcome(25.0, True),
        Outcome(90.0, True),
        Outcome(33.0, False),
    ]
    primary = "c_index"
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"horizon": 0}, "greater than 0"),
        ({"horizon": math.inf}, "finite"),
        ({"event": "days"}, "one column"),
        ({"max_time": 50}, "below the horizon"),
        ({"intervals": 0}, "greater than or equal to 1"),
        ({"loss": "breslow"}, "cox"),
        ({"loss": "cox", "intervals": 5}, "intervals belongs to loss: hazards"),
    )

    def activation_of(self, task: CaseTask, truth: Any) -> torch.Tensor:
        # a level curve that loses just the share that the case lost; the trapezoid at 0 starts at 1
        target = task.encode(truth)
        _, lost = task.probe_pair(torch.zeros(GRID), target)
        return torch.full((GRID,), (GRID * (1 - lost) - 0.5) / (GRID - 0.5), dtype=torch.float64)


class TestCoxContract(TestContract):
    options: ClassVar[Mapping[str, Any]] = {**TestContract.options, "loss": "cox"}
    # of the first and third, and of the second and fourth, one is at risk at the other's event
    truths: ClassVar[Sequence[Any]] = [
        Outcome(25.0, True),
        Outcome(10.0, True),
        Outcome(90.0, True),
        Outcome(80.0, False),
        Outcome(33.0, False),
    ]
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()


def build(seed: int = 0, n: int = 80, **options: Any) -> tuple[Survival, list[Outcome]]:
    time_N, event_N, _ = follow_up(seed, n)
    outcomes = [Outcome(*pair) for pair in zip(time_N.tolist(), event_N.tolist(), strict=True)]
    made = SurvivalOptions.model_validate(
        {"kind": "survival", "time": "days", "event": "died", "horizon": HORIZON, **options}
    )
    return Survival("outcome", made, json.loads(json.dumps(Survival("outcome", made).fit(outcomes)))), outcomes


def first_answer(task: Survival) -> SurvivalResult:
    """The answer of a head that says Kaplan-Meier's hazards."""
    hazard_K = torch.tensor(task.fitted["hazards"])
    return task.result(task.activate(torch.logit(hazard_K)[None])[0], {})


@pytest.mark.covers("B125")
@pytest.mark.parametrize("outcomes", [[], [Outcome(3.0, False)] * 4])
def test_nobody_with_the_event_is_refused(outcomes: list[Outcome]) -> None:
    with pytest.raises(CellError) as caught:
        build()[0].fit(outcomes)
    assert (caught.value.code, caught.value.column) == ("B125", "died")


def test_intervals_follow_the_events_unless_they_are_declared() -> None:
    assert len(build(n=40)[0].fitted["cuts"]) == 5
    _, outcomes = build(n=300)
    events = sum(outcome.event for outcome in outcomes)
    assert len(build(n=300)[0].fitted["cuts"]) == min(20, events // 10)
    assert len(build(intervals=3)[0].fitted["cuts"]) == 3


def test_the_constant_answer_is_nearly_kaplan_meier() -> None:
    task, outcomes = build(n=300, intervals=20)
    fitter = KaplanMeierFitter().fit([o.time for o in outcomes], [o.event for o in outcomes])
    constant = task.constant_result(outcomes)
    assert constant.survival == pytest.approx(fitter.predict(HORIZON), abs=1e-9)
    assert constant.risk == pytest.approx(1 - restricted_mean_survival_time(fitter, HORIZON) / HORIZON, abs=5e-3)
    first = first_answer(task)
    np.testing.assert_allclose(first.curve, constant.curve, atol=0.04)


def test_hazards_become_a_curve_that_is_averaged_between_folds_on_one_grid() -> None:
    options = SurvivalOptions(kind="survival", time="days", event="died", horizon=40)
    task = Survival("outcome", options, {"cuts": [10.0, 30.0]})
    curve_BG = task.activate(torch.logit(torch.tensor([[0.5, 0.75], [0.1, 0.2]])))
    assert curve_BG.shape == (2, GRID)
    times = torch.arange(1, GRID + 1) * 0.4
    expected = torch.where(times <= 10, 0.5 ** (times / 10), 0.5 * 0.25 ** ((times.clamp(max=30) - 10) / 20))
    torch.testing.assert_close(curve_BG[0], expected)
    result = task.result(curve_BG[0], {})
    assert result.median_time == pytest.approx(10, abs=0.01)
    assert result.cells("outcome") == {
        "outcome": result.risk,
        "outcome_median_time": result.median_time,
        "outcome_s_40": pytest.approx(0.125),
    }
    assert task.result(curve_BG[1], {}).median_time is None
    assert task.result(curve_BG[1], {}).risk < result.risk
    both = task.result(curve_BG.mean(dim=0), {})
    assert both.survival == pytest.approx((0.125 + 0.72) / 2)


def test_autocast_does_not_coarsen_the_curve() -> None:
    task, _ = build()
    output = torch.randn(3, len(task.fitted["cuts"]), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = task.activate(output)
    torch.testing.assert_close(inside, task.activate(output), rtol=0, atol=0)


def test_a_horizon_that_is_no_whole_number_names_its_columns() -> None:
    task, _ = build(horizon=1.5)
    assert list(first_answer(task).cells("x")) == ["x", "x_median_time", "x_s_1.5"]
    assert "auc_1.5" in task.metrics([])


def scored(seed: int = 3, n: int = 60) -> tuple[Survival, list[ScoredCase]]:
    """Cases of a model whose curves are exponential in a risk that orders them somewhat."""
    task, _ = build(seed=9, n=120)
    time_N, event_N, risk_N = follow_up(seed, n)
    grid = torch.arange(1, GRID + 1, dtype=torch.float64) / GRID * HORIZON
    cases = []
    for i, row in enumerate(zip(time_N.tolist(), event_N.tolist(), risk_N.tolist(), strict=True)):
        truth = Outcome(*row[:2])
        result = task.result(torch.exp(-grid * math.exp(row[2]) / 40), {})
        cases.append(ScoredCase(f"c{i}", f"p{i}", None, 0, truth, result, task.result_scores(result, truth)))
    return task, cases


def test_metrics_are_those_of_other_libraries_with_the_training_folds_censoring() -> None:
    task, cases = scored()
    time_N = np.array([case.truth.time for case in cases])
    event_N = np.array([case.truth.event for case in cases])
    risks = [case.result.cells("x")["x"] for case in cases]
    metrics = task.metrics(cases)
    assert list(metrics) == ["c_index", "c_index_uno", "brier_integrated", "skill", "auc_40"]
    assert metrics["c_index"].value == pytest.approx(concordance_index(time_N, [-float(r) for r in risks], event_N))
    assert metrics["c_index"].extra == {"n_events": int(event_N.sum())}
    assert metrics["c_index"].ci95 is not None

    _, trained_on = build(seed=9, n=120)
    followed = censoring_curve(np.array([o.time for o in trained_on]), np.array([o.event for o in trained_on]))
    counted = [case.scores["censoring_weight"] for case in cases]
    expected_N = 1 / followed.at(time_N, before=True)
    for weight, time, event, expected in zip(counted, time_N, event_N, expected_N, strict=True):
        assert weight == (pytest.approx(expected) if event and time <= HORIZON else None)

    grid = np.linspace(0, HORIZON, GRID + 1)
    curves = np.array([[1.0, *case.result.curve] for case in cases if isinstance(case.result, SurvivalResult)])
    score = BrierScore()
    score(
        torch.from_numpy(curves),
        torch.from_numpy(event_N),
        torch.from_numpy(time_N),
        new_time=torch.from_numpy(grid),
        weight=torch.from_numpy(np.where(time_N <= HORIZON, expected_N, 1.0)),  # of later events nothing is asked
        weight_new_time=torch.from_numpy(1 / followed.at(grid)),
    )
    assert metrics["brier_integrated"].value == pytest.approx(float(score.integral()), abs=1e-6)
    assert metrics["brier_integrated"].better == "lower"
    baseline = np.mean([case.scores["brier_kaplan_meier"] for case in cases])
    assert metrics["skill"].value == pytest.approx(1 - metrics["brier_integrated"].value / baseline)
    assert all(estimate.ci95 is not None for estimate in metrics.values())


def test_where_few_are_followed_the_grid_ends_and_the_area_has_no_value() -> None:
    task, _ = build(horizon=300, n=100)
    assert task.fitted["followed_to"] < 90
    result = first_answer(task)
    early, late = (task.result_scores(result, Outcome(time, True)) for time in (10.0, 200.0))
    assert (early["censoring_weight"] is None, late["censoring_weight"] is None) == (False, True)
    assert all(isinstance(late[key], float) for key in ("brier_integrated", "brier_kaplan_meier"))
    cases = [ScoredCase("c", "p", None, 0, Outcome(10.0, True), result, early)]
    area = task.metrics(cases)["auc_300"]
    assert (area.value, area.why) == (
        None,
        "fewer than a tenth of the cases that weights come from are followed to 300",
    )


def test_pairs_are_formed_within_folds() -> None:
    task, cases = scored()
    whole = task.metrics(cases)["c_index"]
    halves = [ScoredCase(**{**vars(case), "fold": int(i % 2)}) for i, case in enumerate(cases)]
    assert task.metrics(halves)["c_index"].value != whole.value
    apart = [ScoredCase(**{**vars(case), "fold": i}) for i, case in enumerate(cases)]
    assert task.metrics(apart)["c_index"].value is None


def test_a_censored_cases_probe_target_is_what_kaplan_meier_expects_of_its_rest() -> None:
    task, _ = build()
    activation = torch.ones(GRID)
    lost = {
        outcome: task.probe_pair(activation, task.encode(outcome))[1]
        for outcome in (Outcome(10.0, True), Outcome(10.0, False), Outcome(50.0, False), Outcome(50.0, True))
    }
    assert next(iter(lost.values())) == pytest.approx(0.75)
    assert 0 < lost[Outcome(10.0, False)] < 0.75
    assert lost[Outcome(50.0, False)] == lost[Outcome(50.0, True)] == 0


def test_strata_spread_events_over_time_and_censored_cases() -> None:
    task, _ = build()
    many = {f"c{i}": Outcome(float(i + 1), i % 2 == 0) for i in range(60)}
    strata = task.strata(many)
    assert {key: list(strata.values()).count(key) for key in strata.values()} == {
        "early event": 10,
        "middle event": 10,
        "late event": 10,
        "censored": 30,
    }
    few = {f"c{i}": Outcome(float(i + 1), i % 3 > 0) for i in range(12)}
    assert task.strata(few) == {name: "event" if outcome.event else "censored" for name, outcome in few.items()}


def test_another_horizon_is_another_target() -> None:
    task, _ = build()
    with pytest.raises(ValueError, match="its horizon is 30, and the model's is 40"):
        task.same_target(build(horizon=30)[0])


def test_cells_of_the_truth_are_time_and_event() -> None:
    task, _ = build()
    assert task.truth_cells(Outcome(12.0, True)) == {"outcome_true": 12.0, "outcome_true_event": 1.0}
    assert task.truth_cells(None) == {"outcome_true": None, "outcome_true_event": None}


def test_the_figure_shows_halves_of_each_fold() -> None:
    task, cases = scored()
    (figure,) = task.figures(cases)
    assert isinstance(figure, KaplanMeierFigure)
    assert [name for name, _, _ in figure.groups] == ["lower risk (30)", "higher risk (30)"]
    assert (figure.title, figure.column) == (
        "outcome: halves by predicted risk, split at the median of each fold",
        task.options.time,
    )
    assert sorted(time for times in figure.followed for time in times) == sorted(case.truth.time for case in cases)
    assert all((times[0], values[0]) == (0.0, 1.0) for _, times, values in figure.groups)
    at_20 = [values[int(np.searchsorted(times, 20, side="right")) - 1] for _, times, values in figure.groups]
    assert at_20[0] > at_20[1]


def test_the_expected_width_is_that_of_repeated_cohorts() -> None:
    task, _ = build()
    fold = [(f"p{i}", Outcome(float(i + 1), i % 2 == 0)) for i in range(80)]
    width = task.expected_width([fold[:40], fold[40:]])
    assert (width.metric, width.rarer) == ("c_index", 40)
    assert width.width == pytest.approx(0.16, abs=0.02)
    assert task.expected_width([fold[:8]]).why == "fewer than 10 patients"
    assert task.expected_width([fold[:14]]).why == "fewer than 10 patients with an event"


def test_censored_cases_alone_train() -> None:
    task, _ = build()
    logits = torch.zeros(2, len(task.fitted["cuts"]), requires_grad=True)
    target = torch.stack([task.encode(Outcome(50.0, False)), task.encode(Outcome(30.0, False))])
    loss = task.reduce(task.loss(logits, target), torch.ones(2, dtype=torch.bool))
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert (logits.grad[0] > 0).any()  # lower hazards are likelier


def test_a_cohort_followed_for_less_time_than_the_training_fold_is_scored_by_its_own_censoring() -> None:
    rng = np.random.default_rng(0)
    task, _ = build(n=200)
    died_N = rng.exponential(HORIZON, 3000)
    followed_N = rng.uniform(0.3 * HORIZON, 0.8 * HORIZON, 3000)
    right = task.result(torch.exp(-torch.arange(1, GRID + 1, dtype=torch.float64) / GRID), {})

    def among(truths: Sequence[Outcome]) -> list[ScoredCase]:
        asked = [
            ScoredCase(str(i), str(i), None, 0, truth, right, task.result_scores(right, truth))
            for i, truth in enumerate(truths)
        ]
        return list(task.among_themselves(asked))

    everything = among([Outcome(float(time), True) for time in died_N])
    short = among([Outcome(float(min(d, f)), bool(d <= f)) for d, f in zip(died_N, followed_N, strict=True)])
    # the true score up to the end of the short follow-up, by its weights and by the uncensored times
    until, longest = (cases[0].scores["followed_to"] for cases in (short, everything))
    assert until is not None and longest is not None
    assert until < 0.8 * HORIZON < longest
    grid = np.linspace(0, HORIZON, GRID + 1)
    grid = grid[grid < until]
    curve_G = np.exp(-grid / HORIZON)
    truth_NG = died_N[:, None] > grid
    expected = np.trapezoid(((truth_NG - curve_G) ** 2).mean(axis=0), grid) / grid[-1]
    assert np.mean([case.scores["brier_integrated"] for case in short]) == pytest.approx(expected, abs=0.004)
    assert task.among_themselves([]) == []
