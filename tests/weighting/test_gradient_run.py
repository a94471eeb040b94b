"""A training under a method on gradients, stopped and resumed, ends in the same bytes as one that was not."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import medmtl
from medmtl.errors import InterruptedRun
from medmtl.run_folder import RunFolder
from medmtl.training import loop
from medmtl.training.session import open_session
from medmtl.training.step import train_step
from tests.conftest import TINY
from tests.weighting.test_gradient_kinds import CASES, make


@pytest.fixture
def config(tiny_cohort: Path, tmp_path: Path) -> Path:
    """The tiny cohort with every second label of its tasks missing, alternately."""
    document = yaml.safe_load(tiny_cohort.read_text())
    with (tiny_cohort.parent / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = [task["column"] for task in document["tasks"].values() if "column" in task]
    for index, row in enumerate(rows):
        for column in ("image", "lesion"):
            row[column] = str(tiny_cohort.parent / row[column]) if row[column] else ""
        for place, column in enumerate(columns):
            if (index // (place + 1)) % 2:
                row[column] = ""
    with (tmp_path / "half.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    document["cohort"] |= {"table": "half.csv", "roots": [str(tiny_cohort.parent)]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "config.yaml"


@pytest.mark.parametrize("kind", ["pcgrad", "gradvac"])
def test_a_resumed_run_is_the_uninterrupted_one(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    overrides = {**TINY, "weighting": {"kind": kind}, "training.steps": 8}

    def step_then_stop(*arguments: Any) -> Any:
        record = train_step(*arguments)
        if arguments[1].step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    whole = medmtl.train(config, tmp_path / "whole", device="cpu", overrides=overrides)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step_then_stop)
        with pytest.raises(InterruptedRun):
            medmtl.train(config, tmp_path / "parts", device="cpu", overrides=overrides)
    parts = medmtl.train(config, tmp_path / "parts", device="cpu", overrides=overrides, resume=True)

    def records(run: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        return [line for line in lines if "losses" in line]

    present = [set(record["losses"]) for record in records(whole)]
    assert any(len(names) < 3 for names in present) and any(len(names) > 1 for names in present)
    commit = (whole / "checkpoints" / "last").read_text().strip()
    assert (parts / "checkpoints" / "last").read_text().strip() == commit == "step-000008"
    for part in ("model", "optimiser", "average"):
        files = [run / "checkpoints" / commit / f"{part}.safetensors" for run in (whole, parts)]
        assert files[0].read_bytes() == files[1].read_bytes()
    states = [
        json.loads((run / "checkpoints" / commit / "state.json").read_text())["weighting"] for run in (whole, parts)
    ]
    assert states[0] == states[1]
    assert bool(states[0]) == (kind == "gradvac")
    if kind == "gradvac":
        assert any(value for row in states[0]["similarity"].values() for value in row.values())


@pytest.mark.parametrize(("kind", "more"), CASES, ids=[f"{kind}{'-last' if more else ''}" for kind, more in CASES])
def test_every_kind_makes_steps_of_a_real_training(trained_run: Path, kind: str, more: dict[str, Any]) -> None:
    session = open_session(RunFolder.open(trained_run))
    learner = session.learner
    learner.weighting = make(kind, tuple(learner.tasks), **more)
    before = [parameter.detach().clone() for parameter in learner.model.trained().shared]
    for step in range(2):
        record = train_step(learner, session.training[step], 1.0)
        assert set(record.weights) == (set() if kind == "graddrop" else set(record.losses))
    assert all(bool(parameter.isfinite().all()) for parameter in learner.model.parameters())
    assert any(not torch.equal(*pair) for pair in zip(before, learner.model.trained().shared, strict=True))
