"""What a test does to a process before its command starts: each makes a moment long enough to be met."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

from medmtl.data import workers
from medmtl.data.loader import StepDataset
from medmtl.inference.predict import Predictor
from medmtl.training import loop
from medmtl.training.step import train_step

HANGING = 8  # the step at which a sample hangs, or a batch fails


def slow_steps() -> None:
    """Each step takes 30 ms longer."""
    step = train_step

    def slower(*arguments: Any) -> Any:
        time.sleep(0.03)
        return step(*arguments)

    setattr(loop, "train_step", slower)  # noqa: B010


def deaf_step() -> None:
    """The fifth step says so and goes where no handler of Python runs for minutes."""

    def deaf(learner: Any, batch: Any, factor: float) -> Any:
        if batch.step == 4:
            os.write(1, b"deaf\n")
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        return train_step(learner, batch, factor)

    setattr(loop, "train_step", deaf)  # noqa: B010


def slow_disk() -> None:
    """Each wait for the disk takes 50 ms longer."""
    fsync = os.fsync

    def slower(descriptor: int) -> None:
        time.sleep(0.05)
        fsync(descriptor)

    setattr(os, "fsync", slower)  # noqa: B010


def slow_prediction() -> None:
    """Each prediction of a case takes half a second longer."""
    predict = Predictor.predict

    def slower(self: Predictor, case: Any, **arguments: Any) -> Any:
        time.sleep(0.5)
        return predict(self, case, **arguments)

    setattr(Predictor, "predict", slower)  # noqa: B010


def slow_samples() -> None:
    """Each sample takes 50 ms longer, so that steps wait for them."""
    sample = StepDataset._sample

    def slower(self: StepDataset, *arguments: Any) -> Any:
        time.sleep(0.05)
        return sample(self, *arguments)

    setattr(StepDataset, "_sample", slower)  # noqa: B010


def hanging_sample() -> None:
    """A sample of the ninth step takes five minutes."""
    sample = StepDataset._sample

    def hanging(self: StepDataset, case: Any, prepared: Any, shape: Any, step: int, slot: int) -> Any:
        if step == HANGING:
            time.sleep(300)
        return sample(self, case, prepared, shape, step, slot)

    setattr(StepDataset, "_sample", hanging)  # noqa: B010


def hanging_sample_under_watch() -> None:
    """As :func:`hanging_sample`; workers are looked at every 0.2 s, and taken for stuck after 1 s."""
    hanging_sample()
    workers.LOOK_SECONDS, workers.STILL_SECONDS = 0.2, 1.0


def odd_error() -> None:
    """The ninth batch fails with an error that cannot be pickled."""
    getitem = StepDataset.__getitem__

    class Odd(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("not to be pickled")

    def failing(self: StepDataset, step: int) -> Any:
        if step == HANGING:
            raise Odd("something unheard of")
        return getitem(self, step)

    setattr(StepDataset, "__getitem__", failing)  # noqa: B010
