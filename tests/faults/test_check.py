from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.faults.processes import start
from tests.faults.test_locks import contents


@pytest.mark.slow
@pytest.mark.covers("F04")
def test_a_killed_check_leaves_nothing_and_finds_the_same_again(tiny_cohort: Path, tmp_path: Path) -> None:
    before = contents(tiny_cohort.parent)
    rng = random.Random(0)
    for _ in range(3):
        child = start(["check", tiny_cohort], tmp_path / "said.txt")
        child.process.join(rng.uniform(0, 0.3))
        child.process.kill()
        assert child.wait() in (0, -signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == ["said.txt"]
    found = set()
    for _ in range(2):
        assert start(["check", tiny_cohort, "--json", tmp_path / "findings.json"], tmp_path / "said.txt").wait() == 0
        found.add((tmp_path / "findings.json").read_bytes())
    assert len(found) == 1
    assert contents(tiny_cohort.parent) == before
