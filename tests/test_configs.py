"""Every shipped configuration loads, trains, and is scored, on a stand-in for its data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medmtl import api
from medmtl.config import load
from medmtl.run_folder import RunFolder
from tests.conftest import TINY
from tests.stand_in import write_stand_in

pytestmark = pytest.mark.usefixtures("undrawn")

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))

by_name = pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)


def test_there_are_configurations() -> None:
    assert {path.stem for path in CONFIGS} >= {"brats", "cine", "hippocampus", "survival"}


@by_name
def test_its_header_says_how_it_is_run_how_long_it_takes_and_what_came_out(config: Path) -> None:
    header = "".join(line for line in config.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    assert f"medmtl train configs/{config.name} --set cohort.table=" in header
    assert re.search(r"^# Time: +\S", header, re.MULTILINE)
    assert re.search(r"^# Result: +\S", header, re.MULTILINE)


@by_name
def test_it_holds_no_path_but_the_table(config: Path) -> None:
    resolved = load(config)
    assert resolved.cohort.table == config.parent / "cohort.csv"
    assert (resolved.cohort.roots, resolved.cache.folder, resolved.split.file) == ((), None, None)


@by_name
def test_it_trains_and_is_scored(config: Path, tmp_path: Path) -> None:
    table = write_stand_in(config, tmp_path)
    overrides = {**TINY, "cohort.table": str(table), "training.steps": 2, "split.folds": 2}
    run = api.train(config, tmp_path / "run", device="cpu", overrides=overrides)
    metrics = api.evaluate(run, device="cpu")["val"].metrics
    assert metrics["cases"] == 6
    assert list(metrics["tasks"]) == list(load(config).tasks)
    for task in metrics["tasks"].values():
        assert task["labelled"] == 6
        assert task["metrics"][task["primary"]]["value"] is not None


def test_the_optional_channel_of_the_brats_file_is_what_its_comment_says(tmp_path: Path) -> None:
    text = next(path for path in CONFIGS if path.stem == "brats").read_text(encoding="utf-8")
    plain, commented = (
        re.search(r"^  channels: .*$", text, re.MULTILINE),
        re.search(r"# (channels: .*)$", text, re.MULTILINE),
    )
    assert plain is not None and commented is not None
    config = tmp_path / "brats.yaml"
    config.write_text(text.replace(plain[0], f"  {commented[1]}", 1), encoding="utf-8")
    cohort = load(config).cohort
    assert (list(cohort.columns), cohort.optional) == (["t1", "t1ce", "t2", "flair"], ("flair",))
    overrides = {**TINY, "training.steps": 2, "split.folds": 2}
    run = api.train(
        config,
        tmp_path / "run",
        device="cpu",
        overrides={**overrides, "cohort.table": str(write_stand_in(config, tmp_path))},
    )
    assert RunFolder.open(run).load_plan().network.in_channels == 5
