from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.errors import BusyRunError, InputError, InterruptedRun
from medmtl.files import RunLock, sha256_file
from medmtl.run_folder import RunFolder
from medmtl.training import loop
from medmtl.training.optimiser import Schedule
from tests.conftest import TINY

CHILD = """
import json, sys
from medmtl import api
overrides = json.loads(sys.argv[3])
api.train(sys.argv[1], sys.argv[2], device="cpu", overrides=overrides, resume=sys.argv[4] == "resume")
"""


def fingerprint(run: Path) -> dict[str, str]:
    """Hashes of the last checkpoint's files."""
    last = run / "checkpoints" / (run / "checkpoints" / "last").read_text().strip()
    return {path.name: sha256_file(path) for path in sorted(last.iterdir())}


def records(run: Path) -> list[dict[str, Any]]:
    """The log without its times."""
    kept = []
    for record in RunFolder.open(run).read_log():
        record.pop("seconds", None)
        if "timing" not in record:
            kept.append(record)
    return kept


def child(config: Path, out: Path, overrides: dict[str, Any], mode: str) -> subprocess.Popen[bytes]:
    """A training in a process of its own."""
    arguments = [sys.executable, "-c", CHILD, str(config), str(out), json.dumps(overrides), mode]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_commit(process: subprocess.Popen[bytes], out: Path, seconds: float = 120) -> None:
    """Until the first commit, or the end of the process."""
    end = time.monotonic() + seconds
    while not (out / "checkpoints" / "last").exists() and process.poll() is None:
        assert time.monotonic() < end, "no commit in time"
        time.sleep(0.02)


def kill_and_resume(config: Path, folder: Path, overrides: dict[str, Any], kills: int, seed: int) -> tuple[Path, Path]:
    """A run left alone and one killed ``kills`` times after its first commit; both ended."""
    alone, killed = folder / "alone", folder / "killed"
    assert child(config, alone, overrides, "fresh").wait() == 0
    length = RunFolder.open(alone).read_log()[-1]["timing"]["seconds"]
    rng = random.Random(seed)
    process = child(config, killed, overrides, "fresh")
    for _ in range(kills):
        wait_for_commit(process, killed)
        try:
            process.wait(timeout=rng.uniform(0, length / 2))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        process = child(config, killed, overrides, "resume")
    assert process.wait() == 0
    return alone, killed


def test_a_killed_run_resumes_to_the_same_bytes(tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "training.steps": 60, "training.checkpoint_every": 5, "plan.workers": 1}
    alone, killed = kill_and_resume(tiny_cohort, tmp_path, overrides, kills=2, seed=0)
    assert fingerprint(killed) == fingerprint(alone)
    assert records(killed) == records(alone)
    assert "average.safetensors" in fingerprint(alone)


@pytest.mark.slow
def test_ten_random_kills_end_with_the_same_bytes(tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "training.steps": 150, "training.checkpoint_every": 5, "plan.workers": 1}
    alone, killed = kill_and_resume(tiny_cohort, tmp_path, overrides, kills=10, seed=1)
    assert fingerprint(killed) == fingerprint(alone)
    assert records(killed) == records(alone)


def test_the_number_of_loader_processes_changes_nothing(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides={**TINY, "plan.workers": 1})
    assert fingerprint(tmp_path / "run") == fingerprint(trained_run)


def test_a_signal_commits_and_ends_with_an_interruption(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    step = loop.train_step

    def step_then_signal(*arguments: Any) -> Any:
        record = step(*arguments)
        if arguments[1].step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    monkeypatch.setattr(loop, "train_step", step_then_signal)
    with pytest.raises(InterruptedRun, match="SIGTERM after step 3"):
        api.train(tiny_cohort, out, device="cpu", overrides=TINY)
    monkeypatch.undo()
    assert (out / "checkpoints" / "last").read_text().strip() == "step-000003"
    api.train(tiny_cohort, out, device="cpu", overrides=TINY, resume=True)
    assert (out / "checkpoints" / "last").read_text().strip() == "step-000006"


def test_resume_refuses_another_configuration_and_names_the_keys(trained_run: Path, tiny_cohort: Path) -> None:
    with pytest.raises(InputError, match=r"B145.*training\.lr"):
        api.train(tiny_cohort, trained_run, overrides={**TINY, "training.lr": 0.5}, resume=True)


def test_resume_without_a_run_and_a_second_start_are_refused(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no run at"):
        api.train(tiny_cohort, tmp_path / "none", overrides=TINY, resume=True)
    with pytest.raises(InputError, match="not empty"):
        api.train(tiny_cohort, trained_run, overrides=TINY)


def test_two_processes_never_train_one_run(trained_run: Path, tiny_cohort: Path) -> None:
    with RunLock(trained_run), pytest.raises(BusyRunError):
        api.train(tiny_cohort, trained_run, overrides=TINY, resume=True)


def test_minutes_become_a_fixed_number_of_steps(tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "training.minutes": 0.05}
    del overrides["training.steps"]
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides)
    run = RunFolder.open(tmp_path / "run")
    plan = run.load_plan()
    assert plan.steps is not None and plan.steps >= loop.WARM_STEPS
    assert run.read_log()[-1]["step"] == plan.steps
    assert "minutes" in plan.reasons["steps"]


def test_the_log_tells_waiting_and_memory_within_the_plan(trained_run: Path) -> None:
    timing = RunFolder.open(trained_run).read_log()[-1]["timing"]
    assert 0 <= timing["waiting_share"] <= 1
    assert timing["peak_memory_bytes"] > 0


@pytest.mark.parametrize("steps", [1, 7, 400])
def test_rates_warm_up_and_decay_to_nearly_nothing(steps: int) -> None:
    schedule = Schedule(steps, fixed_warm_up=False)
    factors = [schedule.factor(step) for step in range(steps)]
    assert max(factors) == 1.0
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(1.0)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
