"""Trainings that end in the middle of their work: by a request, an exception, or the loss of the last commit."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.errors import InterruptedRun
from medmtl.run_folder import RunFolder
from medmtl.training import loop
from medmtl.training.step import train_step
from tests.conftest import TINY


class Stopped(Exception):
    """By the test."""


def train_until(step: int, config: Path, run: Path, overrides: Mapping[str, Any], patch: pytest.MonkeyPatch) -> None:
    """Train until a signal comes in a step, counted from 1; that step is the last one."""

    def step_then_stop(*arguments: Any) -> Any:
        record = train_step(*arguments)
        if arguments[1].step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    with patch.context() as during:
        during.setattr(loop, "train_step", step_then_stop)
        with pytest.raises(InterruptedRun, match=f"after step {step}"):
            api.train(config, run, device="cpu", overrides=overrides)


def train_until_raised(step: int, config: Path, run: Path, overrides: Mapping[str, Any]) -> None:
    """Train until an exception comes out of the call that tells of a step, counted from 1."""

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done == step:
            raise Stopped

    with pytest.raises(Stopped):
        api.train(config, run, device="cpu", overrides=overrides, progress=stop)


def resumed_copy(run: Path, config: Path, place: Path) -> Path:
    """A copy of a finished run of :data:`tests.conftest.TINY` that lost its last commit and was gone on with."""
    shutil.copytree(run, place)
    shutil.rmtree(place / "checkpoints" / "step-000006")
    (place / "checkpoints" / "last").write_text("step-000004\n", encoding="utf-8")
    assert not RunFolder.open(place).is_finished()
    return api.train(config, place, device="cpu", resume=True, overrides=TINY)
