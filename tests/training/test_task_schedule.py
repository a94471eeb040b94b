"""A task outside its time is absent: no gradient, no change, no entry; and a resume meets the same tasks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from medmtl import api
from medmtl.distributed import Ranks
from medmtl.run_folder import RunFolder
from medmtl.sections import TimesSection
from medmtl.training import loop
from medmtl.training.optimiser import WARM_UP
from medmtl.training.session import Session, open_session
from medmtl.training.step import train_step
from medmtl.training.task_schedule import TaskSchedule
from tests.conftest import TINY
from tests.faults.processes import fingerprint, records
from tests.stopping import train_until
from tests.training.test_step import labelled_everywhere, without

TASKS = ("organ", "grade", "age")


def schedule(steps: int | None = 100, *, timed: bool = False, alternate: Any = "none", **times: Any) -> TaskSchedule:
    made = {name: TimesSection.model_validate(one) for name, one in times.items()}
    return TaskSchedule(TASKS, made, alternate, 0, steps, timed)


def when(made: TaskSchedule, name: str, steps: int) -> list[int]:
    return [step for step in range(steps) if name in made.factors(step)]


@pytest.fixture
def session(trained_run: Path) -> Session:
    return open_session(RunFolder.open(trained_run))


@pytest.mark.parametrize(
    ("times", "first", "last"),
    # 0.07 * 100 is a little more than 7, and 0.29 * 100 a little less than 29
    [({}, 0, 99), ({"start": 0.07}, 7, 99), ({"stop": 0.29}, 0, 28), ({"start": 0.25, "stop": 0.5}, 25, 49)],
)
def test_a_task_trains_from_start_until_stop(times: Any, first: int, last: int) -> None:
    made = schedule(grade=times)
    assert when(made, "grade", 100) == list(range(first, last + 1))
    assert set(made.factors(50).values()) == {1.0}
    assert when(made, "organ", 100) == list(range(100))


@pytest.mark.parametrize("steps", range(1, 30))
def test_where_one_task_stops_and_the_others_start_no_step_is_lost_or_shared(steps: int) -> None:
    made = schedule(steps, organ={"stop": 0.5}, grade={"start": 0.5}, age={"start": 0.5})
    found = [set(made.factors(step)) for step in range(steps)]
    assert all(tasks in ({"organ"}, {"grade", "age"}) for tasks in found)


def test_the_factor_rises_in_equal_steps_and_is_never_zero() -> None:
    made = schedule(20, grade={"start": 0.5, "ramp": 0.2})
    assert [made.factors(step).get("grade") for step in range(9, 15)] == [None, 0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("known", [None, 21, 60, 1000])
def test_a_training_in_minutes_is_at_its_beginning_until_the_warm_up_ends(known: int | None) -> None:
    made = schedule(known, timed=True, organ={"stop": 0.1}, grade={"start": 0.01}, age={"ramp": 0.5})
    # a resume may know the length from its first step on, which the start did not
    assert all(made.factors(step) == {"organ": 1.0} for step in range(WARM_UP))
    if known == 1000:
        assert list(made.factors(WARM_UP)) == ["organ", "grade", "age"]


def test_the_length_of_a_training_in_minutes_reaches_the_tasks(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "write_json", lambda *arguments: None)
    session.plan = replace(session.plan, minutes=1.0, steps=None)
    session.learner.times = replace(session.learner.times, steps=None, timed=True)
    # the first steps, and one that waits for a file, say nothing of the others
    each = [3.0] * 6 + [0.1] * 8 + [0.2] * 5 + [2.0]
    ends = [7.0 + sum(each[: number + 1]) for number in range(loop.WARM_STEPS)]
    limit = loop._settle_length(session, loop.WARM_STEPS, loop._Clock(7.0, ends=ends), Ranks())
    assert session.learner.times.steps == session.plan.steps == limit
    assert session.validation is not None
    # as many samples are validated every second step as cost a third of a sample's training each
    share = len(session.validation) / 3 / (2 * session.plan.batch)
    assert limit == pytest.approx(20 + (60 - sum(each)) / (0.1 * (1 + share)), abs=1)


def test_a_task_that_started_late_has_not_trained_mostly() -> None:
    """Of the steps before the early judgement of heads."""
    made = schedule(grade={"start": 0.25}, age={"start": 0.1, "stop": 0.3})
    assert made.mostly(33) == ("organ", "age")
    assert made.mostly(100) == ("organ", "grade")
    assert schedule(steps=90, timed=True, grade={"ramp": 0.1}).mostly(30) == ("organ", "age")


def test_all_tasks_that_have_labels_train_by_default(session: Session) -> None:
    assert schedule().chosen(3, {"age", "organ"}) == ("organ", "age")
    batch = session.training[0]
    assert session.learner.times.active(batch) is batch


def test_tasks_take_turns_and_who_has_no_labels_is_passed_over() -> None:
    made = schedule(alternate="cycle")
    assert [made.chosen(step, TASKS) for step in range(4)] == [("organ",), ("grade",), ("age",), ("organ",)]
    assert [made.chosen(step, {"organ", "age"}) for step in range(3)] == [("organ",), ("age",), ("age",)]
    assert made.chosen(0, set()) == ()
    late = schedule(6, alternate="cycle", age={"start": 0.5})
    turns = [late.chosen(step, TASKS) for step in range(6)]
    assert turns == [("organ",), ("grade",), ("organ",), ("organ",), ("grade",), ("age",)]


def test_a_task_is_drawn_evenly_and_by_step_alone() -> None:
    made = schedule(alternate="sample")
    drawn = [made.chosen(step, TASKS) for step in range(3000)]
    assert drawn == [schedule(alternate="sample").chosen(step, TASKS) for step in range(3000)]
    counts = Counter(drawn)
    # four standard deviations of a third of 3000
    assert set(counts) == {(name,) for name in TASKS} and all(abs(count - 1000) < 104 for count in counts.values())
    two = Counter(made.chosen(step, {"organ", "age"}) for step in range(3000))
    assert set(two) == {("organ",), ("age",)} and abs(two["organ",] - 1500) < 110
    assert drawn != [replace(made, seed=1).chosen(step, TASKS) for step in range(3000)]


@pytest.mark.parametrize("task", ["lesion", "malignancy", "risk"])
def test_a_task_outside_its_time_is_like_a_missing_label(trained_run: Path, task: str) -> None:
    ends = []
    for stopped in (True, False):
        session = open_session(RunFolder.open(trained_run))
        learner, batch = session.learner, replace(labelled_everywhere(session), step=7)
        train_step(learner, batch, 1.0)
        if stopped:
            learner.times = replace(learner.times, times={task: TimesSection(stop=0.6)}, steps=10)
        record = train_step(learner, batch if stopped else without(batch, task), 1.0)
        assert task not in record.losses and len(record.losses) == 2
        assert all(p.grad is None for p in learner.model.head_parameters(task))
        moments = [value for state in learner.optimiser.state.values() for value in state.values()]
        ends.append([*learner.model.state_dict().values(), *moments])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_in_a_ramp_the_gradient_is_scaled_and_the_logged_loss_is_not(session: Session) -> None:
    learner, batch = session.learner, labelled_everywhere(session)
    learner.clip = 1e9
    before = {key: tensor.clone() for key, tensor in learner.model.state_dict().items()}
    found = []
    steps = 4 * (batch.step + 1)
    for ramp in (0.0, 0.5):
        learner.model.load_state_dict(before)
        learner.times = replace(learner.times, times={"risk": TimesSection(ramp=ramp)}, steps=steps)
        record = train_step(learner, batch, 0.0)
        heads = {name: learner.model.head_parameters(name) for name in ("risk", "malignancy")}
        found.append(
            (record.losses, {name: [p.grad.clone() for p in ps if p.grad is not None] for name, ps in heads.items()})
        )
    (plain, full), (logged, ramped) = found
    assert logged == plain
    assert all(torch.equal(a, b) for a, b in zip(full["malignancy"], ramped["malignancy"], strict=True))
    assert full["risk"]
    for a, b in zip(full["risk"], ramped["risk"], strict=True):
        torch.testing.assert_close(0.5 * a, b, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(
    "alternate", ["cycle", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("none", "sample"))]
)
def test_a_resumed_run_ends_with_the_bytes_of_the_uninterrupted_one(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alternate: str
) -> None:
    times = {"malignancy": {"start": 0.34, "ramp": 0.5}, "lesion": {"stop": 0.67}}
    overrides = {**TINY, "training.tasks": times, "training.alternate": alternate}
    alone, run = tmp_path / "alone", tmp_path / "run"
    api.train(tiny_cohort, alone, device="cpu", overrides=overrides)
    train_until(3, tiny_cohort, run, overrides, monkeypatch)
    api.train(tiny_cohort, run, device="cpu", overrides=overrides, resume=True)
    assert fingerprint(run) == fingerprint(alone)
    assert records(run) == records(alone)

    losses = {record["step"]: set(record["losses"]) for record in records(alone) if "losses" in record}
    assert all("malignancy" not in losses[step] for step in (1, 2))
    assert all("lesion" not in losses[step] for step in (5, 6))
    if alternate == "none":
        assert all("lesion" in losses[step] for step in (1, 2, 3, 4))
        assert any("malignancy" in losses[step] for step in (3, 4, 5, 6))
    else:
        assert all(len(found) <= 1 for found in losses.values())
    # a validation is of all tasks, whatever the step trains
    validations, plain = (
        [set(record["validation"]) for record in records(path) if "validation" in record]
        for path in (alone, trained_run)
    )
    assert validations == plain and len(plain) == 3
    assert_lesion_head_stands_still(alone)


def assert_lesion_head_stands_still(run: Path) -> None:
    """What only the stopped task reaches is the same at its stop and at the end, and the rest is not."""
    steps = [f"step-{step:06d}" for step in (4, 6)]
    before, after = (
        safetensors.torch.load((run / "checkpoints" / step / "model.safetensors").read_bytes()) for step in steps
    )
    own = [name for name in before if name.startswith("heads_lesion") or ".decoders." in name]
    assert own
    assert all(torch.equal(before[name], after[name]) for name in own)
    assert not all(torch.equal(before[name], after[name]) for name in before)
