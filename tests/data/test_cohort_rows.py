from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.cohort_files import ROWS, only, read, write


@pytest.mark.covers("B016")
@pytest.mark.parametrize(("old", "column"), [("7E5", "case_id"), ("p2", "patient_id")])
@pytest.mark.parametrize("empty", ["", "  "])
def test_b016_empty_id(folder: Path, old: str, column: str, empty: str) -> None:
    cohort, findings = read(write(folder, ROWS[0], ROWS[1].replace(old, empty)))

    assert (only(findings).code, only(findings).row, only(findings).column) == ("B016", 3, column)
    assert [case.case_id for case in cohort.cases] == ["007"]


@pytest.mark.covers("B016")
def test_a_declared_word_for_missing_is_nobody(folder: Path) -> None:
    cohort, findings = read(write(folder, ROWS[0], ROWS[1].replace("p2", "NA")))

    assert (only(findings).code, only(findings).row, only(findings).column) == ("B016", 3, "patient_id")
    assert only(findings).found == "NA, as in cohort.missing"
    assert cohort.unidentified == 1


def test_a_case_may_have_any_id(folder: Path) -> None:
    layout = replace(write(folder, ROWS[0], ROWS[1].replace("7E5", "NA")), patient="case_id")
    cohort, findings = read(layout)

    assert {finding.code for finding in findings} == {"B014", "B022"}
    assert [case.patient for case in cohort.cases] == ["007", "NA"]


@pytest.mark.covers("B015")
@pytest.mark.parametrize("word", ["unknown", "nan", "None"])
def test_a_word_for_missing_as_one_patient_of_several_rows_is_warned_of(folder: Path, word: str) -> None:
    rows = [ROWS[0].replace("p1", word), ROWS[1].replace("p2", word)]
    cohort, findings = read(write(folder, *rows))

    found = only(findings)
    assert (found.code, found.severity, found.column, found.row) == ("B015", "warn", "patient_id", None)
    assert found.found == f"{word} in 2 rows"
    assert len(cohort.cases) == 2
    assert read(write(folder, rows[0], ROWS[1]))[1] == []


@pytest.mark.covers("B017")
@pytest.mark.parametrize(("one", "other"), [("a1", "a1"), ("a1", " A1"), ("caf\u00e9", "cafe\u0301")])
def test_b017_duplicate_id_is_one_finding_on_the_later_row(folder: Path, one: str, other: str) -> None:
    first = ROWS[0].replace("007", one)

    cohort, findings = read(write(folder, first, ROWS[1], first.replace(one, other)))

    assert (only(findings).code, only(findings).row, only(findings).found) == ("B017", 4, "the id of row 2")
    assert [case.case_id for case in cohort.cases] == [one, "7E5"]


@pytest.mark.covers("B019")
def test_b019_shared_image(folder: Path) -> None:
    layout = write(folder, ROWS[0], ROWS[1].replace("images/b", "labels/../images/a"))

    cohort, findings = read(layout)

    assert (only(findings).code, only(findings).row, only(findings).found) == ("B019", 3, "the image of row 2")
    assert [case.case_id for case in cohort.cases] == ["007"]
    cohort, findings = read(replace(layout, allow_shared_image=True))
    assert (len(cohort.cases), findings) == (2, [])


@pytest.mark.covers("B019")
def test_b019_sees_through_links(folder: Path) -> None:
    (folder / "images/link.nii.gz").symlink_to("a.nii.gz")

    _, findings = read(write(folder, ROWS[0], ROWS[1].replace("images/b", "images/link")))

    assert only(findings).code == "B019"


@pytest.mark.covers("B076")
@pytest.mark.parametrize("cell", ["", "NA"])
def test_b076_a_case_without_its_image(folder: Path, cell: str) -> None:
    cohort, findings = read(write(folder, ROWS[0].replace("images/a.nii.gz", cell), ROWS[1]))

    assert (only(findings).code, only(findings).row, only(findings).column) == ("B076", 2, "image")
    assert [case.case_id for case in cohort.cases] == ["7E5"]


def test_every_row_goes_through_in_one_pass(folder: Path) -> None:
    rows = (
        ROWS[0],
        ",,GE,images/x.nii.gz,labels/y.nii.gz,5,train",
        "007,p2,GE,images/b.nii.gz,/etc/hostname,5,train",
        "short",
        "c5,p5,GE,images/a.nii.gz,,5,train",
    )

    cohort, findings = read(write(folder, *rows))

    assert sorted((finding.row, finding.code) for finding in findings) == [
        (3, "B016"),
        (3, "B016"),
        (3, "B032"),
        (3, "B032"),
        (4, "B017"),
        (4, "B034"),
        (5, "B008"),
        (6, "B019"),
    ]
    assert all(finding.severity == "reject" for finding in findings)
    assert [case.case_id for case in cohort.cases] == ["007"]


@pytest.mark.covers("B010")
@pytest.mark.parametrize(
    ("old", "new", "column", "sign"),
    [
        ("007", '"0\n7"', "case_id", "U+000A"),
        ("p1", "p\x1b[31m", "patient_id", "U+001B"),
        ("Siemens", "Sie\tmens", "vendor", "U+0009"),
        ("images/a", '"images/\ra"', "image", "U+000D"),
        ("labels/a", "labels/\u2028a", "label", "U+2028"),
        ("61.5", "61.5\x00"[:4] + "\x7f", "lvef", "U+007F"),
        ("train", "train\x85", "split", "U+0085"),
    ],
)
def test_b010_control_characters_and_line_breaks_in_a_cell(
    folder: Path, old: str, new: str, column: str, sign: str
) -> None:
    row = ROWS[0].replace(f"{old}.nii.gz" if "/" in old else old, new)

    cohort, findings = read(write(folder, row, ROWS[1]))

    finding = only(findings)
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B010", "reject", 2, column)
    assert finding.found == f"the control character {sign}"
    assert [case.case_id for case in cohort.cases] == ["7E5"]
    assert cohort.unidentified == 1


@pytest.mark.covers("B094")
def test_b094_a_word_for_missing_that_is_not_declared(folder: Path) -> None:
    cohort, findings = read(write(folder, ROWS[0].replace("labels/a.nii.gz", "n/a"), ROWS[1]))

    finding = only(findings)
    assert (finding.code, finding.row, finding.column, finding.found) == ("B094", 2, "label", "n/a")
    assert "cohort.missing" in str(finding.fix)
    assert cohort.cases[0].files == {}


def test_a_row_without_its_image_is_left_out_and_still_known(folder: Path) -> None:
    cohort, findings = read(write(folder, ROWS[0].replace("images/a", "images/x"), ROWS[1]))

    assert only(findings).code == "B032"
    assert [case.case_id for case in cohort.left_out] == ["007"]
    assert [case.case_id for case in cohort.identified] == ["007", "7E5"]
    assert cohort.unidentified == 0


@pytest.mark.covers("B076")
@pytest.mark.parametrize("cell", ["", "NA"])
def test_a_row_may_lack_an_optional_channel_but_not_all_of_them(folder: Path, cell: str) -> None:
    layout = write(folder, ROWS[0], ROWS[1].replace("images/b.nii.gz", cell))
    both = replace(layout, channels={"t1": "image", "t2": "label"}, file_columns=(), optional=("t1", "t2"))

    cohort, findings = read(both)

    # the second row names no label either
    assert (only(findings).code, only(findings).row, only(findings).found) == ("B076", 3, "no channel at all")
    assert [list(case.images) for case in cohort.cases] == [["t1", "t2"]]
    cohort, findings = read(replace(both, optional=("t2",)))
    assert (only(findings).code, only(findings).column) == ("B076", "image")


def test_a_row_without_an_optional_channel_is_a_case(folder: Path) -> None:
    layout = replace(write(folder, *ROWS), channels={"t2": "label", "t1": "image"}, file_columns=(), optional=("t2",))

    cohort, findings = read(layout)

    assert findings == []
    assert [list(case.images) for case in cohort.cases] == [["t2", "t1"], ["t1"]]


def test_an_image_of_an_optional_channel_must_be_found(folder: Path) -> None:
    layout = write(folder, ROWS[0], ROWS[1].replace(",NA,", ",5,").replace("b.nii.gz,", "b.nii.gz,labels/none.nii.gz"))
    layout = replace(layout, channels={"t1": "image", "t2": "label"}, file_columns=(), optional=("t2",))

    cohort, findings = read(layout)

    assert (only(findings).code, only(findings).row, only(findings).column) == ("B032", 3, "label")
    assert [case.case_id for case in cohort.left_out] == ["7E5"]
