from __future__ import annotations

import logging
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from medmtl.evaluation.score import evaluate_selection, own_selection
from medmtl.files import json_bytes, sha256_file
from medmtl.run_folder import RunFolder
from tests.faults.processes import FAST, committed, fingerprint, leftovers, records, start, start_training, wait_until

logger = logging.getLogger(__name__)

STEPS = 240
EVERY = 3
KEEP = 2
LIFE_SECONDS = 1.2  # longest life of a process: its start and a few commits


def scores(run: Path, folder: Path) -> dict[str, str]:
    """Hashes of the scores and masks of an evaluation, without the file that tells where its run lies."""
    evaluate_selection(own_selection([RunFolder.open(run)], "val"), folder, device="cpu")
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    assert "metrics.json" in found
    return {name: sha256_file(path) for name, path in found.items() if name != "source.json"}


def kill_at_random(config: Path, folder: Path, overrides: dict[str, Any], kills: int, seed: int) -> list[Path]:
    """Runs that ended, resumed after each of ``kills`` SIGKILLs in all; mostly one run, killed again and again."""
    rng = random.Random(seed)
    logger.info("kills with seed %d", seed)
    runs: list[Path] = []
    done = 0
    while done < kills or not runs:
        run = folder / f"killed-{len(runs)}"
        child = start_training(config, run, overrides)
        while True:
            wait_until(partial(committed, run), child)
            child.process.join(rng.uniform(0, LIFE_SECONDS) if done < kills else None)
            if not child.is_running():
                break
            child.process.kill()
            assert child.wait() in (0, -signal.SIGKILL), child.said()
            done += 1
            assert len(list((run / "checkpoints").glob("step-*"))) <= KEEP + 1
            child = start_training(config, run, overrides, resume=True)
        assert child.wait() == 0, child.said()
        runs.append(run)
    return runs


@pytest.mark.covers("F01", "F16")
@pytest.mark.parametrize(
    ("kills", "steps", "workers"),
    [
        (3, 24, 1),
        pytest.param(100, STEPS, 0, marks=pytest.mark.slow),
        pytest.param(100, STEPS, 2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.covers("P07", "P09")
def test_after_random_kills_every_byte_is_as_without(
    tiny_cohort: Path, tmp_path: Path, kills: int, steps: int, workers: int
) -> None:
    overrides = {**FAST, "training.steps": steps, "training.checkpoint_every": EVERY, "plan.workers": workers}
    alone = tmp_path / "alone"
    child = start_training(tiny_cohort, alone, overrides)
    assert child.wait() == 0, child.said()
    assert "average.safetensors" in fingerprint(alone)
    expected = fingerprint(alone), records(alone), scores(alone, tmp_path / "scores-alone")
    for run in kill_at_random(tiny_cohort, tmp_path, overrides, kills, seed=kills + workers):
        assert (fingerprint(run), records(run), scores(run, run.with_name(f"scores-{run.name}"))) == expected
        assert leftovers(run) == []


@pytest.mark.slow
@pytest.mark.covers("F05")
def test_a_killed_evaluation_is_absent_or_whole_and_the_next_one_equal(alone: Path, tmp_path: Path) -> None:
    expected = scores(alone, tmp_path / "whole")
    rng = random.Random(5)
    folder = tmp_path / "scores"
    for _ in range(10):
        child = start(["evaluate", alone, "--device", "cpu", "--out", folder], tmp_path / "said.txt")
        child.process.join(rng.uniform(0, LIFE_SECONDS))
        child.process.kill()
        assert child.wait() in (0, -signal.SIGKILL)
        for name in ("metrics.json", "cases.csv"):
            assert not (folder / name).exists() or sha256_file(folder / name) == expected[name]
        begun = folder / "activations.json"  # an empty list until the evaluation is whole
        assert not begun.exists() or begun.read_bytes() == json_bytes([]) or sha256_file(begun) == expected[begun.name]
    found = scores(alone, folder)
    assert leftovers(folder) == []
    assert {name: found[name] for name in expected} == expected
    assert set(found) - set(expected) <= {"report.html"}
