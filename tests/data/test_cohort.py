from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from medmtl.data.cohort import Cohort, CohortLayout, read_cohort
from medmtl.data.finding import Finding, Findings
from medmtl.errors import CohortError

HEADER = "case_id,patient_id,vendor,image,label,lvef,split"
ROWS = (
    "007,p1,Siemens,images/a.nii.gz,labels/a.nii.gz,61.5,train",
    "7E5,p2,Philips,images/b.nii.gz,,NA,val",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cohort's folder with three images and two labels."""
    for name in ("images/a", "images/b", "images/c", "labels/a", "labels/b"):
        file = tmp_path / "cohort" / f"{name}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "cohort"


def layout_of(folder: Path) -> CohortLayout:
    return CohortLayout(
        table=folder / "cohort.csv",
        case="case_id",
        patient="patient_id",
        channels={"t1": "image"},
        site="vendor",
        value_columns=("lvef",),
        file_columns=("label",),
        split="split",
        missing=("", "NA"),
    )


def write(folder: Path, *rows: str, header: str = HEADER) -> CohortLayout:
    layout = layout_of(folder)
    layout.table.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return layout


def read(layout: CohortLayout) -> tuple[Cohort, list[Finding]]:
    findings = Findings()
    return read_cohort(layout, findings), list(findings)


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [finding.sentence() for finding in findings]
    return findings[0]


def refused(layout: CohortLayout) -> list[Finding]:
    """The findings of a table that cannot be read; the error carries the same ones."""
    findings = Findings()
    with pytest.raises(CohortError) as error:
        read_cohort(layout, findings)
    assert error.value.findings == tuple(findings)
    return list(findings)


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


# The table as a whole


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


# The header


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


# Ids


@pytest.mark.parametrize(("old", "column"), [("7E5", "case_id"), ("p2", "patient_id")])
@pytest.mark.parametrize("empty", ["", "  "])
def test_b016_empty_id(folder: Path, old: str, column: str, empty: str) -> None:
    cohort, findings = read(write(folder, ROWS[0], ROWS[1].replace(old, empty)))

    assert (only(findings).code, only(findings).row, only(findings).column) == ("B016", 3, column)
    assert [case.case_id for case in cohort.cases] == ["007"]


@pytest.mark.parametrize(("one", "other"), [("a1", "a1"), ("a1", " A1"), ("caf\u00e9", "cafe\u0301")])
def test_b017_duplicate_id_is_one_finding_on_the_later_row(folder: Path, one: str, other: str) -> None:
    first = ROWS[0].replace("007", one)

    cohort, findings = read(write(folder, first, ROWS[1], first.replace(one, other)))

    assert (only(findings).code, only(findings).row, only(findings).found) == ("B017", 4, "the id of row 2")
    assert [case.case_id for case in cohort.cases] == [one, "7E5"]


# Files


def test_b019_shared_image(folder: Path) -> None:
    layout = write(folder, ROWS[0], ROWS[1].replace("images/b", "labels/../images/a"))

    cohort, findings = read(layout)

    assert (only(findings).code, only(findings).row, only(findings).found) == ("B019", 3, "the image of row 2")
    assert [case.case_id for case in cohort.cases] == ["007"]
    cohort, findings = read(replace(layout, allow_shared_image=True))
    assert (len(cohort.cases), findings) == (2, [])


def test_b019_sees_through_links(folder: Path) -> None:
    (folder / "images/link.nii.gz").symlink_to("a.nii.gz")

    _, findings = read(write(folder, ROWS[0], ROWS[1].replace("images/b", "images/link")))

    assert only(findings).code == "B019"


def test_b032_all_missing_files_are_listed(folder: Path) -> None:
    rows = (
        ROWS[0].replace("images/a", "images/x"),
        ROWS[1].replace("images/b", "images/b.nii.gz/y"),
        "c3,p3,GE,images/c.nii.gz,labels/z.nii.gz,5,train",
    )

    cohort, findings = read(write(folder, *rows))

    assert [(finding.code, finding.row, finding.column, finding.file) for finding in findings] == [
        ("B032", 2, "image", "images/x.nii.gz"),
        ("B032", 3, "image", "images/b.nii.gz/y.nii.gz"),
        ("B032", 4, "label", "labels/z.nii.gz"),
    ]
    assert [case.case_id for case in cohort.cases] == ["c3"]
    assert cohort.cases[0].files == {}


@pytest.mark.parametrize("spelling", ["../outside.nii.gz", "images/../../outside.nii.gz", "absolute"])
def test_b034_paths_that_leave_the_folder(folder: Path, spelling: str) -> None:
    outside = folder.parent / "outside.nii.gz"
    outside.touch()
    written = str(outside) if spelling == "absolute" else spelling
    layout = write(folder, ROWS[0].replace("images/a.nii.gz", written))

    cohort, findings = read(layout)

    assert (only(findings).code, only(findings).file, cohort.cases) == ("B034", written, ())
    cohort, findings = read(replace(layout, roots=(folder.parent,)))
    assert findings == []
    assert cohort.cases[0].images == {"t1": outside}


def test_b034_a_folder_whose_name_begins_like_the_root_is_outside(folder: Path) -> None:
    beside = folder.parent / "cohort2"
    beside.mkdir()
    (beside / "a.nii.gz").touch()

    _, findings = read(write(folder, ROWS[0].replace("images/a", "../cohort2/a")))

    assert only(findings).code == "B034"


def test_b035_links_that_leave_lead_nowhere_or_loop(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "o.nii.gz").touch()
    (folder / "images/out.nii.gz").symlink_to(outside / "o.nii.gz")
    (folder / "outdir").symlink_to(outside)
    (folder / "images/dangling.nii.gz").symlink_to("nowhere.nii.gz")
    (folder / "images/loop.nii.gz").symlink_to("loop.nii.gz")
    names = ("images/out", "outdir/o", "images/dangling", "images/loop")
    layout = write(folder, *(f"c{n},p,GE,{name}.nii.gz,,1,train" for n, name in enumerate(names)))

    cohort, findings = read(layout)

    assert [(finding.code, finding.row) for finding in findings] == [("B035", row) for row in (2, 3, 4, 5)]
    assert cohort.cases == ()
    _, findings = read(replace(layout, roots=(outside,), allow_shared_image=True))
    assert [finding.row for finding in findings] == [4, 5]


def test_a_link_inside_the_folder_keeps_its_own_name(folder: Path) -> None:
    (folder / "store").mkdir()
    (folder / "store/0f3a").touch()
    (folder / "images/link.nii.gz").symlink_to("../store/0f3a")

    cohort, findings = read(write(folder, ROWS[0].replace("images/a", "images/link")))

    assert findings == []
    assert cohort.cases[0].images == {"t1": folder / "images/link.nii.gz"}


def test_b036_folders_and_pipes(folder: Path) -> None:
    os.mkfifo(folder / "images/pipe.nii.gz")
    rows = ("c1,p1,GE,images,,1,train", "c2,p2,GE,images/pipe.nii.gz,,1,train", "c3,p3,GE,.,,1,train")

    _, findings = read(write(folder, *rows))

    assert [(finding.code, finding.row) for finding in findings] == [("B036", 2), ("B036", 3), ("B036", 4)]


def test_b041_name_too_long(folder: Path) -> None:
    _, findings = read(write(folder, ROWS[0].replace("images/a", "x" * 300)))

    assert only(findings).code == "B041"


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
