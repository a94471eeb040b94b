"""One optimiser step: features, losses of the tasks that are present, gradients, update."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from medmtl.data.batch import Batch, ViewBatch
from medmtl.device import Precision, autocast
from medmtl.errors import NumericError, WorkError
from medmtl.model import MultiTaskModel
from medmtl.networks.pooling.head import RunningStandardisation
from medmtl.rng import derive_seed
from medmtl.tasks.base import Task
from medmtl.tasks.learning import LossFault, Samples
from medmtl.training.average import WeightAverage
from medmtl.training.conflict import measure, rounded
from medmtl.training.optimiser import clip_groups, set_rates
from medmtl.training.ranks import JointStep
from medmtl.training.task_schedule import TaskSchedule
from medmtl.weighting.base import Weighting, one_process

MAX_SKIPPED = 10


@dataclass
class Learner:
    """What a step works with: what it trains, and the settings of the training.

    Attributes:
        model, weighting, optimiser, average, scaler: what is trained; ``average`` and ``scaler`` may be None.
        tasks: by name, in the configured order.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        clip: largest gradient norm per clipping group.
        seed: of dropout and the like.
        device: where the model lies.
        prior_scale: whether losses are divided by that of the best constant predictor.
        epoch: steps of a pass over the training cases.
        frozen, frozen_steps: names of the parameters that the first steps leave as they are, and how many do.
        times: which tasks a step trains.
        telemetry: steps between two measurements of the tasks' gradients; 0 measures nothing.
        joint: what is exchanged with the other processes that share the batch; None for a single process.
        skipped: steps in a row that the scaler has left out.
        last: each task's newest finite loss, for the message about one that is not.
    """

    model: MultiTaskModel
    weighting: Weighting
    optimiser: torch.optim.Optimizer
    average: WeightAverage | None
    scaler: torch.amp.GradScaler | None
    tasks: Mapping[str, Task]
    precision: Precision
    clip: float
    seed: int
    device: torch.device
    prior_scale: bool
    epoch: int
    frozen: tuple[str, ...] = ()
    frozen_steps: int = 0
    times: TaskSchedule = field(default_factory=TaskSchedule)
    telemetry: int = 0
    joint: JointStep | None = None
    skipped: int = 0
    last: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StepRecord:
    """What a step reports.

    Attributes:
        losses: per present task, on the frozen loss scale.
        weights: as used by the weighting, or empty.
        gradient_norms: per clipping group, before clipping.
        skipped: whether the scaler left the update out.
        conflict: how the tasks' gradients lie to each other, where that was measured.
    """

    losses: Mapping[str, float]
    weights: Mapping[str, float] = field(default_factory=dict)
    gradient_norms: Mapping[str, float] = field(default_factory=dict)
    skipped: bool = False
    conflict: Mapping[str, Any] | None = None


def task_losses(
    learner: Learner, view: ViewBatch, step: int, *, remember: bool, asked: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Scalar loss of each task labelled in this view; absent tasks have no entry, and their heads are not run.

    Args:
        learner: what is trained.
        view: the samples.
        step: that they were drawn for; in evaluation, the steps done.
        remember: whether its tasks may remember the samples.
        asked: whose heads to run, where that is not for this view's samples alone to say.

    Raises:
        WorkError: if a task's class returned no loss per sample, as one of the user's own may.
    """
    present = view.labelled()
    with autocast(learner.device, learner.precision):
        outputs = learner.model(view.image_BCDHW, asked or present, view.covariates_BN, view.tiles)
    losses = {}
    samples = Samples(view.case_ids, step, learner.epoch, remember)
    for name in present:
        task = learner.tasks[name]
        try:
            loss = task.batch_loss(outputs[name], view.targets[name], view.present[name], samples)
        except LossFault as fault:
            raise WorkError(f"tasks.{name} (kind {task.kind}): {fault}; correct its class") from fault
        losses[name] = loss / task.loss_scale if learner.prior_scale else loss
    return losses


def train_step(learner: Learner, batch: Batch, rate_factor: float) -> StepRecord:
    """Update the model once.

    Args:
        learner: what is trained.
        batch: the step's.
        rate_factor: of :func:`medmtl.training.optimiser.scheduled_factor`.

    Raises:
        NumericError: if a loss, a gradient or a weight is NaN or infinite; the step, the task and the cases are named.
            The learner is then of no use: nothing of it may be kept.
    """
    batch = learner.times.active(batch)
    _seed(learner, batch)
    learner.model.train()
    if learner.frozen:
        freeze(learner.model, learner.frozen, batch.step < learner.frozen_steps)
    learner.optimiser.zero_grad(set_to_none=True)
    losses = _batch_losses(learner, batch, remember=True)
    if not losses:
        return StepRecord({})
    values = dict(zip(losses, _read(list(losses.values())), strict=True))
    _refuse_losses(learner, values, batch)
    learner.last |= values
    scale = learner.scaler.scale if learner.scaler is not None else (lambda loss: loss)
    losses = learner.times.ramped(losses, batch.step)
    due = learner.telemetry and (batch.step + 1) % learner.telemetry == 0
    # not the reduction of the weighting's own rows, which notes that it was called
    reduce = learner.joint.summed if learner.joint is not None else one_process
    conflict = measure(losses, learner.model.stages(), scale, reduce) if due else None
    trained = learner.model.trained() if learner.joint is None else learner.joint.hooked(learner.model.trained())
    weights = learner.weighting.backward(losses, trained=trained, scale=scale) or {}
    conflict = conflict and {**conflict, "weights": rounded(weights)}
    if learner.joint is not None:
        learner.joint.add_gradients(learner.weighting, trained, len(losses))
    if not _has_gradients(learner):  # as where nobody is labelled: all present tasks have weight 0
        return StepRecord(values, dict(weights), conflict=conflict)
    norms = _update(learner, rate_factor, batch)
    if not learner.skipped:
        learner.model.after_step(learner.optimiser.param_groups[0]["lr"])
    _refuse_weights(learner, batch)
    learner.weighting.after_step(values, _losses_again(learner, batch), batch.step // learner.epoch)
    if learner.average is not None:
        learner.average.update(batch.step + 1)
    return StepRecord(values, dict(weights), norms, skipped=learner.skipped > 0, conflict=conflict)


def _seed(learner: Learner, batch: Batch) -> None:
    torch.manual_seed(derive_seed(learner.seed, "step", batch.step))


def _batch_losses(learner: Learner, batch: Batch, *, remember: bool) -> dict[str, torch.Tensor]:
    def compute(view: ViewBatch, asked: Sequence[str] = ()) -> dict[str, torch.Tensor]:
        return task_losses(learner, view.to(learner.device), batch.step, remember=remember, asked=asked)

    if learner.joint is not None:
        return learner.joint.losses(batch, compute)
    return {name: loss for view in batch.views.values() for name, loss in compute(view).items()}


def _has_gradients(learner: Learner) -> bool:
    return any(p.grad is not None for group in learner.optimiser.param_groups for p in group["params"])


def _update(learner: Learner, rate_factor: float, batch: Batch) -> dict[str, float]:
    set_rates(learner.optimiser, rate_factor)
    if learner.scaler is not None:
        learner.scaler.unscale_(learner.optimiser)
    clipped = clip_groups(learner.optimiser, learner.clip)
    norms = dict(zip(clipped, _read(list(clipped.values())), strict=True))
    broken = [name for name, norm in norms.items() if not math.isfinite(norm)]
    if learner.scaler is not None:
        learner.scaler.step(learner.optimiser)
        learner.scaler.update()
        learner.skipped = learner.skipped + 1 if broken else 0
        if learner.skipped < MAX_SKIPPED:
            return norms
    if broken:
        raise NumericError(
            f"step {batch.step}: the gradient of {', '.join(broken)} is not finite{_again(learner)} ({batch.named()}); "
            "nothing of this step was kept; lower training.lr or check the named cases"
        )
    if learner.scaler is None:
        learner.optimiser.step()
    return norms


@torch.no_grad()
def _losses_again(learner: Learner, batch: Batch) -> dict[str, float]:
    """Of the same samples after the update, for a weighting that asks for them.

    Only the weights differ: dropout draws what it drew, and the heads standardise with the moments that this step's
    first pass updated and then used.
    """
    if learner.weighting.needs != "second forward" or learner.skipped:
        return {}
    standardised = [layer for layer in learner.model.modules() if isinstance(layer, RunningStandardisation)]
    for layer in standardised:
        layer.eval()
    _seed(learner, batch)
    again = _batch_losses(learner, batch, remember=False)
    for layer in standardised:
        layer.train()
    return dict(zip(again, _read(list(again.values())), strict=True))


def _read(scalars: Sequence[torch.Tensor]) -> list[float]:
    """The values of scalars, with one wait for the device."""
    values: list[float] = torch.stack([scalar.detach() for scalar in scalars]).tolist()
    return values


def _again(learner: Learner) -> str:
    return f" for the {learner.skipped}th time in a row" if learner.skipped else ""


def _refuse_losses(learner: Learner, values: Mapping[str, float], batch: Batch) -> None:
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        finite = learner.last | {name: value for name, value in values.items() if name not in broken}
        last = {name: round(value, 4) for name, value in finite.items()}
        raise NumericError(
            f"step {batch.step}: the loss of {', '.join(broken)} is not finite ({batch.named()}; last finite losses "
            f"{last}); nothing of this step was kept; lower training.lr or check the named cases"
        )


def freeze(model: MultiTaskModel, names: Collection[str], frozen: bool) -> None:
    """Hold the named parameters still, or let them go: without a gradient neither they nor their moments change."""
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(not frozen)


@torch.no_grad()
def _refuse_weights(learner: Learner, batch: Batch) -> None:
    """Look at the weights themselves: finite gradients can make infinite weights, and a loss need not show them."""
    groups = learner.optimiser.param_groups
    # the norm of squares, because torch's largest-value norm takes twenty times as long on a CPU; where squares of
    # finite weights overflow it, the weights themselves are looked at
    norms = torch._foreach_norm([p for group in groups for p in group["params"]])
    if all(map(math.isfinite, _read(norms))):
        return
    broken = [group["name"] for group in groups if any(not bool(p.isfinite().all()) for p in group["params"])]
    if broken:
        raise NumericError(
            f"step {batch.step}: the weights of {', '.join(broken)} are not finite after the update ({batch.named()}); "
            "nothing of this step was kept; lower training.lr"
        )
