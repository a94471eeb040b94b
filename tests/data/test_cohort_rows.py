from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.cohort_files import ROWS, only, read, write


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
