"""An evaluation takes the place of nothing but an evaluation."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.cli import main
from medmtl.errors import ArtefactError, InputError
from medmtl.evaluation import score

pytestmark = pytest.mark.usefixtures("undrawn")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.covers("B042")
@pytest.mark.parametrize(
    "file", ["masks/lesion/case_004.nii.gz", "boxes/a.csv", "cases.csv", "metrics.json", "findings.json", "report.html"]
)
@pytest.mark.parametrize("split", ["val", "all"])
def test_what_is_no_evaluation_is_not_written_over(
    split: Any, file: str, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "val" if split == "all" else tmp_path
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(b"mine")
    words = ["evaluate", str(trained_run), "--split", split, "--out", str(tmp_path), "--device", "cpu", "--quiet"]
    assert main(words) == 2
    said = f"error: [B042] {folder} holds {Path(file).parts[0]} but no activations.json, so this is no evaluation"
    assert capsys.readouterr().err.startswith(said)
    assert contents(tmp_path) == {folder / file: b"mine"}


@pytest.mark.covers("B042")
def test_an_evaluation_and_predictions_do_not_mix(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    image = tiny_cohort.parent / "images" / "case_000.nii.gz"
    api.predict(trained_run, [image], tmp_path / "out", device="cpu")
    before = contents(tmp_path)
    for config in (None, tiny_cohort):
        with pytest.raises(InputError, match=r"^\[B042\] .*/out holds predictions\.csv, and an evaluation would mix"):
            api.evaluate(trained_run, config=config, out=tmp_path / "out", allow_overlap=config is not None)
    assert contents(tmp_path) == before
    api.evaluate(trained_run, out=tmp_path / "scores", device="cpu")
    shutil.rmtree(tmp_path / "scores" / "masks")  # a run without voxel tasks has none
    with pytest.raises(InputError, match=r"^\[B042\] .*/scores holds activations\.json, and predictions would mix"):
        api.predict(trained_run, [image], tmp_path / "scores", device="cpu")
    assert not (tmp_path / "scores" / "predictions.csv").exists()


@pytest.mark.covers("B042", "B165")
def test_a_runs_own_evaluations_and_predictions_do_not_mix(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    image = tiny_cohort.parent / "images" / "case_000.nii.gz"
    shutil.copytree(trained_run, run := tmp_path / "run")
    with pytest.raises(InputError, match=r"^\[B165\] .* and only its evaluation/ takes results, those of evaluate"):
        api.predict(run, [image], run / "evaluation" / "val", device="cpu")
    assert not (run / "evaluation" / "val").exists()
    (run / "evaluation" / "val").mkdir(parents=True)
    (run / "evaluation" / "val" / "predictions.csv").write_text("case_id\n")
    with pytest.raises(InputError, match=r"^\[B042\] .*/val holds predictions\.csv, and an evaluation would mix"):
        api.evaluate(run, device="cpu")
    assert api.evaluate(run, out=run / "evaluation" / "mine", device="cpu")["val"].cases


@pytest.mark.covers("F68")
@pytest.mark.parametrize(
    "link", ["evaluation", "evaluation/val", "evaluation/val/masks", "evaluation/val/masks/lesion"]
)
def test_no_evaluation_is_written_through_a_link_in_the_run(trained_run: Path, tmp_path: Path, link: str) -> None:
    shutil.copytree(trained_run, run := tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (run / link).parent.mkdir(parents=True, exist_ok=True)
    (run / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"^\[B165\] .*/run/{link} is a link, and results would be written to"):
        api.evaluate(run, device="cpu")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.covers("F68")
@pytest.mark.parametrize("link", ["evaluation", "evaluation/val"])
def test_no_page_is_written_through_a_link_in_the_run(trained_run: Path, tmp_path: Path, link: str) -> None:
    shutil.copytree(trained_run, run := tmp_path / "run")
    api.evaluate(run, device="cpu")
    (run / link).rename(tmp_path / "elsewhere")
    (run / link).symlink_to(tmp_path / "elsewhere")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "elsewhere").rglob("*")}
    with pytest.raises(InputError, match=rf"^\[B165\] .*/run/{link} is a link"):
        api.report(run)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "elsewhere").rglob("*")} == before


@pytest.mark.covers("B165", "F68")
def test_a_place_is_no_part_of_a_run_and_may_lie_behind_a_link(trained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^\[B165\] .* lies in the run "):
        api.evaluate(trained_run, out=trained_run / "checkpoints" / "x", device="cpu")
    assert not (trained_run / "checkpoints" / "x").exists()
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "there" / "val").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"^\[B165\] .*/link/val is a link"):
        api.evaluate(trained_run, split="all", out=tmp_path / "link", device="cpu")
    (tmp_path / "there" / "val").unlink()
    api.evaluate(trained_run, out=tmp_path / "link", device="cpu")
    assert (tmp_path / "there" / "metrics.json").is_file()


@pytest.mark.covers("F05")
def test_an_evaluation_is_made_again_whether_it_ended_or_not(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = itertools.count()
    whole = score.score_case

    def break_off(*arguments: Any) -> Any:
        if next(scored) == 1:
            raise OSError("disk full")
        return whole(*arguments)

    monkeypatch.setattr(score, "score_case", break_off)
    with pytest.raises(OSError, match="disk full"):
        api.evaluate(trained_run, out=tmp_path, device="cpu")
    assert not (tmp_path / "metrics.json").exists() and list((tmp_path / "masks").iterdir())
    for _ in range(2):
        assert api.evaluate(trained_run, out=tmp_path, device="cpu")["val"].folder == tmp_path


def test_a_damaged_checkpoint_leaves_the_last_evaluation_as_it_was(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, run := tmp_path / "run")
    api.evaluate(run, device="cpu")
    before = contents(run / "evaluation")
    for file in (run / "checkpoints").glob("step-*/*.safetensors"):
        file.write_bytes(bytes(50))
    with pytest.raises(ArtefactError):
        api.evaluate(run, device="cpu")
    assert contents(run / "evaluation") == before
    assert api.report(run) == run / "evaluation" / "val" / "report.html"
