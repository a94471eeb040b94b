"""What the check warned about is told wherever a cohort is checked, once."""

from __future__ import annotations

import logging

import pytest

from medmtl.checking.checked import Checked
from medmtl.cli import main
from medmtl.console import Screen, finding_lines
from medmtl.progress import silent
from medmtl.training.folds import Folds
from tests.checking.cohort_folder import Folder, mask

Captured = pytest.CaptureFixture[str]


def doubtful(folder: Folder) -> Folder:
    """Two grades are missing and the mask of one case is empty."""
    for row in folder.rows[:2]:
        row["grade"] = ""
    folder.save("organ_3", mask())
    folder.write()
    return folder


def test_one_warning_counts_what_was_found_by_its_rule(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    checked = doubtful(folder).check()
    with caplog.at_level(logging.WARNING, "medmtl"):
        checked.tell("they lie there")
    (record,) = caplog.records
    assert record.getMessage() == "the check warned about 2, repaired 0 (B105 x1, B116 x1); they lie there"
    assert record.name.startswith("medmtl.") and record.levelno == logging.WARNING


def test_of_a_sound_cohort_nothing_is_told(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.check().tell("nowhere")
    assert not caplog.records


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_plan_shows_the_lines_that_the_check_shows(folder: Folder, capsys: Captured, quiet: list[str]) -> None:
    config = str(doubtful(folder).path / "config.yaml")
    assert main(["check", config]) == 0
    shown = capsys.readouterr().out.splitlines()[:4]
    assert [line for line in shown if not line.startswith("  ")] == ["B105 warn: 1", "B116 warn: 1"]
    assert main(["plan", config, "--set", "plan.width=4", "--set", "plan.max_width=8", *quiet]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("check ")]
    assert said[0].startswith("warning: the check warned about 2, repaired 0 (B105 x1, B116 x1); medmtl check lists")
    assert said[1:] == shown


def test_a_training_of_all_folds_is_told_once(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    out = folder.path / "runs"
    training = Folds(doubtful(folder).write(), out, "all", "cpu", False, silent)
    assert training.numbers() == [0, 1]
    training.ready()
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == ["the check warned about 2, repaired 0"]


def test_of_several_processes_the_first_one_tells(
    folder: Folder, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: Checked = doubtful(folder).check()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        with Screen():
            checked.tell("there")
        said = capsys.readouterr().err.splitlines()
        assert said[1:] == (finding_lines(checked.findings, checked.label_files) if rank == "0" else [])
        assert bool(said) == (rank == "0")
