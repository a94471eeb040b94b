"""Ids and file names as people and other programs write them, through every command; and hash seeds."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.cli import main
from medmtl.errors import InputError
from tests.conftest import TINY

NAMES = (
    "a b", "it's", 'say "x"', "$HOME", "*", "[a]", "-rf", "\U0001f9e0", "\u05e9\u05dc\u05d5\u05dd", "a;b,c",
    "=1+1", "%41",
)  # fmt: skip


def hostile(cohort: Path, place: Path) -> Path:
    """A copy of a cohort of twelve whose ids and images have these names; returns its configuration."""
    shutil.copytree(cohort, place)
    with (place / "cohort.csv").open(encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row, name in zip(rows, NAMES, strict=True):
        image = f"{name}.nii.gz"
        (place / row["image"]).rename(place / image)
        row |= {"case_id": name, "patient_id": f"p {name}", "image": image}
    with (place / "cohort.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return (place / "config.yaml").rename(place / "it's my $config [1].yaml")


@pytest.mark.covers("B038")
def test_a_cohort_of_such_names_passes_the_check(tiny_cohort: Path, tmp_path: Path) -> None:
    config = hostile(tiny_cohort.parent, tmp_path / "it's * [here]")
    found = {(finding.code, finding.severity) for finding in api.check(config)}
    assert {finding for finding in found if finding[1] == "reject"} == set()
    assert {("B018", "warn"), ("B026", "fixed")} <= found


@pytest.mark.covers("B039")
def test_a_folder_whose_name_is_no_utf_8(tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    shutil.copytree(tiny_cohort.parent, place)
    assert main(["check", str(place / "config.yaml")]) == 0
    (place / "cohort.csv").unlink()
    assert main(["check", str(place / "config.yaml")]) == 2
    assert "B001" in capsys.readouterr().err
    assert main(["check", str(place / "absent.yaml")]) == 2
    assert "caf\\udce9" in capsys.readouterr().err


@pytest.mark.covers("B039")
@pytest.mark.parametrize("name", ["caf\udce9", "study{{v2}}", "a$(b)"])
def test_a_run_that_could_not_read_its_own_configuration_is_refused_before_the_check(
    name: str, tiny_cohort: Path, tmp_path: Path
) -> None:
    config = Path(shutil.copytree(tiny_cohort.parent, tmp_path / name)) / tiny_cohort.name
    with pytest.raises(InputError, match=r"would name its cohort by a path .*; rename that folder$"):
        api.train(config, tmp_path / "run", device="cpu", overrides=TINY)
    assert not (tmp_path / "run").exists() and not list(tmp_path.rglob(".medmtl-cache"))


@pytest.mark.covers("B039")
def test_a_run_whose_name_is_no_utf_8_has_its_page(trained_run: Path) -> None:
    run = Path(shutil.copytree(trained_run, trained_run.with_name("caf\udce9")))
    api.evaluate(run, device="cpu")
    assert "Evaluation of caf\\udce9" in (run / "evaluation" / "val" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.covers("B018", "B026", "B038")
def test_such_names_go_through_every_command(tiny_cohort: Path, tmp_path: Path) -> None:
    place = tmp_path / "it's * [here]"
    config = hostile(tiny_cohort.parent, place)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    run = api.train(config, tmp_path / "run -$x", device="cpu", overrides=TINY)
    scores = api.evaluate(run, split="all", device="cpu")
    with api.predict(run, [config], tmp_path / "out", device="cpu").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"].removeprefix("'") for row in rows] == [name for name in NAMES]
    assert [row["case_id"] for row in rows if row["case_id"].startswith("'")] == ["'-rf", "'=1+1"]
    masks = [tmp_path / "out" / row["lesion_file"] for row in rows]
    assert all(mask.is_file() and mask.resolve().is_relative_to(tmp_path / "out") for mask in masks)
    ids = {entry.case_id for found in scores.values() for entry in found.cases["lesion"]}
    assert ids <= set(NAMES)
    page = api.report(run).read_text(encoding="utf-8")
    assert "<html" in page
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path for path in place.rglob("*") if path.is_file()) == sorted(before)


@pytest.mark.slow
@pytest.mark.covers("B114")
def test_no_hash_seed_changes_the_order_of_classes_or_the_folds(tiny_cohort: Path, tmp_path: Path) -> None:
    script = (
        "import json, sys; from pathlib import Path; from medmtl import config; from medmtl.training.start import *; "
        "ready = make_ready(config.load(Path(sys.argv[1]))); task = ready.tasks['malignancy']; "
        "truths = list(ready.checked.truths['malignancy'].values()); "
        "said = [ready.splits.to_json(), task.options.classes, task.fit(truths), "
        "[int(task.encode(truth)) for truth in truths], [f.to_json() for f in ready.checked.findings]]; "
        "print(json.dumps(said))"
    )
    said = set()
    for seed in range(10):
        environment = os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, "-c", script, str(tiny_cohort)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(done.stdout)
    (only,) = said
    assert json.loads(only)[1] == ["benign", "malignant"]
