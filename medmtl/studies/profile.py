"""Where the time of a training step goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from medmtl.data.workers import make_loader
from medmtl.device import peak_bytes, true_fp32
from medmtl.freed_memory import freed_memory_kept
from medmtl.progress import Progress, silent
from medmtl.run_folder import RunFolder
from medmtl.training.optimiser import Schedule, scheduled_factor
from medmtl.training.session import open_session
from medmtl.training.step import Learner, train_step

WARM_STEPS = 5  # allocation, the choice of kernels and the loader's start make the first ones slower
# loading: making the batch, or waiting for the loader process that makes it
PARTS = ("loading", "moving the batch", "encoder and decoder", "heads", "losses", "backward", "clipping", "optimiser",
         "rest")  # fmt: skip


@dataclass(frozen=True)
class StepProfile:
    """A training's steps, timed part by part.

    Attributes:
        steps: how many were timed.
        seconds: of one step, mean.
        parts: part -> seconds of a step, mean; they add up to ``seconds``.
        samples: per step, of all views.
        peak_bytes: resident memory of the process on a CPU, allocated device memory on a GPU.
        planned_bytes: the plan's figure for the same.
    """

    steps: int
    seconds: float
    parts: Mapping[str, float]
    samples: int
    peak_bytes: int
    planned_bytes: int


@freed_memory_kept()
@true_fp32()
def profile_steps(run: RunFolder, steps: int, progress: Progress = silent) -> StepProfile:
    """Train some steps of a run that was just made, without a commit, and time their parts.

    On a GPU each part is waited for, so that what would overlap there does not: the parts say where the work is, and
    their sum is an upper bound of a step.

    Args:
        run: of :func:`medmtl.training.start.start_run`; nothing is written into it.
        steps: to time, at least 1, behind 5 that are not.
        progress: called at every step.
    """
    session = open_session(run)
    learner, plan = session.learner, session.plan
    schedule = Schedule(None, fixed_warm_up=True)
    total = WARM_STEPS + steps
    samples = 0
    with (
        _watched(learner) as watch,
        closing(make_loader(session.training, 0, total, plan.workers, learner.device)) as loader,
    ):
        for step in range(total):
            if step == WARM_STEPS:
                watch.spent.clear()
            watch.restart()
            batch = next(loader)
            watch.mark("loading")
            train_step(learner, batch, scheduled_factor(learner.optimiser, schedule, step))
            watch.mark("rest")
            samples = sum(len(view.case_ids) * view.tiles for view in batch.views.values())
            progress("profile", step + 1, total)
    parts = {name: watch.spent[name] / steps for name in PARTS}
    return StepProfile(steps, sum(parts.values()), parts, samples, peak_bytes(learner.device), plan.memory_bytes)


class _Watch:
    """Time since the last mark, added up by name."""

    def __init__(self, device: torch.device) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._device = device
        self._last = 0.0
        self.forwarded = False

    def restart(self) -> None:
        self._last, self.forwarded = self._now(), False

    def mark(self, name: str) -> None:
        now = self._now()
        self.spent[name] += now - self._last
        self._last = now

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


@contextmanager
def _watched(learner: Learner) -> Iterator[_Watch]:
    """A watch that the parts of the learner's step mark, until the context ends."""
    watch = _Watch(learner.device)

    def before_model(*_: Any) -> None:
        watch.mark("losses" if watch.forwarded else "moving the batch")
        watch.forwarded = True

    def backward(*arguments: Any, **named: Any) -> Any:
        watch.mark("losses")
        weights = plain_backward(*arguments, **named)
        watch.mark("backward")
        return weights

    plain_backward = learner.weighting.backward
    handles = [
        learner.model.register_forward_pre_hook(before_model),
        learner.model.register_forward_hook(lambda *_: watch.mark("heads")),
        learner.optimiser.register_step_pre_hook(lambda *_: watch.mark("clipping")),
        learner.optimiser.register_step_post_hook(lambda *_: watch.mark("optimiser")),
    ]
    for head in learner.model.heads.values():
        handles.append(head.register_forward_pre_hook(lambda *_: watch.mark("encoder and decoder")))
        handles.append(head.register_forward_hook(lambda *_: watch.mark("heads")))
    object.__setattr__(learner.weighting, "backward", backward)
    try:
        yield watch
    finally:
        object.__delattr__(learner.weighting, "backward")
        for handle in handles:
            handle.remove()
