"""The floor of training a network: its step on batches from memory, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from medmtl.device import autocast
from medmtl.tasks.voxel import LabelTask
from medmtl.training.session import Session

RATE = 1e-3


def bare(session: Session, count: int) -> Callable[[], object]:
    """A call of which is one step of a run's encoder, decoder and voxel heads with the run's own loss.

    The optimiser is torch's AdamW.

    Args:
        session: the run; it is not changed but for its weights.
        count: so many of its first batches lie in memory, and are taken in turn.
    """
    learner = session.learner
    names = [name for name, task in learner.tasks.items() if isinstance(task, LabelTask)]
    made = (session.training[step].views for step in range(count))
    views = itertools.cycle([next(iter(batch.values())).to(learner.device) for batch in made])
    modules = [learner.model.sharing, *(learner.model.heads[name] for name in names)]
    parameters = [p for module in modules for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, fused=True)

    def step_once() -> None:
        view = next(views)
        learner.model.train()
        optimiser.zero_grad(set_to_none=True)
        with autocast(learner.device, learner.precision):
            features = learner.model.sharing.features(view.image_BCDHW, names)
            outputs = {name: learner.model.heads[name](features[name]) for name in names}
        losses = [learner.tasks[name].loss(outputs[name], view.targets[name]).mean() for name in names]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step_once
