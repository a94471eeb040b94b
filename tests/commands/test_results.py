from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.cli import main

Captured = pytest.CaptureFixture[str]


def test_a_bad_case_does_not_cost_the_others(demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured) -> None:
    place, _ = demonstrated
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    good = next((place / "cohort" / "images").iterdir())
    assert main(["predict", str(place / "run"), str(tmp_path / "bad.nii.gz"), str(good), "--out", str(tmp_path)]) == 2
    assert "1 of 2 cases were not predicted" in capsys.readouterr().err
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 2


def test_evaluate_and_report_show_the_scores(demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured) -> None:
    place, _ = demonstrated
    assert main(["evaluate", str(place / "run"), "--out", str(tmp_path / "e"), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0].startswith("val: ")
    assert out.splitlines()[-1] == f"report: {tmp_path / 'e' / 'report.html'}"
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert all(name in out for task in metrics["tasks"].values() for name in task["metrics"])
    page = place / "run" / "evaluation" / "val" / "report.html"
    before = page.read_bytes()
    assert main(["report", str(place / "run")]) == 0
    assert page.read_bytes() == before
    assert main(["report", str(place / "run"), "--share"]) == 0
    assert "case_0" not in Path(capsys.readouterr().out.splitlines()[-1]).read_text()
    assert main(["evaluate", str(place / "run"), "--split", "test"]) == 2
    assert "no test cases" in capsys.readouterr().err


def test_report_takes_the_page_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    calls: list[dict[str, Any]] = []

    def report(run: Path, **options: Any) -> Path:
        calls.append(options)
        return run

    monkeypatch.setattr(api, "report", report)
    assert main(["report", "r", "--split", "train", "--share"]) == 0
    assert main(["report", "r", "--config", "other.yaml"]) == 0
    assert calls == [
        {"config": None, "split": "train", "share": True},
        {"config": Path("other.yaml"), "split": None, "share": False},
    ]


def test_the_page_of_another_split_is_written_again(
    demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured
) -> None:
    place = shutil.copytree(demonstrated[0], tmp_path / "copy")
    assert main(["report", str(place / "run"), "--split", "train"]) == 2
    first = f"run medmtl evaluate {place / 'run'}"
    assert f"the train split was not evaluated yet; {first} --split all first" in capsys.readouterr().err
    assert main(["report", str(place / "run"), "--config", "a b.yaml"]) == 2
    assert f"the cohort of a b.yaml was not evaluated yet; {first} --config 'a b.yaml' first" in capsys.readouterr().err
    shutil.rmtree(place / "run" / "evaluation" / "val")
    assert main(["report", str(place / "run")]) == 2
    assert f"the val split was not evaluated yet; {first} first" in capsys.readouterr().err
    assert main(["evaluate", str(place / "run"), "--split", "all", "--quiet"]) == 0
    assert main(["report", str(place / "run"), "--split", "train", "--share"]) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]).parent == place / "run" / "evaluation" / "train"
    assert main(["report", str(place / "run"), "--config", "o.yaml", "--split", "test"]) == 2
    assert "all cases of another cohort are scored; leave --split test away" in capsys.readouterr().err


@pytest.mark.covers("B165")
def test_nothing_is_merged_into_a_run(demonstrated: tuple[Path, str], capsys: Captured) -> None:
    run = demonstrated[0] / "run"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for words in (["evaluate", str(run), "--out", str(run)], ["predict", str(run), "x.nii.gz", "--out", str(run)]):
        assert main(words) == 2
        assert (
            capsys.readouterr().err
            == f"error: [B165] {run} is a run, and nothing is merged into one; choose another --out\n"
        )
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize("inside", ["", "new"])
def test_a_file_is_no_folder_for_results(
    demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured, inside: str
) -> None:
    place, _ = demonstrated
    run, image = str(place / "run"), str(next((place / "cohort" / "images").iterdir()))
    (file := tmp_path / "file").write_text("kept")
    commands = [["predict", run, image], ["evaluate", run], ["demo"], ["synth"]]
    # a run's own place has a message of its own
    commands += [["train", str(place / "cohort" / "config.yaml")]] if inside else []
    for words in commands:
        assert main([*words, "--out", str(file / inside), "--quiet"]) == 2
        assert capsys.readouterr().err == f"error: {file} is a file; name a new or an empty folder\n"
    assert file.read_text() == "kept"


@pytest.mark.covers("B165")
def test_nothing_is_merged_into_a_folder_of_folds(
    demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured
) -> None:
    (fold := tmp_path / "folds" / "fold-0").mkdir(parents=True)
    shutil.copy(demonstrated[0] / "run" / "manifest.json", fold)
    for words in (["evaluate"], ["predict", "x.nii.gz"]):
        assert main([words[0], str(demonstrated[0] / "run"), *words[1:], "--out", str(fold.parent)]) == 2
        assert capsys.readouterr().err.startswith(f"error: [B165] {fold.parent} is a run, and nothing is merged")
    assert [path.name for path in fold.parent.rglob("*")] == ["fold-0", "manifest.json"]
