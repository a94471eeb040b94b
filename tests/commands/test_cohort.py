from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import medmtl
from medmtl.cli import main

Captured = pytest.CaptureFixture[str]


def test_check_lists_counts_and_writes_the_findings(tiny_cohort: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["check", str(tiny_cohort), "--json", str(tmp_path / "f.json")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("0 rejected, ")
    assert out.splitlines()[-1].endswith(": fit for training")
    assert "check 12/12" in err
    lines = out.splitlines()
    heading = lines.index("malignancy (classification); width of the 95 % interval of auc at an AUC of 0.8")
    (read,) = (number for number, line in enumerate(lines) if line.startswith("risk: "))
    assert read < heading and " labelled, " in lines[read] and " points (range 0 to 100)" in lines[read]
    written = json.loads((tmp_path / "f.json").read_text())
    assert len(written) == len(medmtl.check(tiny_cohort))
    assert {"code", "severity", "case", "row", "column", "key", "line", "file", "found", "expected", "fix"} == set(
        written[0]
    )


def test_check_strict_counts_warnings_as_faults(tiny_cohort: Path, capsys: Captured) -> None:
    assert main(["check", str(tiny_cohort), "--strict", "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].endswith(": not fit for training")
    assert err == ""


def test_check_writes_the_findings_of_a_table_that_cannot_be_read(
    tiny_cohort: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "config.yaml").write_text(tiny_cohort.read_text())
    (tmp_path / "cohort.csv").write_text("")
    assert main(["check", str(tmp_path / "config.yaml"), "--json", str(tmp_path / "f.json")]) == 2
    assert "B002 reject: 1" in capsys.readouterr().err
    assert [finding["code"] for finding in json.loads((tmp_path / "f.json").read_text())] == ["B002"]


@pytest.mark.covers("B131", "B132")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schema: 1\ntasks: [\n", [("B131", None, 3)]),
        ("schema: 1\ncohorte: {}\nplan: {batch: 0}\n", [("B132", "cohorte", 2), ("B138", "plan.batch", 3)]),
    ],
)
def test_check_writes_the_faults_of_a_configuration(
    text: str, expected: list[tuple[str, str | None, int]], tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert main(["check", str(tmp_path / "config.yaml"), "--json", str(tmp_path / "f.json")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: [B1")
    assert err.count("\n") == 1
    found = json.loads((tmp_path / "f.json").read_text())
    assert {finding["severity"] for finding in found} == {"reject"}
    assert set(expected) <= {(finding["code"], finding["key"], finding["line"]) for finding in found}
    assert (tmp_path / "config.yaml").read_text() == text


def test_plan_gives_each_value_with_its_reason(tiny_cohort: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["plan", str(tiny_cohort), "--out", str(tmp_path / "plan.json")]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    written = json.loads((tmp_path / "plan.json").read_text())
    assert f"{written['batch']} " in lines["batch"]
    assert written["reasons"]["spacing"] in lines["spacing"]
    assert lines["length"].split("  ")[-1] == written["reasons"]["length"]
    assert lines["length"].split()[1:3] == [str(written["steps"]), "steps"]
    for name, key in (("memory", "memory_bytes"), ("disk", "disk_bytes")):
        assert lines[name].split()[1:3] == [f"{written[key] / 1e9:.2f}", "GB"]
    minutes, unit = lines["time"].split()[1:3]
    assert float(minutes) == float(f"{written['seconds'] / 60:.2g}") and unit == "minutes"
    assert "within a factor of two" in lines["time"]
    column = lines["planned"].index("reason")
    assert all(len(line) > column for line in lines.values()), "each value has its reason"


def test_check_looks_at_the_cohort_that_was_set(tiny_cohort: Path, tmp_path: Path, capsys: Captured) -> None:
    (table := tmp_path / "other.csv").write_text("")
    words = ["check", str(tiny_cohort), "--headers", "--quiet", "--set"]
    assert main([*words, "training.steps=3", "--set", f"cohort.table={table}"]) == 2
    assert "B002 reject: 1" in capsys.readouterr().err
    assert main([*words, "training.stepz=3", "--json", str(tmp_path / "f.json")]) == 2
    assert "[B132] training.stepz: " in capsys.readouterr().err
    assert [finding["code"] for finding in json.loads((tmp_path / "f.json").read_text())] == ["B132"]


@pytest.mark.parametrize("command", [["check", "--json"], ["plan", "--out"]])
def test_no_answer_is_written_over_a_table_that_was_set(
    command: list[str], tiny_cohort: Path, tmp_path: Path, capsys: Captured
) -> None:
    (table := tmp_path / "other.csv").write_bytes(tiny_cohort.with_name("cohort.csv").read_bytes())
    setting = f"cohort.table={table}"
    assert main([command[0], str(tiny_cohort), command[1], str(table), "--set", setting]) == 2
    assert str(table) in capsys.readouterr().err
    assert table.read_bytes() == tiny_cohort.with_name("cohort.csv").read_bytes()


def test_plan_plans_what_was_set(tiny_cohort: Path, tmp_path: Path) -> None:
    (place := tmp_path / "plan.json").write_text("")
    settings = ["training.steps=7", "plan.batch=3", "plan.width=4", "plan.max_width=8"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["plan", str(tiny_cohort), "--out", str(place), "--quiet", *words]) == 0
    planned = json.loads(place.read_text())
    assert (planned["steps"], planned["batch"]) == (7, 3)


@pytest.mark.covers("B105")
def test_check_counts_empty_masks_and_lists_each_in_its_file(tmp_path: Path, capsys: Captured) -> None:
    config = medmtl.synth(tmp_path / "c", cases=30)
    assert main(["check", str(config), "--quiet", "--json", str(tmp_path / "f.json")]) == 0
    out = capsys.readouterr().out
    found = [finding for finding in json.loads((tmp_path / "f.json").read_text()) if finding["code"] == "B105"]
    with (config.parent / "cohort.csv").open(encoding="utf-8", newline="") as file:
        drawn = sum(bool(row["lesion"]) for row in csv.DictReader(file))
    assert len({finding["row"] for finding in found}) == len(found) > 5
    assert f"  column lesion: {len(found)} of {drawn} masks are empty; each is kept" in out
    assert out.count("masks are empty") == 1 and "no voxel labelled" not in out
