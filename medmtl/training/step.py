"""One optimiser step: features, losses of the tasks that are present, gradients, update."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from medmtl.data.batch import Batch, ViewBatch
from medmtl.errors import NumericError
from medmtl.model import MultiTaskModel
from medmtl.rng import derive_seed
from medmtl.tasks.base import Task
from medmtl.training.average import WeightAverage
from medmtl.training.optimiser import clip_groups, set_rates
from medmtl.weighting.base import Weighting

MAX_SKIPPED = 10


@dataclass
class Learner:
    """Everything that changes from step to step.

    Attributes:
        model, weighting, optimiser, average, scaler: what is trained; ``average`` and ``scaler`` may be None.
        tasks: by name, in the configured order.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        clip: largest gradient norm per clipping group.
        seed: of dropout and the like.
        device: where the model lies.
        prior_scale: whether losses are divided by that of the best constant predictor.
    """

    model: MultiTaskModel
    weighting: Weighting
    optimiser: torch.optim.Optimizer
    average: WeightAverage | None
    scaler: torch.amp.GradScaler | None
    tasks: Mapping[str, Task]
    precision: str
    clip: float
    seed: int
    device: torch.device
    prior_scale: bool
    skipped: int = 0


@dataclass(frozen=True)
class StepRecord:
    """What a step reports.

    Attributes:
        losses: per present task, on the frozen loss scale.
        weights: as used by the weighting, or empty.
        gradient_norms: per clipping group, before clipping.
    """

    losses: Mapping[str, float]
    weights: Mapping[str, float] = field(default_factory=dict)
    gradient_norms: Mapping[str, float] = field(default_factory=dict)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of a planned precision."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def task_losses(learner: Learner, view: ViewBatch) -> dict[str, torch.Tensor]:
    """Scalar loss of each task labelled in this view; absent tasks have no entry, and their heads are not run."""
    present = view.labelled()
    with autocast(learner.device, learner.precision):
        outputs = learner.model(view.image_BCDHW, present)
    losses = {}
    for name in present:
        task = learner.tasks[name]
        loss_B = task.loss(outputs[name], view.targets[name])
        loss = task.reduce(loss_B, view.present[name])
        losses[name] = loss / task.loss_scale if learner.prior_scale else loss
    return losses


def train_step(learner: Learner, batch: Batch, rate_factor: float) -> StepRecord:
    """Update the model once.

    Raises:
        NumericError: if a loss or a gradient is NaN or infinite; the step, the task and the cases are named.
    """
    (view,) = batch.views.values()
    torch.manual_seed(derive_seed(learner.seed, "step", batch.step))
    learner.model.train()
    learner.optimiser.zero_grad(set_to_none=True)
    losses = task_losses(learner, view.to(learner.device))
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    _refuse_not_finite(values, batch.step, view)
    if not losses:
        return StepRecord({})
    scale = learner.scaler.scale if learner.scaler is not None else (lambda loss: loss)
    weights = learner.weighting.backward(
        losses, shared=learner.model.shared_parameters(), penalty=learner.model.penalty(), scale=scale
    )
    norms = _update(learner, rate_factor, batch.step, view)
    learner.weighting.after_step(values)
    if learner.average is not None:
        learner.average.update(batch.step + 1)
    return StepRecord(values, dict(weights or {}), norms)


def _update(learner: Learner, rate_factor: float, step: int, view: ViewBatch) -> dict[str, float]:
    set_rates(learner.optimiser, rate_factor)
    if learner.scaler is not None:
        learner.scaler.unscale_(learner.optimiser)
    norms = {name: float(norm) for name, norm in clip_groups(learner.optimiser, learner.clip).items()}
    broken = [name for name, norm in norms.items() if not math.isfinite(norm)]
    if learner.scaler is not None:
        learner.scaler.step(learner.optimiser)
        learner.scaler.update()
        learner.skipped = learner.skipped + 1 if broken else 0
        if learner.skipped < MAX_SKIPPED:
            return norms
    if broken:
        raise NumericError(
            f"step {step}: the gradient of {', '.join(broken)} is not finite (cases {', '.join(view.case_ids)}); "
            "lower training.lr or check the named cases"
        )
    if learner.scaler is None:
        learner.optimiser.step()
    return norms


def _refuse_not_finite(values: Mapping[str, float], step: int, view: ViewBatch) -> None:
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        finite = {name: round(value, 4) for name, value in values.items() if math.isfinite(value)}
        raise NumericError(
            f"step {step}: the loss of {', '.join(broken)} is not finite (cases {', '.join(view.case_ids)}; finite "
            f"losses {finite}); nothing of this step was kept; lower training.lr or check the named cases"
        )
