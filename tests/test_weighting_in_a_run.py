"""Weightings that keep something from step to step: a run that was stopped and resumed is the uninterrupted one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.errors import ConfigError, InterruptedRun
from medmtl.run_folder import RunFolder
from medmtl.training import loop
from medmtl.training.step import train_step
from tests.conftest import TINY
from tests.reliability.outcome import fingerprint

STEPS = 12
STOPPED_AFTER = 7


def train(config: Path, run: Path, kind: str, **more: Any) -> Path:
    settings = {**TINY, "training.steps": STEPS, "training.checkpoint_every": STEPS, "weighting": {"kind": kind}}
    api.train(config, run, device="cpu", overrides=settings, **more)
    return run


def logged(run: Path, key: str) -> list[dict[str, float]]:
    return [record[key] for record in RunFolder.open(run).read_log() if "losses" in record]


@pytest.mark.parametrize(
    "kind", ["famo", "uncertainty", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dwa", "stch", "rlw"))]
)
def test_a_run_that_was_stopped_and_resumed_has_the_same_bytes(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    whole = train(tiny_cohort, tmp_path / "whole", kind)

    def step_then_stop(*arguments: Any) -> Any:
        record = train_step(*arguments)
        if arguments[1].step == STOPPED_AFTER - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step_then_stop)
        with pytest.raises(InterruptedRun, match=f"after step {STOPPED_AFTER}"):
            train(tiny_cohort, tmp_path / "stopped", kind)
    stopped = train(tiny_cohort, tmp_path / "stopped", kind, resume=True)

    last = f"checkpoints/step-{STEPS:06d}/"
    expected, found = fingerprint(whole), fingerprint(stopped)
    names = [name for name in expected if name.startswith(last)]
    assert len(names) > 2
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}
    assert logged(stopped, "losses") == logged(whole, "losses")
    weights = logged(stopped, "weights")
    assert weights == logged(whole, "weights")
    assert any(weight != 1.0 for weight in weights[-1].values())


def test_a_loss_that_can_be_negative_is_refused_with_both_keys(tiny_cohort: Path, tmp_path: Path) -> None:
    settings = {"weighting": {"kind": "famo"}, "tasks.risk.loss": "beta_nll"}
    with pytest.raises(ConfigError, match=r"weighting\.kind 'famo' needs positive losses, and tasks\.risk") as caught:
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=settings)
    assert caught.value.code == "B142"
