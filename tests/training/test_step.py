from __future__ import annotations

import copy
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from medmtl.data.batch import Batch
from medmtl.errors import NumericError
from medmtl.networks.pooling.head import RunningStandardisation
from medmtl.run_folder import RunFolder
from medmtl.training.session import Session, open_session
from medmtl.training.step import task_losses, train_step
from medmtl.weighting.famo import Famo
from medmtl.weighting.fixed import Fixed


class OnDevice(torch.Tensor):
    """A tensor that counts what would wait for its device, and so does all that is computed from it."""

    waits: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        masks = [key for key in args[1:2] if isinstance(key, torch.Tensor) and key.dtype == torch.bool]
        if name in ("__bool__", "item", "tolist", "nonzero", "cpu") or (name == "__getitem__" and masks):
            cls.waits.append(name)
        return super().__torch_function__(func, types, args, kwargs)


class OnHost(torch.Tensor):
    """A tensor that lies on a device once it was moved."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **(kwargs or {}))
        return found.as_subclass(OnDevice) if func is torch.Tensor.to else found


@pytest.fixture
def session(trained_run: Path) -> Session:
    return open_session(RunFolder.open(trained_run))


def without(batch: Batch, task: str) -> Batch:
    """The same batch with nobody labelled for a task."""
    ((name, view),) = batch.views.items()
    return Batch(
        batch.step, {name: replace(view, present={**view.present, task: torch.zeros_like(view.present[task])})}
    )


def labelled_everywhere(session: Session) -> Batch:
    """A batch in which every task has a labelled sample."""
    for step in range(100):
        batch = session.training[step]
        (view,) = batch.views.values()
        if set(view.labelled()) == set(session.learner.tasks):
            return batch
    raise AssertionError("no such batch")


@pytest.mark.parametrize("absent", ["lesion", "malignancy", "risk"])
@pytest.mark.covers("P18")
def test_an_absent_task_gets_no_gradient_and_its_optimiser_state_is_untouched(session: Session, absent: str) -> None:
    learner = session.learner
    batch = labelled_everywhere(session)
    train_step(learner, batch, 1.0)
    own = learner.model.head_parameters(absent)
    if absent == "lesion":
        own += learner.model.sharing.own_parameters(absent)
    before = [p.detach().clone() for p in own]
    states = [{k: v.clone() for k, v in learner.optimiser.state[p].items()} for p in own]

    record = train_step(learner, without(batch, absent), 1.0)

    assert absent not in record.losses
    assert own
    assert all(p.grad is None for p in own)
    assert all(torch.equal(p, old) for p, old in zip(own, before, strict=True))
    for p, state in zip(own, states, strict=True):
        assert all(torch.equal(learner.optimiser.state[p][k], v) for k, v in state.items())


def test_an_unlabelled_sample_changes_no_gradient_of_its_task(session: Session) -> None:
    learner = session.learner
    batch = labelled_everywhere(session)
    ((name, view),) = batch.views.items()
    present = {**view.present, "risk": torch.tensor([True, False])}
    gradients = []
    before = {key: tensor.clone() for key, tensor in learner.model.state_dict().items()}
    for target in (0.0, 1e6):
        targets = {**view.targets, "risk": torch.tensor([0.5, target])}
        changed = Batch(batch.step, {name: replace(view, present=present, targets=targets)})
        learner.model.load_state_dict(before)
        train_step(learner, changed, 0.0)
        gradients.append([p.grad.clone() for p in learner.model.head_parameters("risk") if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_batch_without_any_label_changes_nothing(session: Session) -> None:
    learner = session.learner
    batch = session.training[0]
    for task in learner.tasks:
        batch = without(batch, task)
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    assert train_step(learner, batch, 1.0).losses == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.model.state_dict().items())


def test_no_loss_waits_for_the_device(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnDevice, "waits", [])
    batch = without(labelled_everywhere(session), "malignancy")
    (view,) = batch.views.values()
    present = {task: held.as_subclass(OnHost) for task, held in view.present.items()}
    targets = {task: held.as_subclass(OnHost) for task, held in view.targets.items()}
    image = view.image_BCDHW.as_subclass(OnHost)
    moved = replace(view, image_BCDHW=image, targets=targets, present=present).to(torch.device("cpu"))
    losses = task_losses(session.learner, moved, 0, remember=False)
    assert set(losses) == {"lesion", "risk"}
    assert all(isinstance(loss, OnDevice) for loss in losses.values())
    assert OnDevice.waits == []


@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_whose_tasks_have_weight_0_trains_nothing(session: Session, scaled: bool) -> None:
    learner = session.learner
    weights = {"lesion": 1.0, "malignancy": 0.0, "risk": 0.0}
    learner.weighting = Fixed(Fixed.Options(kind="fixed", weights=weights), tuple(learner.tasks))
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if scaled else None
    assert learner.average is not None
    parameters = [*learner.model.parameters(), *learner.average.tensors.values()]
    before = [tensor.detach().clone() for tensor in parameters]
    batch = labelled_everywhere(session)
    record = train_step(learner, without(batch, "lesion"), 1.0)
    assert set(record.losses) == {"malignancy", "risk"}
    assert (record.weights, record.gradient_norms, record.skipped) == ({}, {}, False)
    assert all(torch.equal(tensor, old) for tensor, old in zip(parameters, before, strict=True))
    assert not any(learner.optimiser.state.values())

    assert set(train_step(learner, batch, 1.0).gradient_norms) == {"trunk"}


@pytest.mark.covers("F42", "F43")
def test_a_loss_that_is_not_finite_names_step_task_and_cases(session: Session) -> None:
    batch = labelled_everywhere(session)
    ((name, view),) = batch.views.items()
    broken = replace(view, targets={**view.targets, "risk": torch.full_like(view.targets["risk"], torch.inf)})
    before = {key: tensor.clone() for key, tensor in session.learner.model.state_dict().items() if "heads" not in key}
    session.learner.last = {"risk": 0.12345, "lesion": 1.0}
    with pytest.raises(NumericError) as caught:
        train_step(session.learner, Batch(batch.step, {name: broken}), 1.0)
    cases = re.escape(", ".join(f"'{name}' (row {row})" for name, row in zip(view.case_ids, view.rows, strict=True)))
    losses = r"\{'risk': 0.1235, 'lesion': \d\.\d+, 'malignancy': \d\.\d+\}"
    assert re.fullmatch(
        rf"step {batch.step}: the loss of risk is not finite \(cases {cases}; last finite losses {losses}\); nothing "
        "of this step was kept; lower training.lr or check the named cases",
        str(caught.value),
    )
    after = session.learner.model.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def test_every_parameter_is_in_one_group_and_case_heads_are_clipped_alone(session: Session) -> None:
    groups = session.learner.optimiser.param_groups
    found = [p for group in groups for p in group["params"]]
    assert len(found) == len({id(p) for p in found}) == len(list(session.learner.model.parameters()))
    assert {group["clip_group"] for group in groups} == {"trunk", "malignancy", "risk"}
    assert all(group["weight_decay"] == 0 for group in groups if group["name"].endswith("other"))


def test_each_clipping_group_is_scaled_to_the_limit_and_its_norm_told_as_it_was(session: Session) -> None:
    learner, batch = session.learner, labelled_everywhere(session)
    learner.clip = 1e-3
    norms = train_step(learner, batch, 1.0).gradient_norms
    assert set(norms) == {"trunk", "malignancy", "risk"}
    for name, norm in norms.items():
        held = [p for group in learner.optimiser.param_groups if group["clip_group"] == name for p in group["params"]]
        clipped = torch.cat([p.grad.flatten() for p in held if p.grad is not None]).norm()
        assert norm > 2e-3 and float(clipped) == pytest.approx(1e-3, rel=1e-2)


def test_losses_are_shares_of_that_of_the_best_constant_unless_they_are_asked_for_as_they_are(session: Session) -> None:
    ((_, view),) = labelled_everywhere(session).views.items()
    plain = {"weighting": session.config.weighting.model_copy(update={"loss_scale": "none"})}
    found = []
    for config in (session.config, session.config.model_copy(update=plain)):
        learner = open_session(session.run, config=config).learner
        learner.model.eval()
        found.append(
            {name: float(loss.detach()) for name, loss in task_losses(learner, view, 0, remember=False).items()}
        )
    scales = {name: task.loss_scale for name, task in session.learner.tasks.items()}
    assert scales["risk"] != 1 != scales["malignancy"]
    assert found[0] == pytest.approx({name: loss / scales[name] for name, loss in found[1].items()})


@pytest.mark.covers("F44")
def test_a_second_look_at_the_samples_leaves_the_heads_running_moments(session: Session) -> None:
    """They are those of one pass, whatever the weighting asks for."""
    learner, batch = session.learner, labelled_everywhere(session)
    layers = [layer for layer in learner.model.modules() if isinstance(layer, RunningStandardisation)]
    before, start = copy.deepcopy(learner.model.state_dict()), [float(layer.steps) for layer in layers]
    found = []
    for weighting in (learner.weighting, Famo(Famo.Options(kind="famo"), tuple(learner.tasks))):
        learner.model.load_state_dict(before)
        learner.weighting = weighting
        train_step(learner, batch, 1.0)
        found.append([buffer.clone() for buffer in learner.model.buffers()])
        assert [float(layer.steps) for layer in layers] == [steps + 1 for steps in start]
        assert all(layer.training for layer in layers)
    assert len(layers) == 2
    assert all(torch.equal(famo, plain) for famo, plain in zip(*found, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_second_look_after_a_step_of_no_length_sees_the_same_losses(
    session: Session, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what it sees after another step is what that step did, and not other masks or moments."""
    learner, seen = session.learner, []
    learner.precision = precision
    learner.weighting = Famo(Famo.Options(kind="famo"), tuple(learner.tasks))
    monkeypatch.setattr(learner.weighting, "after_step", lambda *told: seen.append(told))
    batch = replace(labelled_everywhere(session), step=3 * learner.epoch - 1)
    for rate_factor in (0.0, 1.0):
        train_step(learner, batch, rate_factor)
    (losses, again, epoch), (before, after, _) = seen
    assert epoch == 2
    assert set(losses) == set(learner.tasks)
    assert again == losses
    assert all(after[name] != before[name] for name in before)


def test_an_infinite_gradient_is_skipped_counted_and_refused_at_the_tenth(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, moved = session.learner, list[float]()
    monkeypatch.setattr(learner.model, "after_step", moved.append)
    # so large that the scaled loss is infinite, and stays so
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=0.999)
    batch = labelled_everywhere(session)
    before = [p.detach().clone() for p in learner.model.parameters()]
    for count in range(1, 10):
        record = train_step(learner, batch, 1.0)
        assert record.skipped and learner.skipped == count
        assert not math.isfinite(record.gradient_norms["trunk"])
        assert all(map(math.isfinite, record.losses.values()))
    assert all(torch.equal(p, old) for p, old in zip(learner.model.parameters(), before, strict=True))
    with pytest.raises(NumericError, match=r"the gradient of trunk.* is not finite for the 10th time in a row .*row"):
        train_step(learner, batch, 1.0)

    learner.scaler.update(1024.0)
    assert moved == []
    assert not train_step(learner, batch, 0.5).skipped
    assert learner.skipped == 0
    assert moved == [0.5 * session.config.training.lr]
    assert not all(torch.equal(p, old) for p, old in zip(learner.model.parameters(), before, strict=True))


def test_an_infinite_gradient_without_a_scaler_is_refused_at_once(session: Session) -> None:
    learner = session.learner
    parameter = learner.model.head_parameters("risk")[0]
    parameter.register_hook(lambda gradient: gradient * math.inf)  # type: ignore[no-untyped-call]
    before = [p.detach().clone() for p in learner.model.parameters()]
    with pytest.raises(NumericError, match=r"the gradient of risk is not finite \(cases .* \(row \d+\)"):
        train_step(learner, labelled_everywhere(session), 1.0)
    assert all(torch.equal(p, old) for p, old in zip(learner.model.parameters(), before, strict=True))


@pytest.mark.covers("F45")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_after_the_update_is_seen_at_once(session: Session, value: float) -> None:
    learner = session.learner
    assert learner.average is not None
    batch = labelled_everywhere(session)
    update = learner.optimiser.step

    def broken(*arguments: Any) -> None:
        update(*arguments)
        with torch.no_grad():
            learner.model.head_parameters("malignancy")[0].view(-1)[0] = value

    learner.optimiser.step = broken  # type: ignore[assignment,method-assign]
    with pytest.raises(NumericError, match=rf"step {batch.step}: the weights of malignancy/\w+ are not finite after"):
        train_step(learner, batch, 1.0)
    assert all(bool(tensor.isfinite().all()) for tensor in learner.average.tensors.values())
