"""One pass over the training fold at the end, for tasks that learn something from the final weights."""

from __future__ import annotations

import torch

from medmtl.device import autocast
from medmtl.training.average import looking
from medmtl.training.session import Session


@torch.inference_mode()
def finish_tasks(session: Session) -> None:
    """Hand each task that asks for it its outputs for all labelled training cases; nothing is run if none does.

    The weights are those that predict, the averaged ones where there are any; the cases are not augmented, and looked
    at one at a time. The weights in training are as before when this returns.
    """
    learner = session.learner
    asking = {name: task for name, task in learner.tasks.items() if task.needs_finish}
    if not asking:
        return
    rows: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in asking}
    with looking(learner.model, learner.average):
        for view in session.training.plain(asking, limit=None):
            names = tuple(name for name in view.labelled() if name in asking)
            view = view.to(learner.device)
            with autocast(learner.device, learner.precision):
                outputs = learner.model(view.image_BCDHW, names, view.covariates_BN, view.tiles)
            for name in names:
                rows[name].append((outputs[name].float().cpu(), view.targets[name].cpu()))
    for name, task in asking.items():
        task.finish(*(torch.cat(part) for part in zip(*rows[name], strict=True)))
