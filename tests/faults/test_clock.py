from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from medmtl import api
from medmtl.run_folder import RunFolder
from tests.conftest import TINY
from tests.faults.processes import fingerprint, records

DAY = 24 * 3600.0


@pytest.mark.covers("F48")
def test_a_wall_clock_that_jumps_by_days_changes_nothing(
    tiny_cohort: Path, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, jumps = time.time, itertools.cycle([DAY, -DAY, 400 * DAY, 0.0])
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=TINY)
        for path in (tmp_path / "run" / "checkpoints").iterdir():
            os.utime(path, (0, -DAY if "6" in path.name else DAY))  # the newest by name is the oldest by time
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=TINY, resume=True)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert fingerprint(tmp_path / "run") == fingerprint(trained_run)
    assert records(tmp_path / "run") == records(trained_run)
    log = RunFolder.open(tmp_path / "run").read_log()
    seconds = [record["seconds"] for record in log if "seconds" in record]
    assert seconds == sorted(seconds) and seconds[0] >= 0 and seconds[-1] < 600
    assert log[-1]["timing"]["seconds"] >= 0 and 0 <= log[-1]["timing"]["waiting_share"] <= 1
