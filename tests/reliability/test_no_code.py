"""Promise 4: no file that medmtl loads can run code, whatever it is and wherever it is put."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def watched(tmp_path: Path, *options: str) -> dict[str, Any]:
    """What the interpreter was asked to do while every hostile file went through every door."""
    for name in ("inputs", "elsewhere"):
        (tmp_path / name).mkdir()
    words = [str(tmp_path / "inputs"), str(tmp_path / "canary"), *options]
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability.audited", *words],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.covers("B135", "B136", "B149", "B150", "P04", "P05", "P06")
def test_hostile_files_run_no_code_start_nothing_and_reach_nobody(tmp_path: Path) -> None:
    seen = watched(tmp_path)
    assert seen["attacks"] > 300
    assert seen["events"] == []
    assert seen["faults"] == []
    # no configuration and no checkpoint of them passes; elsewhere a cell may hold any text
    strict = ("read_config", "read_run_config", "read_tensors", "read_commit")
    assert [where for where in seen["accepted"] if where.endswith(strict)] == []
    assert {door: seen["codes"][door] for door in strict} == {
        "read_config": [2],
        "read_run_config": [2],
        "read_tensors": [7],
        "read_commit": [7],
    }
    assert not (tmp_path / "canary").exists()
    assert os.listdir(tmp_path / "elsewhere") == []
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "inputs"]


@pytest.mark.slow
def test_the_watch_would_see_what_must_not_happen(tmp_path: Path) -> None:
    seen = watched(tmp_path, "--control")
    assert (tmp_path / "canary").exists()
    kinds = {event.split(": ", 1)[1].split()[0] for event in seen["events"]}
    assert {"pickle.find_class", "os.system", "subprocess.Popen", "open", "exec", "import"} <= kinds
