"""Training and prediction on a device that is not the CPU; see :mod:`tests.other_device`."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from medmtl import api, checkpoint
from tests.conftest import TINY
from tests.stand_in import write_stand_in
from tests.test_configs import CONFIGS
from tests.test_kinds_in_a_run import EVERY, Setting
from tests.test_views_in_a_run import KINDS, NAMES, VIEWED

ROOT = Path(__file__).parents[1]
# AdamW divides a gradient by its own size, and so makes a step of the last bits of one that should be zero
SHORT: dict[str, Any] = {
    "training.optimiser": "sgd",
    "training.lr": 0.01,
    "training.head_lr": 0.01,
    "training.steps": 3,
    "training.checkpoint_every": 3,
    "plan.precision": "fp32",
}
# it keeps an entry of the gradients or drops it by a draw against its share of signs, which the last bits can turn: its
# runs have a seed with which no draw of theirs is so close
DRAWN, DRAWN_SEED = "graddrop", 1
READ = {"medmtl.training.step._read": 3}  # losses, gradient norms and the weights' norms


@dataclass(frozen=True)
class Trained:
    """One run on both devices.

    Attributes:
        here, there: on the CPU, and on the other device; beside each, the predictions of the CPU's run on it.
        waits: function -> times in the last training step that it waited for the device.
    """

    here: Path
    there: Path
    waits: Mapping[str, int]


def trained(folder: Path, runs: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> dict[str, Trained]:
    """Train, and predict the cohort's cases, on the CPU and in a process that has the other device.

    Args:
        folder: where to write.
        runs: configuration and overrides of each.
    """
    job: dict[str, Any] = {"runs": [], "answer": str(folder / "answer.json")}
    for name, (config, changes) in runs.items():
        overrides = {**changes, **SHORT, **({"training.seed": DRAWN_SEED} if DRAWN in name else {})}
        table = str(overrides.get("cohort.table", config.parent / "cohort.csv"))
        here, there = folder / f"here-{name}", folder / f"there-{name}"
        api.train(config, here, device="cpu", overrides=overrides)
        api.predict(here, [table], f"{here}-predicted", device="cpu")
        run = {"config": str(config), "out": str(there), "overrides": overrides, "predicts": str(here), "table": table}
        job["runs"].append(run)
    (folder / "job.json").write_text(json.dumps(job))
    child = subprocess.run(
        [sys.executable, "-m", "tests.other_device", str(folder / "job.json")], cwd=ROOT, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    waits = json.loads(Path(job["answer"]).read_text())
    return {
        name: Trained(folder / f"here-{name}", Path(run["out"]), waits[run["out"]])
        for name, run in zip(runs, job["runs"], strict=True)
    }


def assert_same(run: Trained) -> None:
    stored = checkpoint.load(run.here / "checkpoints"), checkpoint.load(run.there / "checkpoints")
    assert stored[0] is not None and stored[1] is not None
    here, there = stored[0].tensors["model"], stored[1].tensors["model"]
    for name, tensor in here.items():
        # what a few voxels of noise differ in is divided by how little they differ, and with it the last bits
        most = 0.02 * float(tensor.abs().max()) + 1e-4
        message = partial("{} {}: {}".format, run.there.name, name)
        torch.testing.assert_close(there[name], tensor, rtol=0, atol=most, msg=message)
    rows, others = (
        list(csv.DictReader(Path(f"{path}-predicted", "predictions.csv").read_text(encoding="utf-8").splitlines()))
        for path in (run.here, run.there)
    )
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for column in row.keys() - {"model_sha256"}:
            assert other[column] == row[column] or math.isclose(
                float(other[column]), float(row[column]), rel_tol=1e-2, abs_tol=1e-2
            ), (run.there.name, column, row, other)


def configured(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Every shipped configuration, on a stand-in for its data."""
    found = {}
    for config in CONFIGS:
        (folder / config.stem).mkdir()
        table = write_stand_in(config, folder / config.stem)
        found[config.stem] = config, {**TINY, "cohort.table": str(table), "split.folds": 2}
    return found


def test_what_is_trained_on_another_device_is_what_the_cpu_trains(tiny_cohort: Path, tmp_path: Path) -> None:
    (run,) = trained(tmp_path, {"equal": (tiny_cohort, Setting().overrides())}).values()
    assert_same(run)
    assert run.waits == READ


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_kind_of_sharing_and_weighting_trains_on_another_device(
    tiny_cohort: Path, tmp_path: Path, part: int
) -> None:
    names = sorted(name for name, setting in EVERY.items() if not setting.refusals())[part::4]
    for run in trained(tmp_path, {name: (tiny_cohort, EVERY[name].overrides()) for name in names}).values():
        assert_same(run)


@pytest.mark.slow
def test_every_configuration_and_view_trains_on_another_device(tiny_cohort: Path, tmp_path: Path) -> None:
    views = {name: (tiny_cohort, VIEWED | kind) for name, kind in zip(NAMES, KINDS, strict=True)}
    for run in trained(tmp_path, configured(tmp_path) | views).values():
        assert_same(run)
