"""A training that a request to stop ends in the middle of its work."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.errors import InterruptedRun
from medmtl.training import loop
from medmtl.training.step import train_step


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
