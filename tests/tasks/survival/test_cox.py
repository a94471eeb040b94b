"""Cox regression a few patients at a time: what a batch adds beside those that are remembered."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medmtl.losses.cox import efron_terms
from medmtl.metrics.concordance import harrell_c
from medmtl.rng import generator
from medmtl.tasks.base import CellError, ScoredCase
from medmtl.tasks.learning import Samples
from medmtl.tasks.survival import Outcome, Survival, SurvivalOptions, SurvivalResult
from medmtl.tasks.survival.curve import GRID
from tests.metrics.survival_cohort import follow_up

EPOCH = 10


def build(outcomes: list[Outcome] | None = None, **options: Any) -> Survival:
    made = SurvivalOptions.model_validate(
        {"kind": "survival", "time": "days", "event": "died", "horizon": 40, "loss": "cox", **options}
    )
    learned = Survival("outcome", made).fit(outcomes or [Outcome(3.0, True), Outcome(5.0, False)])
    return Survival("outcome", made, json.loads(json.dumps(learned)))


def outcomes_of(seed: int, n: int = 80) -> tuple[list[Outcome], Any]:
    time_N, event_N, risk_N = follow_up(seed, n)
    return [Outcome(*pair) for pair in zip(time_N.tolist(), event_N.tolist(), strict=True)], risk_N


def step(
    task: Survival,
    patients: list[tuple[str, float, Outcome]],
    at: int = 0,
    *,
    remember: bool = True,
    present: list[bool] | None = None,
) -> tuple[float, list[float]]:
    """Loss of a batch of (case, log risk, outcome), and its gradient."""
    output = torch.tensor([[risk] for _, risk, _ in patients], requires_grad=True)
    target = torch.stack([task.encode(outcome) for _, _, outcome in patients])
    samples = Samples(tuple(name for name, _, _ in patients), at, EPOCH, remember)
    loss = task.batch_loss(output, target, torch.tensor(present or [True] * len(patients)), samples)
    torch.autograd.backward(loss)
    assert output.grad is not None and loss.dtype == torch.float32
    return loss.item(), output.grad[:, 0].tolist()


def likelihood(patients: list[tuple[str, float, Outcome]]) -> float:
    """The negative log partial likelihood, term by term; no ties."""
    return sum(
        math.log(sum(math.exp(r) for _, r, other in patients if other.time >= outcome.time)) - risk
        for _, risk, outcome in patients
        if outcome.event
    )


A, B = ("a", 0.5, Outcome(10.0, True)), ("b", -0.25, Outcome(20.0, False))
C, D = ("c", 1.0, Outcome(30.0, True)), ("d", 0.125, Outcome(40.0, False))


def test_the_loss_is_what_the_batch_adds_to_the_likelihood_per_case() -> None:
    task = build()
    assert step(task, [A, B])[0] == pytest.approx(likelihood([A, B]) / 2)
    assert step(task, [C, D], 1)[0] == pytest.approx((likelihood([A, B, C, D]) - likelihood([A, B])) / 2)


def test_the_gradient_is_the_one_of_all_patients_and_none_flows_to_the_remembered() -> None:
    task = build()
    remembered = torch.tensor([[A[1]], [B[1]]], requires_grad=True)
    target = torch.stack([task.encode(A[2]), task.encode(B[2])])
    task.batch_loss(remembered, target, torch.tensor([True, True]), Samples(("a", "b"), 0, EPOCH, remember=True))
    _, gradient = step(task, [C, D], 1)
    assert remembered.grad is None
    risk_N = torch.tensor([one[1] for one in (A, B, C, D)], dtype=torch.float64, requires_grad=True)
    time_N, event_N = (torch.tensor([float(one[2][part]) for one in (A, B, C, D)]) for part in (0, 1))
    (expected,) = torch.autograd.grad(efron_terms(risk_N, time_N, event_N).sum(), risk_N)
    assert gradient == pytest.approx((expected[2:] / 2).tolist(), abs=1e-7)


def test_one_patient_three_times_is_nobody_to_compare_with() -> None:
    task = build()
    repeats = [("a", risk, Outcome(10.0, True)) for risk in (0.5, 2.0, -1.0)]
    assert step(task, repeats) == (0.0, [0.0] * 3)
    assert step(task, repeats[:1], 1) == (0.0, [0.0])
    assert len(task.extra_state()["bank"]) == 1


def test_the_newest_sample_of_a_case_counts_and_once() -> None:
    task, other = build(), build()
    step(task, [A, B])
    old_a, old_b = ("a", -3.0, A[2]), ("b", 5.0, B[2])
    step(other, [old_a, old_b])
    expected, gradient = step(build(), [A, B])
    for one in (task, other):
        loss, reached = step(one, [A, B], 1)
        assert (loss, *reached) == pytest.approx((expected, *gradient))
    again, gradient_again = step(build(), [old_a, A, B])
    assert again == pytest.approx(expected)
    assert gradient_again == pytest.approx([0.0, *gradient])


def test_a_batch_of_censored_patients_learns_from_remembered_events_that_they_lived_to_see() -> None:
    task = build()
    early = ("e", 0.0, Outcome(5.0, False))
    assert step(task, [B, early]) == (0.0, [0.0, 0.0])
    step(task, [A], 1)
    loss, gradient = step(task, [D, early], 2)
    at_risk = math.exp(A[1]) + math.exp(B[1])
    assert loss == pytest.approx(math.log(1 + math.exp(D[1]) / at_risk) / 2)
    assert gradient[0] == pytest.approx(math.exp(D[1]) / (at_risk + math.exp(D[1])) / 2)
    assert gradient[1] == 0


def test_what_is_older_than_an_epoch_is_not_compared_with() -> None:
    task, fresh = build(), build()
    step(task, [A, B], 0)
    alone, beside = step(fresh, [C, D], 0), likelihood([A, B, C, D]) - likelihood([A, B])
    assert step(task, [C, D], EPOCH, remember=False)[0] == pytest.approx(beside / 2)
    assert step(task, [C, D], EPOCH + 1) == alone
    assert [row[0] for row in task.extra_state()["bank"]] == ["c", "d"]


def test_a_validation_reads_the_bank_and_leaves_it_as_it_is() -> None:
    task = build()
    step(task, [A, B])
    before = task.extra_state()
    found = step(task, [C], 1, remember=False)
    assert task.extra_state() == before
    assert found[0] == pytest.approx(likelihood([A, B, C]) - likelihood([A, B]))


def test_who_is_not_labelled_is_neither_compared_nor_remembered() -> None:
    task = build()
    loss, gradient = step(task, [A, ("x", 9.0, Outcome(99.0, True)), B], present=[True, False, True])
    expected, reached = step(build(), [A, B])
    assert (loss, gradient) == (expected, [reached[0], 0.0, reached[1]])
    assert [row[0] for row in task.extra_state()["bank"]] == ["a", "b"]


def test_a_restored_task_goes_on_to_the_last_bit() -> None:
    task, other = build(), build()
    step(task, [("a", 0.1, A[2]), ("b", 1 / 3, B[2])])
    other.load_extra_state(json.loads(json.dumps(task.extra_state())))
    assert step(other, [C, D], 1) == step(task, [C, D], 1)
    assert other.extra_state() == task.extra_state()


def test_gradients_of_two_patients_at_a_time_are_those_of_the_cohort() -> None:
    torch.manual_seed(0)
    values_NP = torch.randn(120, 4)
    strength = torch.tensor([1.0, -0.7, 0.4, 0.0])
    time_N = -torch.log(torch.rand(120)) * 30 * torch.exp(-values_NP @ strength)
    end_N = torch.rand(120) * 80 + 5
    outcomes = [Outcome(float(min(died, end)), bool(died <= end)) for died, end in zip(time_N, end_N, strict=True)]
    task, model = build(outcomes), nn.Linear(4, 1)
    target = torch.stack([task.encode(outcome) for outcome in outcomes])
    everybody = Samples(tuple(f"c{i}" for i in range(120)), 0, 60, remember=False)
    optimiser, cosines, ratios = torch.optim.Adam(model.parameters(), lr=1e-3), [], []
    for epoch in range(6):
        mean = torch.zeros(4)
        loss = build(outcomes).batch_loss(model(values_NP), target, torch.ones(120, dtype=torch.bool), everybody)
        (whole,) = torch.autograd.grad(loss, model.weight)
        for place, rows in enumerate(generator(0, "epoch", epoch).permutation(120).reshape(60, 2)):
            samples = Samples(tuple(f"c{i}" for i in rows), 60 * epoch + place, 60, remember=True)
            optimiser.zero_grad()
            loss = task.batch_loss(model(values_NP[rows]), target[rows], torch.tensor([True, True]), samples)
            torch.autograd.backward(loss)
            assert model.weight.grad is not None
            mean += model.weight.grad[0] / 60
            optimiser.step()
        cosines.append(float(torch.cosine_similarity(mean, whole[0], dim=0)))
        ratios.append(float(mean.norm() / whole.norm()))
    assert min(cosines) >= 0.9, cosines
    # also of one size, whatever the bank held
    assert all(0.6 < ratio < 1.5 for ratio in ratios), ratios


def test_the_scale_of_the_loss_is_that_of_a_level_risk() -> None:
    outcomes, _ = outcomes_of(1)
    task = build(outcomes)
    level, _ = step(task, [(f"c{i}", 0.0, outcome) for i, outcome in enumerate(outcomes)], remember=False)
    assert level == pytest.approx(task.loss_scale, rel=1e-6)
    assert not task.positive_loss
    assert build(loss="hazards").positive_loss


@pytest.mark.covers("B125")
@pytest.mark.parametrize("outcomes", [[Outcome(3.0, True)], [Outcome(3.0, True), Outcome(2.0, False)]])
def test_events_without_anybody_else_at_risk_are_refused(outcomes: list[Outcome]) -> None:
    with pytest.raises(CellError, match="an event that others outlive") as caught:
        build(outcomes)
    assert caught.value.code == "B125"
    assert build(outcomes, loss="hazards").loss_scale > 0


def finished(seed: int = 3) -> tuple[Survival, list[Outcome], torch.Tensor]:
    """A task whose risks are the negative logarithms of the times, which rank everybody rightly."""
    outcomes, _ = outcomes_of(seed)
    task, output_N1 = build(outcomes), -torch.tensor([[outcome.time] for outcome in outcomes]).log()
    task.finish(output_N1, torch.stack([task.encode(outcome) for outcome in outcomes]))
    return task, outcomes, output_N1


def test_a_higher_log_risk_is_an_earlier_event_and_a_higher_risk() -> None:
    task, outcomes, output_N1 = finished()
    results = [task.result(curve_G, {}) for curve_G in task.activate(output_N1)]
    risk_N = np.array([result.risk for result in results])
    assert (np.argsort(risk_N, kind="stable") == np.argsort(output_N1[:, 0].numpy(), kind="stable")).mean() > 0.9
    time_N, event_N = np.array([o.time for o in outcomes]), np.array([o.event for o in outcomes])
    assert harrell_c(time_N, event_N, risk_N).value == pytest.approx(1, abs=0.01)
    cases = [
        ScoredCase(f"c{i}", f"p{i}", None, 0, truth, result, task.result_scores(result, truth))
        for i, (truth, result) in enumerate(zip(outcomes, results, strict=True))
    ]
    metrics = task.metrics(cases)
    assert metrics["c_index"].value == pytest.approx(1, abs=0.01)
    assert metrics["skill"].value is not None and metrics["skill"].value > 0.2


def test_the_curve_is_the_baseline_to_the_power_of_the_relative_risk() -> None:
    task, _, output_N1 = finished()
    centre = float(output_N1.double().mean())
    baseline, doubled = task.activate(torch.tensor([[centre], [centre + math.log(2)]]))
    torch.testing.assert_close(doubled, baseline**2)
    assert bool((baseline.diff() <= 0).all()) and 0 < baseline[-1] < baseline[0] <= 1
    stored = task.extra_state()["baseline"]
    assert max(stored["times"]) <= 40
    first = int(min(stored["times"]) / 40 * GRID) - 1
    assert bool((task.activate(torch.tensor([[1e4]]))[0, :first] == 1).all())


def test_a_step_of_training_makes_the_baseline_void_and_a_validation_does_not() -> None:
    task, _, _ = finished()
    step(task, [A], remember=False)
    assert task.is_finished
    again = build()
    again.load_extra_state(json.loads(json.dumps(task.extra_state())))
    assert again.is_finished and again.extra_state() == task.extra_state()
    step(task, [A])
    assert not task.is_finished
    assert build(loss="hazards").is_finished and not build().is_finished


def test_a_state_that_is_none_is_refused() -> None:
    sound = finished()[0].extra_state()
    states: list[dict[str, Any]] = [
        {},
        {"bank": []},
        {**sound, "bank": [["a"]]},
        {**sound, "baseline": {"centre": 0.0}},
    ]
    for state in states:
        with pytest.raises((KeyError, TypeError, ValueError)):
            build().load_extra_state(state)


def test_a_result_is_of_the_kind_that_hazards_give() -> None:
    task, _, output_N1 = finished()
    result = task.result(task.activate(output_N1[:1])[0], {})
    assert isinstance(result, SurvivalResult)
    assert list(result.cells("x")) == ["x", "x_median_time", "x_s_40"]
