"""Groups, rates and optimisers: what each head gets, and that SGD resumes to the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medmtl import api
from medmtl.errors import InterruptedRun
from medmtl.run_folder import RunFolder
from medmtl.sections import TrainingSection
from medmtl.sharing.hard import Hard
from medmtl.tasks.classification import Classification
from medmtl.tasks.segmentation import Segmentation
from medmtl.training.optimiser import MOMENTUM, Schedule, make_optimiser, scheduled_factor, set_rates
from medmtl.training.session import Session, open_session
from medmtl.training.step import train_step
from medmtl.weighting.equal import Equal
from tests.conftest import TINY
from tests.faults.processes import fingerprint, records
from tests.sharing.models import model_of
from tests.test_model import make
from tests.test_model_views import make as make_viewed

SGD: dict[str, Any] = {**TINY, "training.optimiser": "sgd", "training.lr": 1e-2, "training.head_lr": 1e-2}
OWN: dict[str, Any] = {**TINY, "training.heads": {"risk": {"lr": 0.5, "warm_up": 4}, "malignancy": {"lr": 0.25}}}


def stopped_at(step: int) -> Any:
    def interrupt(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done == step:
            raise InterruptedRun("here")

    return interrupt


def rates(session: Session) -> dict[str, float]:
    return {group["name"].partition("/")[0]: group["lr"] for group in session.learner.optimiser.param_groups}


@pytest.fixture(scope="module")
def own_rates(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.train(tiny_cohort, tmp_path_factory.mktemp("own") / "run", device="cpu", overrides=OWN)


@pytest.fixture(scope="module")
def sgd(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.train(tiny_cohort, tmp_path_factory.mktemp("sgd") / "run", device="cpu", overrides=SGD)


@pytest.mark.parametrize(("made", "overrides"), [("sgd", SGD), ("own_rates", OWN)])
def test_a_resumed_run_has_the_bytes_of_the_uninterrupted_one(
    request: pytest.FixtureRequest, tiny_cohort: Path, tmp_path: Path, made: str, overrides: dict[str, Any]
) -> None:
    whole = request.getfixturevalue(made)
    # between two commits, so that a step is done again from the restored state
    with pytest.raises(InterruptedRun):
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides, progress=stopped_at(3))
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides, resume=True)
    assert fingerprint(tmp_path / "run") == fingerprint(whole)
    assert records(tmp_path / "run") == records(whole)


def test_sgd_keeps_momentum_alone_and_is_nesterov_s(sgd: Path) -> None:
    run = RunFolder.open(sgd)
    stored = run.newest()
    assert stored is not None
    assert {name.rpartition(".")[2] for name in stored.tensors["optimiser"]} == {"momentum_buffer"}
    optimiser = open_session(run).learner.optimiser
    assert isinstance(optimiser, torch.optim.SGD)
    assert {(g["momentum"], g["nesterov"], g["dampening"]) for g in optimiser.param_groups} == {(MOMENTUM, True, 0)}
    decays = {group["name"]: group["weight_decay"] for group in optimiser.param_groups}
    assert {decay for name, decay in decays.items() if name.endswith("weights")} == {3e-5}
    assert {decay for name, decay in decays.items() if name.endswith("other")} == {0.0}


def test_two_steps_of_sgd_are_those_of_the_formula(sgd: Path) -> None:
    """Clipping aside: g <- grad + decay w; b <- m b + g (b <- g at first); w <- w - rate (g + m b)."""
    session = open_session(RunFolder.open(sgd))
    learner = replace(session.learner, clip=1e9)
    weight = learner.model.head_parameters("risk")[0]
    expected, buffer = weight.detach().clone(), None
    batches = (batch for batch in map(session.training.__getitem__, range(50)))
    labelled = [batch for batch in batches if "risk" in next(iter(batch.views.values())).labelled()]
    for batch in labelled[:2]:
        train_step(learner, batch, 0.5)
        assert weight.grad is not None
        gradient = weight.grad + 3e-5 * expected
        buffer = gradient if buffer is None else MOMENTUM * buffer + gradient
        expected = expected - 0.5e-2 * (gradient + MOMENTUM * buffer)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-7)


def test_by_default_no_head_has_anything_of_its_own(trained_run: Path) -> None:
    """Also no entry of the checkpoint's groups: it is the same as before heads could have one."""
    groups = open_session(RunFolder.open(trained_run)).learner.optimiser.param_groups
    assert not any({"warm_up", "own_factor"} & group.keys() for group in groups)


def test_a_head_has_its_own_rate_and_warm_up_and_the_trunk_s_decay(own_rates: Path) -> None:
    session = open_session(RunFolder.open(own_rates))
    optimiser, schedule = session.learner.optimiser, Schedule(100, fixed_warm_up=False)
    for step in range(100):
        set_rates(optimiser, scheduled_factor(optimiser, schedule, step))
        found = rates(session)
        trunk, risk = min(1, (step + 1) / 10), min(1, (step + 1) / 4)
        if step >= 10:
            trunk = (1 - (step - 10) / 90) ** 0.9
        if step >= 4:
            risk = (1 - (step - 4) / 96) ** 0.9
        assert found["trunk"] == pytest.approx(4e-3 * trunk)
        assert found["malignancy"] == pytest.approx(0.25 * trunk)
        assert found["risk"] == pytest.approx(0.5 * risk)


def test_a_training_takes_the_rates_of_its_heads(own_rates: Path, trained_run: Path) -> None:
    stored = RunFolder.open(own_rates).newest()
    assert stored is not None
    found = {group["options"]["name"]: group["options"]["lr"] for group in stored.state["optimiser"]}
    # the last of six steps: the decay of five steps after one of warm-up, and of two after four
    assert found["trunk/weights"] == pytest.approx(4e-3 * (1 - 4 / 5) ** 0.9)
    assert found["malignancy/weights"] == pytest.approx(0.25 * (1 - 4 / 5) ** 0.9)
    assert found["risk/weights"] == pytest.approx(0.5 * (1 - 1 / 2) ** 0.9)
    assert fingerprint(own_rates) != fingerprint(trained_run)


def test_a_warm_up_longer_than_the_training_never_reaches_its_rate() -> None:
    schedule = Schedule(10, fixed_warm_up=False)
    assert [schedule.factor(step, 40) for step in (0, 9)] == [1 / 40, 10 / 40]
    unknown, known = (Schedule(steps, fixed_warm_up=True) for steps in (None, 200))
    assert [unknown.factor(step, 10) for step in range(20)] == [known.factor(step, 10) for step in range(20)]
    assert known.factor(19, 10) == 1.0 > known.factor(60, 10) > 0


def test_a_training_in_minutes_warms_up_for_50_steps_whether_or_not_its_length_is_known() -> None:
    measured, known = (Schedule(steps, fixed_warm_up=True) for steps in (None, 120))
    for step in range(50):
        assert known.factor(step) == measured.factor(step) == (step + 1) / 50
    assert [known.factor(step) for step in (50, 85)] == [1.0, pytest.approx(0.5**0.9)]


def test_the_log_has_the_gradient_norm_of_the_trunk_and_of_every_present_case_head(trained_run: Path) -> None:
    steps = [record for record in records(trained_run) if "losses" in record]
    assert len(steps) == 6
    for record in steps:
        heads = set(record["losses"]) - {"lesion"}
        assert set(record["gradient_norms"]) == heads | {"trunk"}
        assert all(norm > 0 for norm in record["gradient_norms"].values())
    assert {name for record in steps for name in record["gradient_norms"]} == {"trunk", "malignancy", "risk"}


def test_an_encoder_that_case_tasks_alone_train_has_their_rate() -> None:
    def found(model: Any, *case_tasks: str) -> dict[str, float]:
        training = TrainingSection(steps=1, lr=4e-3, head_lr=1e-3)
        weighting = Equal(Equal.Options(kind="equal"), model.tasks)
        groups = make_optimiser(model, weighting, frozenset(case_tasks), training).param_groups
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
        return {group["clip_group"]: group["base_lr"] for group in groups}

    assert found(make(organ=Segmentation, grade=Classification), "grade") == {"trunk": 4e-3, "grade": 1e-3}
    assert found(make(grade=Classification), "grade") == {"trunk": 1e-3, "grade": 1e-3}
    apart = found(model_of(Hard, {"kind": "hard", "shared_stages": 2}), "grade")
    assert apart == {"trunk": 4e-3, "trunk of case tasks": 1e-3, "grade": 1e-3}
    assert found(make_viewed(own_norms=True), "grade") == apart  # norms of the second view, which no mask reaches
    viewed = found(make_viewed(share=False), "grade")
    assert viewed == {"trunk": 4e-3, "second view's trunk": 1e-3, "grade": 1e-3}
