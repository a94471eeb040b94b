from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.processes import SHORT, start_training


@pytest.fixture(scope="session")
def alone(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 24 steps that nothing happened to. Read only."""
    run = tmp_path_factory.mktemp("alone") / "run"
    child = start_training(tiny_cohort, run, SHORT)
    assert child.wait() == 0, child.said()
    return run
