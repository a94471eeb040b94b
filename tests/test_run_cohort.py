"""Folds of one training have one cohort, one division of it and one configuration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.cli import main
from medmtl.files import read_json, write_json
from medmtl.run_cohort import other_data
from medmtl.run_folder import MAX_JSON_BYTES, RunFolder
from tests.conftest import TINY

Captured = pytest.CaptureFixture[str]


def fold_of(run: Path, place: Path, number: int) -> RunFolder:
    """A copy of a run as a fold of that number."""
    fold = RunFolder.open(shutil.copytree(run, place / f"fold-{number}"))
    change(fold.manifest, "fold", number)
    return fold


def change(file: Path, key: str, value: object) -> None:
    write_json(file, {**read_json(file, limit_bytes=MAX_JSON_BYTES), key: value})


@pytest.fixture
def place(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> Path:
    """The folder for copies of the tiny run, with its cohort where they look for it."""
    shutil.copytree(tiny_cohort.parent, tmp_path / tiny_cohort.parent.parent.name / tiny_cohort.parent.name)
    return tmp_path / "folds"


def resume(place: Path, tiny_cohort: Path, *settings: str) -> int:
    config = place.parent / tiny_cohort.parent.parent.name / tiny_cohort.parent.name / tiny_cohort.name
    words = ["train", str(config), "--out", str(place), "--fold", "all", "--resume", "--device", "cpu", "--quiet"]
    pairs = [*(f"{key}={value}" for key, value in TINY.items()), *settings]
    return main([*words, *(word for pair in pairs for word in ("--set", pair))])


@pytest.mark.covers("B093", "B031", "F40")
@pytest.mark.parametrize("part", ["labels/case_003.nii.gz", "cohort.csv"])
@pytest.mark.parametrize("number", [0, 1])
def test_no_fold_is_trained_on_other_data_than_those_that_are_there(
    trained_run: Path, tiny_cohort: Path, place: Path, number: int, part: str, capsys: Captured
) -> None:
    fold_of(trained_run, place, number)
    path = place.parent / tiny_cohort.parent.parent.name / tiny_cohort.parent.name / part
    content = bytearray(path.read_bytes())
    if part == "cohort.csv":
        content += b"\n"  # a blank row
    else:
        content[9] ^= 1  # only the gzip header differs
    path.write_bytes(bytes(content))
    assert resume(place, tiny_cohort) == 2
    code, what = ("B031", "the table") if part == "cohort.csv" else ("B093", "the files: case_003.nii.gz")
    said = f"[{code}] the folds in {place} were trained on other data than there is now: not the same are {what};"
    assert said in capsys.readouterr().err
    assert [path.name for path in place.iterdir()] == [f"fold-{number}"]


@pytest.mark.covers("B145")
def test_no_fold_is_trained_with_other_settings_than_those_that_are_there(
    trained_run: Path, tiny_cohort: Path, place: Path, capsys: Captured
) -> None:
    fold_of(trained_run, place, 1)
    assert resume(place, tiny_cohort, "training.lr=0.002") == 2
    assert "[B145] the configuration differs from the run's in training.lr; " in capsys.readouterr().err
    assert [path.name for path in place.iterdir()] == ["fold-1"]


def test_what_is_missing_is_trained(trained_run: Path, tiny_cohort: Path, place: Path) -> None:
    fold_of(trained_run, place, 0)
    assert resume(place, tiny_cohort) == 0
    assert sorted(path.name for path in place.glob("fold-*")) == ["fold-0", "fold-1"]
    assert api.load(place, device="cpu").channels == ("image",)


@pytest.mark.covers("B153")
@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    ("file", "key", "value", "told"),
    [
        ("manifest", "table_sha256", "0" * 64, "the table"),
        ("manifest", "files_sha256", {"images/case_000.nii.gz": "0" * 64}, "the files: case_000.nii.gz"),
        ("splits", "test", ["somebody"], "the division into folds"),
        ("config", "clip: 12.0", "clip: 6.0", "training.clip"),
    ],
)
def test_folds_of_different_trainings_are_not_used_together(
    command: str, file: str, key: str, value: Any, told: str, trained_run: Path, place: Path, capsys: Captured
) -> None:
    first, second = (fold_of(trained_run, place, number) for number in (0, 1))
    if file == "config":
        second.config.write_text(second.config.read_text().replace(key, value))
    else:
        change(getattr(second, file), key, value)
    images = [str(place / "absent.nii.gz")] if command == "predict" else []
    assert main([command, str(place), *images, "--out", str(place.parent / "out"), "--device", "cpu", "--quiet"]) == 7
    said = f"[B153] {first.path} and {second.path} are folds of different trainings: not the same are {told};"
    assert said in capsys.readouterr().err
    assert not (place.parent / "out").exists()


def test_settings_of_use_and_a_moved_cohort_make_no_other_training(trained_run: Path, place: Path) -> None:
    first, second = (fold_of(trained_run, place, number) for number in (0, 1))
    second.config.write_text(second.config.read_text().replace("cohort.csv", "elsewhere.csv"))
    assert first.decisive_settings() == second.decisive_settings()
    manifest = second.load_manifest()
    moved = {f"../{name}": digest for name, digest in manifest["files_sha256"].items()}
    assert other_data(first, manifest["table_sha256"], moved, second.load_splits()) == {}
