from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from medmtl.files import sha256_file
from medmtl.folder_lock import LOCK_NAME
from tests.faults import seams
from tests.faults.processes import (
    SHORT,
    assert_ends_as,
    fingerprint,
    leftovers,
    records,
    start_training,
    state,
    steps_done,
    wait_until,
)


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of each file."""
    return {p.as_posix(): (sha256_file(p), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.covers("F50")
def test_a_second_process_is_refused_and_changes_nothing(alone: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start_training(tiny_cohort, run, SHORT, before=seams.slow_steps)
    wait_until(lambda: steps_done(run) >= 4, first)
    first.send(signal.SIGSTOP)
    wait_until(lambda: state(first.pid) == "T")
    before = contents(run)
    second = start_training(tiny_cohort, run, SHORT, resume=True)
    assert second.wait(30) == 6
    holder = f"process {first.pid} on {socket.gethostname()}"
    assert f"error: {run} is in use by {holder}; wait for it, stop it or choose another folder" in second.said()
    assert contents(run) == before
    first.send(signal.SIGCONT)
    assert first.wait() == 0, first.said()
    assert fingerprint(run) == fingerprint(alone)
    assert records(run) == records(alone)


@pytest.mark.covers("F51")
def test_the_lock_of_a_dead_process_whose_number_lives_on_is_free(
    alone: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    child = start_training(tiny_cohort, run, SHORT, before=seams.slow_steps)
    wait_until(lambda: steps_done(run) >= 4, child)
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    (run / LOCK_NAME).write_text(f"{socket.gethostname()} {os.getpid()}\n")  # a process that lives: this one
    assert_ends_as(alone, tiny_cohort, run)


@pytest.mark.covers("F52")
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.covers("P14")
def test_two_runs_on_one_cold_cache(alone: Path, tiny_cohort: Path, tmp_path: Path, rounds: int) -> None:
    for number in range(rounds):
        cache = tmp_path / f"cache-{number}"
        runs = [tmp_path / f"run-{number}-{twin}" for twin in "ab"]
        twins = [start_training(tiny_cohort, run, {**SHORT, "cache.folder": str(cache)}) for run in runs]
        for twin, run in zip(twins, runs, strict=True):
            assert twin.wait() == 0, twin.said()
            assert "built again" not in twin.said()
            assert fingerprint(run) == fingerprint(alone)
            assert records(run) == records(alone)
        assert leftovers(cache) == []
        assert len(list(cache.iterdir())) == 12
