"""One step of a training at a time: whole, and its floor, which is the network on batches from memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import torch

from medmtl.data.workers import make_loader
from medmtl.device import autocast
from medmtl.tasks.voxel import LabelTask
from medmtl.training.session import Session
from medmtl.training.step import train_step

RATE = 1e-3
STEPS_AHEAD = 100_000  # more than any arm takes


def stepping(session: Session, workers: int, stack: ExitStack) -> Callable[[], object]:
    """A call of which is one step of a training, its batch made by so many loader processes; ``stack`` ends them."""
    loader = make_loader(session.training, 0, STEPS_AHEAD, workers, session.learner.device)
    batches: Iterator[Any] = stack.enter_context(closing(loader))
    return lambda: train_step(session.learner, next(batches), 1.0)


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
