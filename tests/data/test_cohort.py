from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from medmtl.data.cohort import CohortLayout
from tests.data.cohort_files import HEADER, ROWS, layout_of, only, read, refused, write


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


@pytest.mark.parametrize("case_id", ["007", "1E5", "9007199254740993", "NA", "None", "=1+1", "../x", "é 🧠", " 7"])
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


def test_tab_separated(folder: Path) -> None:
    layout = replace(layout_of(folder), table=folder / "cohort.tsv")
    layout.table.write_text("\n".join((HEADER, *ROWS)).replace(",", "\t"), encoding="utf-8")

    cohort, findings = read(layout)

    assert findings == []
    assert [case.case_id for case in cohort.cases] == ["007", "7E5"]


def test_a_row_number_is_the_line_on_which_the_row_starts(folder: Path) -> None:
    quoted = '"two\nlines",p1,Siemens,images/a.nii.gz,,1,train'

    cohort, _ = read(write(folder, quoted, ROWS[1]))

    assert [case.row for case in cohort.cases] == [2, 4]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_other_systems(folder: Path, end: str) -> None:
    layout = layout_of(folder)
    layout.table.write_bytes(end.join((HEADER, *ROWS, "")).encode())

    cohort, findings = read(layout)

    assert findings == []
    assert [case.row for case in cohort.cases] == [2, 3]


def test_b001_missing_table_and_folder_as_table(folder: Path) -> None:
    missing = only(refused(layout_of(folder)))
    assert (missing.code, missing.severity) == ("B001", "reject")
    assert "errno 2" in str(missing.found)

    assert only(refused(replace(layout_of(folder), table=folder / "images"))).code == "B001"


def test_b001_a_pipe_does_not_block(folder: Path) -> None:
    os.mkfifo(folder / "cohort.csv")

    assert only(refused(layout_of(folder))).code == "B001"


@pytest.mark.parametrize("content", [b"", HEADER.encode(), HEADER.encode() + b"\n,,,,,,\n\n"])
def test_b002_no_cases(folder: Path, content: bytes) -> None:
    layout = layout_of(folder)
    layout.table.write_bytes(content)

    finding = only(refused(layout))

    assert (finding.code, finding.found) == ("B002", "0 cases")


def test_b003_byte_order_mark_is_dropped(folder: Path) -> None:
    layout = write(folder, *ROWS)
    layout.table.write_bytes(b"\xef\xbb\xbf" + layout.table.read_bytes())

    cohort, findings = read(layout)

    assert (only(findings).code, only(findings).severity) == ("B003", "fixed")
    assert cohort.columns[0] == "case_id"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_b004_other_unicode(folder: Path, encoding: str) -> None:
    layout = write(folder, *ROWS)
    layout.table.write_text(layout.table.read_text(encoding="utf-8"), encoding=encoding)

    assert only(refused(layout)).code == "B004"


def test_b004_a_latin_1_byte_is_located(folder: Path) -> None:
    layout = write(folder, *ROWS)
    content = layout.table.read_bytes().replace(b"Philips", b"Phil\xefps")
    layout.table.write_bytes(content)

    finding = only(refused(layout))

    assert (finding.code, finding.row) == ("B004", 3)
    assert finding.found == f"byte 0xef at offset {content.index(0xEF)}"


def test_b007_every_row_too_long(folder: Path) -> None:
    finding = only(refused(write(folder, *(row + ",x" for row in ROWS))))

    assert (finding.code, finding.case, finding.row) == ("B007", None, None)
    assert finding.found == "8 fields in every row"
    assert str(finding.expected).startswith("7 fields")


def test_b008_ragged_rows_are_left_out(folder: Path) -> None:
    long, short = ROWS[1] + ",x", "c3,p3"

    cohort, findings = read(write(folder, ROWS[0], long, short))

    assert [(finding.code, finding.row, finding.found) for finding in findings] == [
        ("B008", 3, "8 fields"),
        ("B008", 4, "2 fields"),
    ]
    assert [case.case_id for case in cohort.cases] == ["007"]


def test_b009_the_line_of_an_unclosed_quote(folder: Path) -> None:
    finding = only(refused(write(folder, ROWS[0], '"' + ROWS[1], ROWS[0].replace("007", "c3"))))

    assert (finding.code, finding.row) == ("B009", 3)


def test_b010_nul(folder: Path) -> None:
    finding = only(refused(write(folder, ROWS[0], ROWS[1].replace("p2", "p\0"))))

    assert (finding.code, finding.row) == ("B010", 3)


def test_b011_blank_rows_are_counted(folder: Path) -> None:
    cohort, findings = read(write(folder, ROWS[0], "", ",,,,,,", ROWS[1], ""))

    assert (only(findings).code, only(findings).severity, only(findings).found) == ("B011", "fixed", "3 blank rows")
    assert [case.row for case in cohort.cases] == [2, 5]


@pytest.mark.parametrize("twin", ["lvef", " LVEF ", "Lvef"])
def test_b012_equal_names(folder: Path, twin: str) -> None:
    rows = [row + ",1" for row in ROWS]

    findings = [
        finding for finding in refused(write(folder, *rows, header=f"{HEADER},{twin}")) if finding.code != "B014"
    ]

    assert (only(findings).code, only(findings).found) == ("B012", "columns 6 and 8 have one name")


def test_b013_missing_column_suggests_the_nearest(folder: Path) -> None:
    findings = refused(write(folder, *ROWS, header=HEADER.replace("label", "Label")))

    missing = only([finding for finding in findings if finding.severity == "reject"])
    assert (missing.code, missing.column, missing.fix) == ("B013", "label", "did you mean 'Label'?")


def test_b013_the_other_columns_are_still_checked(folder: Path) -> None:
    rows = (ROWS[0].replace("images/a", "images/nowhere"), ROWS[1])

    findings = refused(write(folder, *rows, header=HEADER.replace("case_id", "nr").replace("lvef", "x")))

    rejects = [(finding.code, finding.row, finding.column) for finding in findings if finding.severity == "reject"]
    assert rejects == [("B013", 1, "case_id"), ("B013", 1, "lvef"), ("B032", 2, "image")]


def test_b014_undeclared_columns_are_counted_and_not_shown(folder: Path) -> None:
    rows = [row + ",Jane Roe,1970" for row in ROWS]

    _, findings = read(write(folder, *rows, header=HEADER + ",name,born"))

    finding = only(findings)
    assert (finding.code, finding.severity) == ("B014", "warn")
    assert "2 columns" in finding.sentence()
    assert "born" not in finding.sentence()


def test_b022_patient_is_case(folder: Path) -> None:
    layout = replace(write(folder, *ROWS), patient="case_id")

    cohort, findings = read(layout)

    assert [(finding.code, finding.severity) for finding in findings] == [("B014", "warn"), ("B022", "warn")]
    assert [case.patient for case in cohort.cases] == ["007", "7E5"]
