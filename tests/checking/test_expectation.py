from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.checking.expectation import Expectation, Part
from medmtl.console import expectation_lines
from medmtl.metrics.expected_width import auc_width, c_index_width, dice_width


def of(config: Path, **overrides: Any) -> dict[str, Expectation]:
    report = api.check_report(config, overrides={key.replace("__", "."): value for key, value in overrides.items()})
    return {expected.task: expected for expected in report.expectations}


@pytest.fixture(scope="module")
def rows(tiny_cohort: Path) -> list[dict[str, str]]:
    with (tiny_cohort.parent / "cohort.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_task_is_told_per_fold_and_pooled(tiny_cohort: Path, rows: list[dict[str, str]]) -> None:
    found = of(tiny_cohort, split__folds=3)
    assert list(found) == ["lesion", "malignancy", "risk"]
    for name, column in (("lesion", "lesion"), ("malignancy", "malignancy"), ("risk", "risk")):
        parts = {part.name: part for part in found[name].parts}
        assert list(parts) == ["fold 0", "fold 1", "fold 2", "all folds"]
        labelled = sum(bool(row[column]) for row in rows)
        assert parts["all folds"].labelled == labelled == sum(parts[f"fold {k}"].labelled for k in range(3))
    pooled = found["malignancy"].parts[-1].width
    assert pooled.rarer == min(sum(row["malignancy"] == name for row in rows) for name in ("benign", "malignant"))
    assert pooled.width is None
    assert pooled.why == "fewer than 10 patients in the rarest class"


def test_the_test_part_stands_apart(tiny_cohort: Path) -> None:
    names = [part.name for part in of(tiny_cohort, split__test=0.25, split__folds=2)["risk"].parts]
    assert names == ["fold 0", "fold 1", "all folds", "test"]


def test_an_empty_mask_counts_as_labelled_but_not_for_the_width(tmp_path: Path) -> None:
    config = api.synth(tmp_path / "c", cases=30)
    report = api.check_report(config)
    (lesion,) = (expected for expected in report.expectations if expected.task == "lesion")
    empty = sum(finding.code == "B105" for finding in report.findings)
    assert empty > 0
    assert lesion.parts[-1].width == dice_width(lesion.parts[-1].labelled - empty)


def test_a_width_is_of_patients_and_not_of_their_scans(tiny_cohort: Path, rows: list[dict[str, str]]) -> None:
    sites = {row["site"] for row in rows}
    found = of(tiny_cohort, cohort__patient="site", split__folds=2)["malignancy"].parts[-1]
    assert found.labelled == sum(bool(row["malignancy"]) for row in rows) > len(sites)
    assert found.width.rarer == len(sites)


def test_a_cohort_with_a_fault_is_not_told_what_to_expect(tiny_cohort: Path) -> None:
    report = api.check_report(tiny_cohort, overrides={"tasks.malignancy.classes": ["benign", "other"]})
    assert any(finding.severity == "reject" for finding in report.findings)
    assert report.expectations == ()


@pytest.mark.covers("B024")
def test_a_split_that_cannot_be_made_is_a_fault_of_the_check(tiny_cohort: Path) -> None:
    findings = api.check(tiny_cohort, overrides={"split.folds": 13})
    (fault,) = (finding for finding in findings if finding.severity == "reject")
    assert (fault.code, fault.key) == ("B024", "split.folds")


def test_the_console_shows_one_table_per_task(tiny_cohort: Path) -> None:
    text = "\n".join(expectation_lines(of(tiny_cohort, split__folds=2).values()))
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    assert [block[0].split(";")[0] for block in blocks] == [
        "lesion (segmentation)",
        "malignancy (classification)",
        "risk (regression)",
    ]
    assert auc_width([(1, 1)]).assumption in blocks[1][0]
    assert [line.split()[:2] for line in blocks[1][1:]] == [
        ["scored", "on"],
        ["fold", "0"],
        ["fold", "1"],
        ["all", "folds"],
    ]
    assert "fewer than 10 patients in the rarest class" in blocks[1][-1]


def test_what_is_counted_stands_above_it() -> None:
    parts = {"outcome": c_index_width(40, 20), "grade": auc_width([(20, 20)])}
    shown = [Expectation(name, "any", (Part("fold 0", 40, width),)) for name, width in parts.items()]
    headings = [line.splitlines()[0].split("  ") for line in expectation_lines(shown) if line.startswith("scored on")]
    assert [heading[2] for heading in headings] == ["patients with the event", "patients of the rarer class"]
    assert {heading[1] for heading in headings} == {"cases labelled"}


def test_what_a_width_rests_on_stands_in_its_row_where_it_is_not_that_of_all() -> None:
    widths = {name: replace(auc_width([(20, 20)]), assumption=f"of {name}") for name in "ab"}
    one = Expectation("findings", "multilabel", (Part("fold 0", 40, widths["a"]), Part("fold 1", 40, widths["a"])))
    two = replace(one, parts=(one.parts[0], Part("fold 1", 40, widths["b"])))
    alike, apart = ("\n".join(expectation_lines([expected])).splitlines() for expected in (one, two))
    assert alike[0].endswith("interval of auc of a") and not alike[2].endswith("of a")
    assert apart[0].endswith("interval of auc")
    assert [line[-4:] for line in apart if line.startswith("fold")] == ["of a", "of b"]
