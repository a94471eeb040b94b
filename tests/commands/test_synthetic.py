from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from medmtl.cli import main

Captured = pytest.CaptureFixture[str]


def test_synth_answers_with_the_configuration(tmp_path: Path, capsys: Captured) -> None:
    assert main(["synth", "--out", str(tmp_path / "c"), "--cases", "10", "--channels", "2", "--seed", "3"]) == 0
    config = tmp_path / "c" / "config.yaml"
    assert capsys.readouterr().out == f"{config}\n"
    assert "image_1: image_1" in config.read_text()
    assert main(["synth", "--out", str(tmp_path / "c")]) == 2
    assert main(["synth", "--out", str(tmp_path / "d"), "--cases", "9"]) == 2


def test_a_demo_is_not_made_in_a_folder_that_holds_anything(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "cohort.csv").write_text("case_id\n")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} is not empty; name a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.csv"]


def test_the_demo_says_what_it_made_and_how(demonstrated: tuple[Path, str]) -> None:
    place, said = demonstrated
    report = place / "run" / "evaluation" / "val" / "report.html"
    assert report.is_file()
    assert f"report:     {report}" in said.splitlines()
    assert "dice" in said
    typed = [line.split()[1] for line in said.splitlines() if line.startswith("  medmtl ")]
    assert typed == ["synth", "check", "plan", "train", "evaluate", "predict"]
    assert len(list((place / "prediction" / "masks" / "lesion").iterdir())) == 1


def test_the_commands_of_the_demo_work_as_typed(
    demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured
) -> None:
    place, said = demonstrated
    (line,) = (line for line in said.splitlines() if line.startswith("  medmtl predict "))
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {line.strip()}"], capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()[1:]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'again' / 'predictions.csv'}\n"
    for name in ("predictions.csv", *(f"masks/lesion/{m.name}" for m in (tmp_path / "again/masks/lesion").iterdir())):
        assert (tmp_path / "again" / name).read_bytes() == (place / "prediction" / name).read_bytes()
