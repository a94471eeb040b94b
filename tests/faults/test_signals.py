from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.faults import seams
from tests.faults.processes import (
    SHORT,
    assert_ends_as,
    committed,
    descendants,
    end,
    fingerprint,
    leftovers,
    newest_whole,
    no_survivors,
    start,
    start_training,
    state,
    steps_done,
    wait_until,
)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.covers("F08")),
        pytest.param(signal.SIGHUP, marks=pytest.mark.covers("F12")),
        signal.SIGINT,
    ],
)
@pytest.mark.covers("P11")
def test_a_request_to_stop_commits_the_step_it_met(
    alone: Path, tiny_cohort: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.slow_steps)
    wait_until(lambda: steps_done(run) >= 4, child)
    with no_survivors([child.pid, *descendants(child.pid)]):
        child.send(number)
        assert child.wait(30) == 5
    done = steps_done(run)
    assert newest_whole(run) == done < 24
    assert child.said().splitlines()[-1] == f"error: stopped by {number.name} after step {done}; go on with --resume"
    assert_ends_as(alone, tiny_cohort, run)


def test_a_whole_group_that_is_ended_ends_with_a_commit(alone: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.hanging_sample)
    wait_until(lambda: steps_done(run) == seams.HANGING, child)
    (worker,) = descendants(child.pid)
    end(worker)
    child.send(signal.SIGTERM)
    assert child.wait(30) == 5
    assert newest_whole(run) == seams.HANGING
    assert_ends_as(alone, tiny_cohort, run)


@pytest.mark.covers("F09")
def test_a_request_to_stop_during_a_commit_lets_it_complete(alone: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.slow_disk)
    wait_until(lambda: leftovers(run / "checkpoints"), child)
    child.send(signal.SIGTERM)
    assert child.wait(30) == 5
    assert newest_whole(run) == steps_done(run) == 3
    assert leftovers(run) == []
    assert_ends_as(alone, tiny_cohort, run)


@pytest.mark.covers("F10")
@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGINT)])
def test_who_asks_twice_does_not_wait(
    alone: Path, tiny_cohort: Path, tmp_path: Path, numbers: tuple[signal.Signals, signal.Signals]
) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.deaf_step)
    wait_until(lambda: "deaf" in child.said(), child)
    with no_survivors([child.pid, *descendants(child.pid)], seconds=2):
        child.send(numbers[0])
        time.sleep(0.1)  # of two equal signals that wait, the kernel delivers one
        child.send(numbers[1])
        assert child.wait(2) == 5
    assert newest_whole(run) == 3
    assert_ends_as(alone, tiny_cohort, run)


@pytest.mark.slow
@pytest.mark.covers("F11")
def test_ctrl_c_while_torch_is_imported() -> None:
    words = [sys.executable, "-m", "medmtl", "train", "none.yaml", "--out", "none"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        wait_until(lambda: "libtorch_cpu" in maps.read_text())
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (5, "interrupted\n")


@pytest.mark.covers("F11")
def test_ctrl_c_while_the_loader_starts(alone: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, {**SHORT, "plan.workers": 2}, before=seams.slow_steps)
    workers = wait_until(partial(descendants, child.pid), child)
    with no_survivors([child.pid, *workers]):
        child.send(signal.SIGINT)
        assert child.wait(30) == 5
    done = steps_done(run)
    assert committed(run) == done
    assert f"stopped by SIGINT after step {done}; go on with --resume" in child.said()
    assert_ends_as(alone, tiny_cohort, run, {**SHORT, "plan.workers": 2})


@pytest.mark.covers("F11")
def test_ctrl_c_while_cases_are_evaluated(alone: Path, tmp_path: Path) -> None:
    words: list[str | Path] = ["evaluate", alone, "--device", "cpu", "--out", tmp_path / "scores", "--quiet"]
    child = start(words, tmp_path / "said.txt", seams.slow_prediction)
    wait_until(lambda: list(tmp_path.glob("scores/masks/*/*")), child)
    child.send(signal.SIGINT)
    assert child.wait(30) == 5
    assert child.said() == "interrupted\n"
    assert not (tmp_path / "scores" / "report.html").exists()
    assert not (tmp_path / "scores" / "metrics.json").exists()


@pytest.mark.covers("F13")
def test_usr1_commits_and_goes_on(alone: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = {**SHORT, "training.checkpoint_every": 100}
    child = start_training(tiny_cohort, run, overrides, before=seams.slow_steps)
    wait_until(lambda: steps_done(run) >= 4, child)
    assert not committed(run)
    child.send(signal.SIGUSR1)
    assert 4 <= wait_until(partial(committed, run), child) < 24
    assert child.wait() == 0, child.said()
    assert fingerprint(run) == fingerprint(alone)


@pytest.mark.covers("F14")
def test_a_stopped_and_continued_run_goes_on(alone: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.slow_steps)
    wait_until(lambda: steps_done(run) >= 4, child)
    everybody = [child.pid, *descendants(child.pid)]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(state(pid) == "T" for pid in everybody))
    done = steps_done(run)
    time.sleep(1)
    assert steps_done(run) == done < 24
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    assert child.wait() == 0, child.said()
    assert fingerprint(run) == fingerprint(alone)


@pytest.mark.covers("F15", "F16")
def test_preemption_after_preemption(alone: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = 0
    for round_ in range(3):
        child = start_training(tiny_cohort, run, SHORT, resume=round_ > 0, before=seams.slow_steps)
        wait_until(lambda: steps_done(run) > before + 3, child)  # noqa: B023
        child.send(signal.SIGCONT)
        child.send(signal.SIGTERM)
        child.send(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert newest_whole(run) >= before
        assert steps_done(run) - committed(run) <= 4  # one interval, and the line of the step it died in
        before = steps_done(run)
    assert_ends_as(alone, tiny_cohort, run)


@pytest.mark.covers("F51")
def test_a_worker_that_outlives_its_training_does_not_hold_the_run(
    alone: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.slow_steps)
    wait_until(lambda: committed(run), child)
    (worker,) = descendants(child.pid)
    os.kill(worker, signal.SIGSTOP)
    try:
        child.send(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert_ends_as(alone, tiny_cohort, run)
    finally:
        end(worker)
