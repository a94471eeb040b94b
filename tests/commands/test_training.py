from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.cli import main
from medmtl.errors import WorkError
from tests.commands.conftest import TINY

Captured = pytest.CaptureFixture[str]


@pytest.mark.covers("B143")
def test_a_device_that_is_absent_is_never_replaced(
    tiny_cohort: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["train", str(tiny_cohort), "--out", str(tmp_path / "run"), "--device", "cuda", "--quiet"]) == 3
    assert capsys.readouterr().err == "error: [B143] no CUDA device is available; use --device cpu or auto\n"
    assert list(tmp_path.iterdir()) == []


def test_train_hands_on_what_was_typed(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    calls: list[dict[str, Any]] = []

    def train(config: Path, out: Path, **options: Any) -> Path:
        calls.append({"config": config, "out": out, **options})
        return out

    monkeypatch.setattr(api, "train", train)
    words = ["train", "c.yaml", "--out", "r", "--fold", "all", "--resume", "--device", "cpu"]
    assert main([*words, "--set", "training.lr=1e-3", "--set", "training.steps=5"]) == 0
    assert capsys.readouterr().out == "r\n"
    (call,) = calls
    call.pop("progress")
    assert call == {
        "config": Path("c.yaml"),
        "out": Path("r"),
        "fold": "all",
        "device": "cpu",
        "resume": True,
        "overrides": {"training.lr": 1e-3, "training.steps": 5},
    }


@pytest.mark.parametrize(
    ("words", "positional", "named"),
    [
        (
            "evaluate r --config o.yaml --split all --out d --allow-overlap --device cpu",
            [Path("r")],
            {"config": Path("o.yaml"), "split": "all", "out": Path("d"), "allow_overlap": True, "device": "cpu"},
        ),
        (
            "predict r a.nii b.nii --out d --device cpu --covariate age=61 --tta",
            [Path("r"), ["a.nii", "b.nii"], Path("d")],
            {"covariates": {"age": "61"}, "device": "cpu", "tta": True},
        ),
        (
            "synth --out d --cases 11 --seed 3 --preset hard --channels 2",
            [Path("d")],
            {"cases": 11, "seed": 3, "preset": "hard", "channels": 2},
        ),
        (
            "profile c.yaml --steps 7 --device cpu --set training.lr=1e-3",
            [Path("c.yaml")],
            {"steps": 7, "device": "cpu", "overrides": {"training.lr": 1e-3}},
        ),
        ("plan c.yaml --set training.lr=1e-3", [Path("c.yaml")], {"overrides": {"training.lr": 1e-3}}),
        (
            "check c.yaml --headers --set training.lr=1e-3",
            [Path("c.yaml")],
            {"headers": True, "overrides": {"training.lr": 1e-3}},
        ),
    ],
)
def test_every_option_reaches_the_library(
    words: str, positional: list[Any], named: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[list[Any], dict[str, Any]]] = []

    def called(*arguments: Any, progress: object = None, **options: Any) -> Any:
        calls.append((list(arguments), options))
        raise WorkError("far enough")

    command, *rest = words.split()
    monkeypatch.setattr(api, "check_report" if command == "check" else command, called)
    assert main([command, *rest]) == WorkError.exit_code
    assert calls == [(positional, named)]


@pytest.mark.covers("B145", "B165")
def test_resume_wants_a_run_and_its_own_configuration(
    demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured
) -> None:
    place, _ = demonstrated
    config = str(place / "cohort" / "config.yaml")
    assert main(["train", config, "--out", str(tmp_path / "none"), "--resume"]) == 2
    assert capsys.readouterr().err.startswith("error: [B165] there is no run at")
    assert main(["train", config, "--out", str(place / "run"), "--resume"]) == 2
    changed = ", ".join(sorted({*TINY, "plan.workers"} - {"plan.batch", "plan.workers"}))
    said = capsys.readouterr().err
    assert f"[B145] the configuration differs from the run's in plan.batch, {changed}; give the same --set" in said
    assert main(["train", config, "--out", str(place / "run"), "--resume", "--fold", "1"]) == 2
    said = capsys.readouterr().err
    assert "[B145] the run at" in said
    assert "resume it with --fold 0" in said
    assert main(["train", config, "--out", str(place / "run")]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.covers("B145")
def test_the_command_that_a_refused_resume_names_resumes(
    demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured
) -> None:
    place = shutil.copytree(demonstrated[0], tmp_path / "it's a copy")
    config = str(place / "cohort" / "config.yaml")
    assert main(["train", config, "--out", str(place / "run"), "--resume"]) == 2
    said = capsys.readouterr().err
    command = said.partition("resume with its own: ")[2].partition("; with other settings")[0]
    program, *words = shlex.split(command)
    assert (program, words[-1]) == ("medmtl", "--resume")
    assert main(words) == 0
