from __future__ import annotations

import gc
import os
import tempfile
import threading
from pathlib import Path

import pytest

from medmtl import api
from tests.faults.processes import FAST

STEPS = 2000
WARM = 500
MEGABYTE = 1 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.covers("F67")
def test_memory_files_and_threads_do_not_grow(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2000 steps with a commit each hundred, watched once everything has its size."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found: list[tuple[int, int, int, int]] = []
    run = tmp_path / "run"

    def watch(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done >= WARM and done % 500 == 0:
            gc.collect()
            descriptors = len(os.listdir("/proc/self/fd"))
            files = sum(1 for _ in tmp_path.rglob("*"))
            found.append((resident_bytes(), descriptors, threading.active_count(), files))

    overrides = {**FAST, "training.steps": STEPS, "training.checkpoint_every": 100, "plan.precision": "fp32"}
    api.train(tiny_cohort, run, device="cpu", overrides=overrides, progress=watch)
    memory, *counts = zip(*found, strict=True)
    assert len(found) == 1 + (STEPS - WARM) // 500
    assert all(len(set(count)) == 1 for count in counts), counts
    assert memory[-1] - memory[0] < 8 * MEGABYTE, memory
