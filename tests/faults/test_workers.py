from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults import seams
from tests.faults.processes import (
    FAST,
    SHORT,
    assert_ends_as,
    descendants,
    newest_whole,
    no_survivors,
    start_training,
    steps_done,
    wait_until,
)

CASES = r"cases 'case_\d+' \(row \d+\), 'case_\d+' \(row \d+\)"
INTERVAL = 3


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        pytest.param(
            signal.SIGKILL,
            r"killed by SIGKILL \(signal 9\), probably for lack of memory,",
            marks=pytest.mark.covers("F34", "P13"),
        ),
        pytest.param(signal.SIGSEGV, r"killed by SIGSEGV \(signal 11\)", marks=pytest.mark.covers("F35")),
        pytest.param(signal.SIGABRT, r"killed by SIGABRT \(signal 6\)", marks=pytest.mark.covers("F35")),
    ],
)
def test_a_worker_that_dies_is_named_with_its_cause_and_cases(
    alone: Path, tiny_cohort: Path, tmp_path: Path, number: signal.Signals, cause: str
) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.hanging_sample_under_watch)
    wait_until(lambda: steps_done(run) == seams.HANGING, child)
    (worker,) = descendants(child.pid)
    os.kill(worker, number)
    with no_survivors([child.pid, worker]):
        assert child.wait(60) == 8
    last = child.said().splitlines()[-1].lstrip("\0")  # which ends the line of torch's own handler
    sentence = rf"error: loader process 0 was {cause} while step 8 was loaded: {CASES}; set plan.workers: 0 to load .*"
    assert re.fullmatch(sentence, last), last
    assert newest_whole(run) == seams.HANGING - seams.HANGING % INTERVAL
    assert_ends_as(alone, tiny_cohort, run)


def assert_stuck(run: Path, said: str) -> None:
    assert re.search(
        rf"error: loader process 0 stands still: after \d+ s step 8 is not loaded \({CASES}\); look at the files", said
    ), said
    assert newest_whole(run) == seams.HANGING - seams.HANGING % INTERVAL


@pytest.mark.covers("F36")
def test_a_worker_that_stands_still_is_named_with_its_cases(alone: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.hanging_sample_under_watch)
    wait_until(lambda: steps_done(run) == seams.HANGING, child)
    with no_survivors([child.pid, *descendants(child.pid)]):
        assert child.wait(60) == 8
    assert_stuck(run, child.said())
    assert_ends_as(alone, tiny_cohort, run)


@pytest.mark.slow
@pytest.mark.covers("F36")
def test_a_stopped_worker_ends_the_run_within_a_minute(tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.hanging_sample)
    wait_until(lambda: steps_done(run) == seams.HANGING, child)
    (worker,) = descendants(child.pid)
    os.kill(worker, signal.SIGSTOP)
    begin = time.monotonic()
    with no_survivors([child.pid, worker]):
        assert child.wait(100) == 8
    assert time.monotonic() - begin < 60
    assert_stuck(run, child.said())


def test_the_worker_of_a_killed_training_ends_by_itself(tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.slow_steps)
    wait_until(lambda: steps_done(run) >= 2, child)
    (worker,) = descendants(child.pid)
    with no_survivors([worker]):
        child.send(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


@pytest.mark.covers("F37")
def test_an_error_that_cannot_be_pickled_arrives_as_words(alone: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.odd_error)
    assert child.wait(60) == 8
    last = child.said().splitlines()[-1]
    assert re.fullmatch(rf"error: step 8 \({CASES}\) could not be loaded: Odd: something unheard of", last), last
    assert newest_whole(run) == seams.HANGING - seams.HANGING % INTERVAL
    assert_ends_as(alone, tiny_cohort, run)


@pytest.mark.slow
@pytest.mark.covers("F38")
def test_too_little_shared_memory_is_named(tiny_cohort: Path, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], check=False).returncode:
        pytest.skip("a small shared memory needs a mount namespace of its own")
    settings = {**FAST, "plan.shape": [32, 32, 32], "plan.workers": 1}
    train: list[str | Path] = [
        sys.executable,
        "-m",
        "medmtl",
        "train",
        tiny_cohort,
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
    ]
    train += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    mount = ["sh", "-c", 'mount -t tmpfs -o size=200k none /dev/shm && exec "$@"', "sh"]
    found = subprocess.run([unshare, "-m", *mount, *train], capture_output=True, text=True, timeout=300, check=False)
    last = found.stderr.splitlines()[-1]
    assert found.returncode == 3, found.stderr
    # seen before the start; what a worker says when it meets it later has the same sizes and setting
    assert re.search(
        r"\[B046\] .*need 1\.0 MB of shared memory, and /dev/shm has 0\.2 MB free; set plan\.workers: 0", last
    )
