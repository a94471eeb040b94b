"""What is measured of the tasks' gradients is what they are, and measuring changes no bit of a training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medmtl import api
from medmtl.rng import derive_seed
from medmtl.run_folder import RunFolder
from medmtl.training import step
from medmtl.training.conflict import measure, significant
from medmtl.training.session import Session, open_session
from medmtl.training.step import task_losses, train_step
from tests.conftest import TINY
from tests.faults.processes import records
from tests.training.test_step import labelled_everywhere

STAGES = {"early": [nn.Parameter(torch.zeros(2))], "late": [nn.Parameter(torch.zeros(2, 1))]}


def linear(*gradient: float) -> torch.Tensor:
    """A loss with a known gradient on the four numbers of ``STAGES``."""
    weights = torch.cat([p.reshape(-1) for held in STAGES.values() for p in held])
    return (weights * torch.tensor(gradient)).sum() + 1


def measured(*arguments: Any) -> dict[str, Any]:
    found = measure(*arguments)
    assert found is not None
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture
def session(trained_run: Path) -> Session:
    return open_session(RunFolder.open(trained_run))


@pytest.mark.parametrize("degrees", [0, 1, 30, 90, 120, 180])
@pytest.mark.parametrize("length", [1e-6, 1.0, 1e4])
def test_two_gradients_at_a_known_angle_show_it(degrees: float, length: float) -> None:
    angle = math.radians(degrees)
    found = measured(
        {"a": linear(2, 0, 0, 0), "b": linear(length * math.cos(angle), 0, length * math.sin(angle), 0)}, STAGES
    )
    assert found["cosines"] == {"a|b": pytest.approx(math.cos(angle), abs=1e-6)}
    assert found["norms"] == pytest.approx({"a": 2.0, "b": length}, rel=1e-6)
    gram = [[4.0, 2 * length * math.cos(angle)], [2 * length * math.cos(angle), length**2]]
    for row, expected in zip(found["gram"], gram, strict=True):
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-6 * length)


def test_each_stage_has_a_cosine_of_its_own() -> None:
    found = measured({"a": linear(1, 0, 3, 0), "b": linear(2, 0, -4, 0), "c": linear(0, 1, 0, 0)}, STAGES)
    assert found["stages"]["early"] == {"a|b": 1.0, "a|c": 0.0, "b|c": 0.0}
    # a task that does not reach a stage has no direction there
    assert found["stages"]["late"] == {"a|b": -1.0, "a|c": None, "b|c": None}
    assert found["cosines"]["a|b"] == significant((2 - 12) / math.sqrt(10 * 20))


def test_a_loss_that_reaches_nothing_shared_has_norm_zero_and_no_direction() -> None:
    own = nn.Parameter(torch.ones(3))
    found = measured({"a": linear(1, 0, 0, 0), "b": own.sum(), "c": torch.tensor(1.0)}, STAGES)
    assert found["norms"] == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert set(found["cosines"].values()) == {None}
    assert own.grad is None


def test_what_is_not_finite_is_null() -> None:
    found = measured({"a": linear(math.inf, 0, 0, 0), "b": linear(1, 0, 0, 0)}, STAGES)
    assert found["norms"] == {"a": None, "b": 1.0}
    assert found["cosines"] == {"a|b": None}
    found = measured({"a": linear(math.inf, 0, math.inf, 0), "b": linear(1, 0, -1, 0)}, STAGES)
    assert found["gram"][0] == [None, None] and found["stages"]["late"] == {"a|b": None}


def test_frozen_parameters_are_left_out() -> None:
    held = nn.Parameter(torch.ones(2), requires_grad=False)
    assert measure({"a": linear(1, 0, 0, 0)}, {"trunk": [held]}) is None
    assert measure({}, STAGES) is None
    found = measured({"a": linear(3, 0, 4, 0)}, {"trunk": [held], **STAGES})
    assert found["norms"] == {"a": 5.0} and found["cosines"] == {}
    assert list(found["stages"]) == ["early", "late"]


def test_the_scaler_keeps_what_half_precision_would_lose_and_is_divided_away() -> None:
    weights = nn.Parameter(torch.zeros(4))

    def loss() -> torch.Tensor:
        return weights.half().float().sum() * 1e-9

    assert measured({"a": loss()}, {"trunk": [weights]})["norms"] == {"a": 0.0}
    found = measured({"a": loss()}, {"trunk": [weights]}, lambda value: value * 2.0**16)
    assert found["norms"]["a"] == pytest.approx(2e-9, rel=1e-2)


def test_the_record_of_a_step_is_that_of_each_task_s_own_backward_pass(session: Session) -> None:
    learner = session.learner
    for number in range(2):  # a head that starts at zero sends nothing into the trunk
        train_step(learner, session.training[number], 1.0)
    batch = labelled_everywhere(session)
    (view,) = batch.views.values()
    stages = learner.model.stages()
    rows = []
    # the same dropout, and the same running statistics of the heads
    torch.manual_seed(derive_seed(learner.seed, "step", batch.step))
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    losses = task_losses(learner, view, batch.step, remember=False)
    for name in learner.tasks:
        learner.model.zero_grad()
        losses[name].backward(retain_graph=True)  # type: ignore[no-untyped-call]
        shared = learner.model.trained().shared
        rows.append(torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in shared]))
    expected = torch.stack(rows).double()
    learner.model.load_state_dict(before)
    learner.telemetry = batch.step + 1

    found = train_step(learner, batch, 1.0).conflict

    assert found is not None
    assert found["tasks"] == list(learner.tasks)
    norms = expected.norm(dim=1)
    assert found["norms"] == pytest.approx(dict(zip(learner.tasks, norms.tolist(), strict=True)), rel=1e-4)
    cosine = float(expected[0] @ expected[1] / (norms[0] * norms[1]))
    assert found["cosines"]["lesion|malignancy"] == pytest.approx(cosine, abs=1e-4)
    assert list(found["stages"]) == list(stages)
    assert found["weights"] == dict.fromkeys(learner.tasks, 1.0)


@pytest.mark.parametrize("scaled", [False, True])
def test_measuring_changes_no_bit(trained_run: Path, scaled: bool) -> None:
    states = []
    for telemetry in (0, 1):
        session = open_session(RunFolder.open(trained_run))
        learner = session.learner
        learner.telemetry = telemetry
        learner.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if scaled else None
        found = [train_step(learner, session.training[number], 1.0).conflict for number in range(3)]
        assert [record is not None for record in found] == [bool(telemetry)] * 3
        assert learner.average is not None
        optimiser = [value for state in learner.optimiser.state.values() for value in state.values()]
        states.append([*learner.model.state_dict().values(), *optimiser, *learner.average.tensors.values()])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_nothing_is_measured_when_off_or_between(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(step, "measure", fail)
    assert train_step(session.learner, session.training[0], 1.0).conflict is None
    session.learner.telemetry = 2
    assert train_step(session.learner, session.training[2], 1.0).conflict is None
    with pytest.raises(AssertionError, match="measured"):
        train_step(session.learner, session.training[3], 1.0)


def test_a_measured_run_has_the_bytes_of_one_that_was_not(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "training.telemetry": 2}
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides)
    measured_at = [record["step"] for record in records(tmp_path / "run") if "conflict" in record]
    assert measured_at == [2, 4, 6]
    measured_run, plain = (RunFolder.open(path).newest() for path in (tmp_path / "run", trained_run))
    assert measured_run is not None and plain is not None
    for group in ("model", "optimiser", "average"):
        ours, theirs = measured_run.tensors[group], plain.tensors[group]
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
