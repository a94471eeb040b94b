from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medmtl.run_folder import RunFolder
from medmtl.training.average import WeightAverage, looking
from medmtl.training.session import Session, open_session
from medmtl.training.step import train_step


@pytest.fixture
def session(trained_run: Path) -> Session:
    session = open_session(RunFolder.open(trained_run))
    for step in range(3):
        train_step(session.learner, session.training[step], 1.0)
    return session


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_a_look_sees_the_averaged_weights_and_leaves_the_model_as_it_was(
    session: Session, fails: bool, mode: bool
) -> None:
    model, average = session.learner.model.train(mode), session.learner.average
    assert average is not None
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: dict[str, torch.Tensor] = {}
    try:
        with torch.inference_mode(), looking(model, average):
            assert not any(module.training for module in model.modules())
            seen = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert all(torch.equal(seen[name], tensor) for name, tensor in average.tensors.items())
    assert any(not torch.equal(seen[name], tensor) for name, tensor in before.items())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training is mode for module in model.modules())
    train_step(session.learner, session.training[3], 1.0)


def test_without_an_average_a_look_has_the_weights_in_training(session: Session) -> None:
    model = session.learner.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with looking(model, None):
        assert not model.training
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training


def test_the_average_forgets_the_first_weights_fast_and_ends_at_its_decay() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.5)
    expected = float(model.weight.detach())
    for step in range(1, 12):
        torch.nn.init.constant_(model.weight, step)
        average.update(step)
        kept = (1 + step) / (10 + step) if step < 8 else 0.5
        expected = kept * expected + (1 - kept) * step
        assert float(average.tensors["weight"]) == pytest.approx(expected)


def test_a_step_takes_its_weights_into_the_average(session: Session) -> None:
    average = session.learner.average
    assert average is not None
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    train_step(session.learner, session.training[3], 1.0)  # the fourth step, of whose average 5 / 14 are kept
    for name, tensor in session.learner.model.state_dict().items():
        torch.testing.assert_close(average.tensors[name], before[name] * 5 / 14 + tensor * 9 / 14)
