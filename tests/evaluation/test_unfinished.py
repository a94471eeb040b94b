"""That a training or an evaluation did not come to its end, or lacks folds, is said wherever its models answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import medmtl
from medmtl.cli import main
from medmtl.errors import WorkError
from medmtl.evaluation import score
from medmtl.files import write_json
from medmtl.inference.unfinished import open_models
from medmtl.run_folder import RunFolder
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("undrawn")

STOPPED = "stopped at step 4 of 6"


@pytest.fixture
def stopped(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> Path:
    """The tiny run as it was after its step 4, beside its cohort."""
    run = shutil.copytree(trained_run, tmp_path / "runs" / "run")
    shutil.copytree(tiny_cohort.parent, tmp_path / tiny_cohort.parent.parent.name / tiny_cohort.parent.name)
    shutil.rmtree(run / "checkpoints" / "step-000006")
    return run


def scan(tiny_cohort: Path) -> Path:
    return tiny_cohort.parent / "images" / "case_000.nii.gz"


def test_a_run_that_was_stopped_predicts_with_a_warning(
    stopped: Path, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(stopped), str(scan(tiny_cohort)), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*words, "--quiet"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"warning: {stopped} {STOPPED}; finish it with medmtl train ... --resume"
    assert "trained on" in second


def test_an_evaluation_of_a_run_that_was_stopped_says_so(
    stopped: Path, tiny_cohort: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for scores in medmtl.evaluate(stopped, split="all", device="cpu").values():
        stored = json.loads((scores.folder / "metrics.json").read_text())
        assert stored["unfinished"] == [{"fold": 0, "step": 4, "steps": 6}]
    assert caplog.text.count(STOPPED) == 1
    page = stopped / "evaluation" / "val" / "report.html"
    before = page.read_bytes()
    assert f'<p class="warning">not trained to the end: fold 0 {STOPPED}</p>' in before.decode()
    cohort = stopped.parents[1] / tiny_cohort.parent.parent.name / tiny_cohort.parent.name / tiny_cohort.name
    medmtl.train(cohort, stopped, device="cpu", overrides=TINY, resume=True)
    medmtl.report(stopped)
    assert page.read_bytes().count(STOPPED.encode()) == 1, "the page is of the model that answered"
    medmtl.evaluate(stopped, device="cpu")
    assert "unfinished" not in json.loads((page.parent / "metrics.json").read_text())
    assert STOPPED not in page.read_text()


def test_a_run_in_minutes_that_has_no_number_of_steps_yet_is_not_finished(
    stopped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder.open(stopped)
    write_json(run.plan, replace(run.load_plan(), steps=None, minutes=10.0).to_json())
    assert not run.is_finished()
    medmtl.load(stopped, device="cpu")
    assert f"{stopped} stopped at step 4 of a training in minutes; finish it" in caplog.text


def test_folds_that_are_not_there_are_warned_about(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folds = tmp_path / "folds"
    shutil.copytree(trained_run, folds / "fold-0")
    medmtl.predict(folds, [scan(tiny_cohort)], tmp_path / "out", device="cpu")
    assert [record.getMessage() for record in caplog.records if "trained on" not in record.getMessage()] == [
        f"only folds 0 of 2 are in {folds}; train the others with medmtl train ... --fold all --resume"
    ]
    caplog.clear()
    medmtl.load(folds / "fold-0", device="cpu")
    shutil.copytree(trained_run, folds / "fold-1")
    manifest = json.loads((folds / "fold-1" / "manifest.json").read_text())
    write_json(folds / "fold-1" / "manifest.json", {**manifest, "fold": 1})
    assert len(open_models(folds)) == 2
    assert caplog.text == ""


def test_an_evaluation_that_breaks_off_leaves_no_numbers_of_the_last_one(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its masks are replaced one by one, so that numbers and masks would be of two models."""
    medmtl.evaluate(trained_run, out=tmp_path / "out", device="cpu")
    kept = {"metrics.json", "cases.csv", "report.html"}
    assert kept <= {path.name for path in (tmp_path / "out").iterdir()}

    def failing(*given: Any) -> Any:
        raise WorkError("the disk is gone")

    monkeypatch.setattr(score, "write_answers", failing)
    with pytest.raises(WorkError):
        medmtl.evaluate(trained_run, out=tmp_path / "out", device="cpu")
    assert not kept & {path.name for path in (tmp_path / "out").iterdir()}
