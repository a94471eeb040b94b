from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from medmtl.data.cohort import CohortLayout
from tests.data.cohort_files import HEADER, ROWS, only, read, refused, write


def test_a_clean_table_gives_its_cases_and_no_finding(folder: Path) -> None:
    layout = write(folder, *ROWS)

    cohort, findings = read(layout)

    assert findings == []
    first, second = cohort.cases
    assert (first.case_id, first.patient, first.site, first.row, first.split) == ("007", "p1", "Siemens", 2, "train")
    assert first.images == {"t1": folder / "images/a.nii.gz"}
    assert first.cells == {"lvef": "61.5", "label": "labels/a.nii.gz"}
    assert first.files == {"label": folder / "labels/a.nii.gz"}
    assert (second.case_id, second.row) == ("7E5", 3)
    assert second.cells == {"lvef": None, "label": None}
    assert second.files == {}
    assert cohort.columns == tuple(HEADER.split(","))
    assert cohort.sha256 == hashlib.sha256(layout.table.read_bytes()).hexdigest()


@pytest.mark.covers("B015")
@pytest.mark.parametrize("case_id", ["007", "1E5", "9007199254740993", "NA", "None", "é 🧠", " 7", "1e999999"])
def test_ids_stay_text(folder: Path, case_id: str) -> None:
    cohort, findings = read(write(folder, ROWS[0].replace("007", case_id)))

    assert findings == []
    assert cohort.cases[0].case_id == case_id


def test_optional_columns_may_be_undeclared(folder: Path) -> None:
    layout = CohortLayout(write(folder, *ROWS).table, "case_id", "patient_id", {"t1": "image"})

    cohort, findings = read(layout)

    assert only(findings).code == "B014"
    case = cohort.cases[0]
    assert (case.site, case.split, case.cells, case.files) == (None, None, {}, {})


def test_one_column_may_serve_twice(folder: Path) -> None:
    layout = replace(write(folder, *ROWS), value_columns=("lvef", "vendor"))

    cohort, findings = read(layout)

    assert findings == []
    assert cohort.cases[0].cells["vendor"] == cohort.cases[0].site == "Siemens"


@pytest.mark.covers("B012")
@pytest.mark.parametrize("twin", ["lvef", " LVEF ", "Lvef"])
def test_b012_equal_names(folder: Path, twin: str) -> None:
    rows = [row + ",1" for row in ROWS]

    findings = [
        finding for finding in refused(write(folder, *rows, header=f"{HEADER},{twin}")) if finding.code != "B014"
    ]

    assert (only(findings).code, only(findings).found) == ("B012", "columns 6 and 8 have one name")


@pytest.mark.covers("B013")
def test_b013_missing_column_suggests_the_nearest(folder: Path) -> None:
    findings = refused(write(folder, *ROWS, header=HEADER.replace("label", "Label")))

    missing = only([finding for finding in findings if finding.severity == "reject"])
    assert (missing.code, missing.column, missing.fix) == ("B013", "label", "did you mean 'Label'?")


@pytest.mark.covers("B013")
def test_b013_the_other_columns_are_still_checked(folder: Path) -> None:
    rows = (ROWS[0].replace("images/a", "images/nowhere"), ROWS[1])

    findings = refused(write(folder, *rows, header=HEADER.replace("case_id", "nr").replace("lvef", "x")))

    rejects = [(finding.code, finding.row, finding.column) for finding in findings if finding.severity == "reject"]
    assert rejects == [("B013", 1, "case_id"), ("B013", 1, "lvef"), ("B032", 2, "image")]


@pytest.mark.covers("B014")
def test_b014_undeclared_columns_are_counted_and_not_shown(folder: Path) -> None:
    rows = [row + ",Jane Roe,1970" for row in ROWS]

    _, findings = read(write(folder, *rows, header=HEADER + ",name,born"))

    finding, first = only(findings), len(HEADER.split(",")) + 1
    assert (finding.code, finding.severity) == ("B014", "warn")
    assert "2 columns" in finding.sentence()
    assert "born" not in finding.sentence()
    assert finding.fix == f"ignored; counted from the left: {first}, {first + 1}"


@pytest.mark.covers("B014")
def test_b014_of_many_undeclared_columns_the_first_are_placed(folder: Path) -> None:
    header = ",".join(f"x{number}" for number in range(9))

    _, findings = read(write(folder, *(f"1,2,3,4,5,6,7,8,9,{row}" for row in ROWS), header=f"{header},{HEADER}"))

    assert only(findings).fix == "ignored; counted from the left: 1, 2, 3, 4, 5, 6, 7, 8, ..."


@pytest.mark.covers("B022")
def test_b022_patient_is_case(folder: Path) -> None:
    layout = replace(write(folder, *ROWS), patient="case_id")

    cohort, findings = read(layout)

    assert [(finding.code, finding.severity) for finding in findings] == [("B014", "warn"), ("B022", "warn")]
    assert [case.patient for case in cohort.cases] == ["007", "7E5"]


@pytest.mark.covers("B013")
@pytest.mark.parametrize("written", [" lvef ", "LVEF", "lvef "])
def test_b013_names_differ_in_blanks_and_case_too(folder: Path, written: str) -> None:
    findings = refused(write(folder, *ROWS, header=HEADER.replace("lvef", written)))

    missing = only([finding for finding in findings if finding.severity == "reject"])
    assert (missing.code, missing.column, missing.fix) == ("B013", "lvef", f"did you mean {written!r}?")


@pytest.mark.covers("B015")
@pytest.mark.parametrize(
    ("column", "one", "other"),
    [
        ("case_id", "007", "7"),
        ("case_id", "1E5", "100000"),
        ("case_id", "9007199254740993", "9007199254740993.0"),
        ("patient_id", "007", "7"),
        ("patient_id", "p1", "P1 "),
    ],
)
def test_b015_two_ids_that_are_one_number(folder: Path, column: str, one: str, other: str) -> None:
    old = ("007", "7E5") if column == "case_id" else ("p1", "p2")
    rows = [row.replace(before, new, 1) for row, before, new in zip(ROWS, old, (one, other), strict=True)]
    rows.append(rows[1].replace("7E5" if column == "patient_id" else other, "c3", 1).replace("images/b", "images/c"))

    cohort, findings = read(write(folder, *rows))

    finding = only(findings)
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B015", "warn", 3, column)
    assert (finding.found, finding.expected) == (other, f"one spelling, as {one} of row 2")
    kept = [case.case_id if column == "case_id" else case.patient for case in cohort.cases]
    assert kept[:2] == [one, other]


@pytest.mark.covers("B015")
@pytest.mark.parametrize("other", ["siemens", "Siemens "])
def test_b015_one_site_in_two_spellings(folder: Path, other: str) -> None:
    cohort, findings = read(write(folder, ROWS[0], ROWS[1].replace("Philips", other)))

    finding = only(findings)
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B015", "warn", 3, "vendor")
    assert (finding.found, finding.expected) == (other, "one spelling, as Siemens of row 2")
    assert [case.site for case in cohort.cases] == ["Siemens", other]
    unnamed = [row.replace("Siemens", "NA").replace("Philips", "NA") for row in ROWS]
    assert read(write(folder, *unnamed))[1] == []


@pytest.mark.covers("B015")
def test_b015_ids_that_only_a_float_confuses_are_two(folder: Path) -> None:
    rows = [
        row.replace(old, new) for row, old, new in zip(ROWS, ("007", "7E5"), (f"{2**53}", f"{2**53 + 1}"), strict=True)
    ]

    assert read(write(folder, *rows))[1] == []


@pytest.mark.covers("B018")
@pytest.mark.parametrize("case_id", ["../x", "a/b", "..", "-rf", "x" * 201, "é" * 101, "a\\b"])
def test_b018_ids_that_are_no_file_names_are_kept_and_told(folder: Path, case_id: str) -> None:
    cohort, findings = read(write(folder, ROWS[0].replace("007", case_id)))

    told = [finding for finding in findings if finding.code == "B018"]
    assert (only(told).severity, only(told).row, only(told).column) == ("warn", 2, "case_id")
    assert {finding.code for finding in findings} <= {"B018", "B026"}
    assert cohort.cases[0].case_id == case_id


@pytest.mark.covers("B026")
@pytest.mark.parametrize("sign", "=+-@")
def test_b026_cells_that_a_spreadsheet_would_run_stay_text(folder: Path, sign: str) -> None:
    rows = [ROWS[0].replace("Siemens", f"{sign}cmd|'/c calc'"), ROWS[1].replace("Philips", f"{sign}A1")]

    cohort, findings = read(write(folder, *rows))

    finding = only(findings)
    assert (finding.code, finding.severity, finding.case, finding.column) == ("B026", "fixed", None, "vendor")
    assert finding.found == "2 cells that begin with =, +, - or @"
    assert [case.site for case in cohort.cases] == [f"{sign}cmd|'/c calc'", f"{sign}A1"]


@pytest.mark.covers("B026")
def test_b026_a_negative_number_is_no_formula(folder: Path) -> None:
    assert read(write(folder, ROWS[0].replace("61.5", "-61.5")))[1] == []
