from __future__ import annotations

from pathlib import Path

import pytest

from medmtl.data.finding import Finding
from tests.checking.cohort_folder import CASES, CONFIG, Folder

AGES = ("40", "50", "55", "60", "61", "62", "70", "75")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.config = CONFIG.replace("  channels:", "  covariates: {age: number, sex: category}\n  channels:").replace(
        "range: [0, 100]", "range: [0, 100], inputs: both"
    )
    for index, row in enumerate(folder.rows):
        row |= {"age": AGES[index], "sex": "MF"[index % 3 == 0]}
    return folder


def of(findings: list[Finding]) -> list[tuple[str, str, int | None, str | None]]:
    return [(f.code, f.severity, f.row, f.column) for f in findings if f.column in ("age", "sex")]


def test_sound_covariates_give_no_finding(folder: Folder) -> None:
    assert of(folder.headers()) == []


@pytest.mark.covers("B006", "B116", "B118", "B119")
def test_every_bad_cell_is_a_finding_with_row_and_column(folder: Folder) -> None:
    for row, cell in zip(folder.rows, ("61,5", "n/a", "61;62", "old", "1e99"), strict=False):
        row["age"] = cell
    codes = ("B006", "B116", "B118", "B119", "B119")
    assert of(folder.headers()) == [(code, "reject", index + 2, "age") for index, code in enumerate(codes)]


def test_a_declared_word_is_a_missing_value(folder: Folder) -> None:
    folder.config = folder.config.replace("  channels:", '  missing: ["", "n/a"]\n  channels:')
    folder.rows[0]["age"], folder.rows[1]["age"] = "n/a", ""
    assert of(folder.headers()) == []


def test_a_column_that_is_mostly_missing_is_warned_about_and_an_empty_one_refused(folder: Folder) -> None:
    for row in folder.rows[: CASES // 2 + 1]:
        row["age"] = ""
    (found,) = [f for f in folder.headers() if f.column == "age"]
    assert (found.code, found.severity, found.key) == ("B116", "warn", "cohort.covariates.age")
    assert found.found == "5 of 8 cases without a value"
    for row in folder.rows:
        row["age"] = ""
    assert of(folder.headers()) == [("B116", "reject", None, "age")]


@pytest.mark.parametrize(("column", "cell"), [("age", "60"), ("sex", "F")])
def test_a_constant_is_warned_about(folder: Folder, column: str, cell: str) -> None:
    for row in folder.rows:
        row[column] = cell
    assert of(folder.headers()) == [("B014", "warn", None, column)]


@pytest.mark.covers("B121", "B122")
def test_codes_and_far_values_are_asked_about(folder: Folder) -> None:
    folder.rows[0]["age"] = folder.rows[1]["age"] = "999"
    folder.rows[2]["age"] = "610"
    assert of(folder.headers()) == [("B121", "warn", None, "age"), ("B122", "warn", 4, "age")]


@pytest.mark.covers("B113")
def test_levels_in_two_spellings(folder: Folder) -> None:
    for row, cell in zip(folder.rows, ("M", "m ", "1", "1.0", "unknown"), strict=False):
        row["sex"] = cell
    assert of(folder.headers()) == [
        ("B015", "warn", 3, "sex"),
        ("B113", "reject", 5, "sex"),
        ("B116", "warn", 6, "sex"),
    ]


def test_covariates_that_no_task_reads_are_said(folder: Folder) -> None:
    folder.config = folder.config.replace(", inputs: both", "")
    (found,) = [f for f in folder.headers() if f.key == "cohort.covariates"]
    assert (found.code, found.severity, found.found) == ("B014", "warn", "no task reads them")


def test_a_declared_column_must_be_there(folder: Folder) -> None:
    for row in folder.rows:
        del row["sex"]
    with pytest.raises(Exception, match="lacks a declared column"):
        folder.headers()
