from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmtl.data.box_table import BALL, CORNERS, SIZES, BoxFault, BoxTable, Extents, Frame, boxes_of, read_box_table
from medmtl.data.case import Case
from medmtl.data.finding import Finding, Findings
from medmtl.data.volume import Grid
from medmtl.errors import InputError, WorkError
from medmtl.files import sha256_file
from medmtl.inference.write import boxes_text
from medmtl.tasks.box_task import BoxResult, FoundBox

HEADERS = {CORNERS: ("1,2,3,5,8,11",), SIZES: ("3,5,7,4,6,8",), BALL: ("3,5,7,4",)}


def case(path: Path, case_id: str = "a", cohort: str | None = None) -> Case:
    return Case(case_id, "p", None, 2, {}, files={"nodules": path}, cohort=cohort)


def write(folder: Path, *rows: str, header: str = f"case_id,{','.join(BALL)}", name: str = "boxes.csv") -> Path:
    path = folder / name
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> BoxTable:
    findings = Findings()
    table = read_box_table(path, findings)
    assert list(findings) == []
    assert table is not None
    return table


def refused(path: Path) -> Finding:
    findings = Findings()
    assert read_box_table(path, findings) is None
    (finding,) = findings
    assert finding.severity == "reject"
    return finding


def extents(path: Path, frame: Frame = "ras", case_id: str = "a") -> Extents:
    return boxes_of(case(path, case_id), "nodules", frame)[0]


@pytest.mark.parametrize("form", HEADERS)
def test_each_form_says_centre_and_sizes(form: tuple[str, ...], tmp_path: Path) -> None:
    # other columns may stand between and after
    path = write(tmp_path, *(f"a,x,{row},y" for row in HEADERS[form]), header=f"case_id,reader,{','.join(form)},note")
    found = extents(path)
    assert found.centre_N3.tolist() == [[3, 5, 7]]
    assert found.half_N3.tolist() == ([[2, 2, 2]] if form == BALL else [[2, 3, 4]])
    assert found.ball == (form == BALL)


@pytest.mark.parametrize("form", HEADERS)
def test_in_the_other_frame_x_and_y_are_mirrored_and_sizes_stay(form: tuple[str, ...], tmp_path: Path) -> None:
    path = write(tmp_path, *(f"a,{row}" for row in HEADERS[form]), header=f"case_id,{','.join(form)}")
    ras, lps = extents(path), extents(path, "lps")
    assert lps.centre_N3.tolist() == [[-3, -5, 7]]
    assert np.array_equal(lps.half_N3, ras.half_N3)


def test_a_box_in_voxels_is_where_its_millimetres_are() -> None:
    # the array's axes lead to the feet (2 mm), to the left (1 mm) and to the front (0.5 mm)
    affine = np.array([[0.0, -1, 0, 10], [0, 0, 0.5, -3], [-2, 0, 0, 40], [0, 0, 0, 1]])
    box = Extents(np.array([[4.0, 2, 30]]), np.array([[3.0, 1, 5]]), ball=False)
    # right 1 to 7: voxels 3 to 9 by their middles; front 1 to 3: 8 to 12; height 25 to 35: 2.5 to 7.5
    assert box.in_voxels(Grid((20, 20, 20), affine))[0] == pytest.approx([3, 3.5, 8.5, 8, 9.5, 12.5])
    assert replace(box, ball=True, half_N3=np.full((1, 3), 2.0)).in_voxels(Grid((20, 20, 20), affine))[
        0
    ] == pytest.approx([4.5, 4.5, 6.5, 6.5, 8.5, 14.5])


def test_in_an_oblique_scan_a_box_grows_to_hold_itself_and_a_ball_does_not() -> None:
    turn = np.eye(4)
    turn[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    grid = Grid((9, 9, 9), turn)
    box = Extents(np.zeros((1, 3)), np.array([[2.0, 2, 1]]), ball=False)
    found = box.in_voxels(grid)[0]
    assert (found[3:] - found[:3]) / 2 == pytest.approx([2 * np.sqrt(2), 2 * np.sqrt(2), 1])
    corners = np.array([[x, y, 0, 1] for x in (-2, 2) for y in (-2, 2)])
    inside = corners @ np.linalg.inv(turn).T[:, :2] + 0.5
    assert inside.min(axis=0) == pytest.approx(found[:2]) and inside.max(axis=0) == pytest.approx(found[3:5])
    ball = replace(box, ball=True, half_N3=np.full((1, 3), 2.0)).in_voxels(grid)[0]
    assert (ball[3:] - ball[:3]) / 2 == pytest.approx([2, 2, 2])


def test_rows_are_by_case_and_ids_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, "007,1,2,3,4", "7,5,5,5,5", "007,6,6,6,6")
    assert extents(path, case_id="007").centre_N3.tolist() == [[1, 2, 3], [6, 6, 6]]
    assert extents(path, case_id="7").centre_N3.tolist() == [[5, 5, 5]]
    assert [row.line for row in read(path).of(case(path, "007"))] == [2, 4]


def test_a_case_of_several_cohorts_is_found_by_its_own_id(tmp_path: Path) -> None:
    path = write(tmp_path, "a,1,2,3,4", "north/a,5,5,5,5")
    table = read(path)
    assert [row.line for row in table.of(case(path, "north/a", "north"))] == [2]
    assert [row.line for row in table.of(case(path, "north/a"))] == [3]


def test_a_case_without_a_row_has_no_box_nor_has_one_whose_table_is_empty(tmp_path: Path) -> None:
    assert extents(write(tmp_path, "b,1,2,3,4")).in_voxels(Grid((4, 4, 4), np.eye(4))).shape == (0, 6)
    assert extents(write(tmp_path, name="none.csv")).centre_N3.shape == (0, 3)
    assert extents(write(tmp_path, header=",".join(CORNERS), name="own.csv")).once().centre_N3.shape == (0, 3)


def test_a_table_without_ids_is_one_cases_and_may_be_tab_separated(tmp_path: Path) -> None:
    path = write(tmp_path, "1\t2\t3\t4", header="\t".join(BALL), name="boxes.tsv")
    assert not read(path).names_cases
    assert extents(path, case_id="any").centre_N3.tolist() == [[1, 2, 3]]


def test_what_a_prediction_writes_is_read_again(tmp_path: Path) -> None:
    affine = np.array([[0.0, -1, 0, 10], [0, 0, 0.5, -3], [-2, 0, 0, 40], [0, 0, 0, 1]])
    boxes = [FoundBox((1.0, 2, 3, 4, 6, 9), (5.0, -1.75, 35, 9, 1.25, 39), 0.5)]
    path = tmp_path / "boxes.csv"
    path.write_text(boxes_text(BoxResult(boxes=tuple(boxes))))
    found = extents(path).in_voxels(Grid((9, 9, 9), affine))
    mm = np.array(boxes[0].mm)
    assert extents(path).centre_N3[0] == pytest.approx((mm[:3] + mm[3:]) / 2)
    # front -1.75 is 1.25 mm or 2.5 voxels behind the middle of voxel 0
    assert found[0] == pytest.approx([1.0, 1.5, 3, 3, 5.5, 9])


def test_a_box_that_stands_twice_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path, "a,5,5,5,5", "a,1,2,3,4", "a,5,5,5,5", "a,5,5,5,6")
    assert extents(path).centre_N3.tolist() == [[5, 5, 5], [1, 2, 3], [5, 5, 5]]
    assert extents(path).half_N3[:, 0].tolist() == [2.5, 2, 3]


def test_equal_boxes_and_only_these_have_one_digest() -> None:
    box = Extents(np.zeros((1, 3)), np.ones((1, 3)), ball=False)
    others = (
        replace(box, ball=True),
        replace(box, half_N3=np.full((1, 3), 1.01)),
        replace(box, centre_N3=np.ones((1, 3))),
    )
    assert len({one.digest() for one in (box, *others)}) == 4
    assert box.digest() == replace(box).digest()


@pytest.mark.covers("B013")
def test_a_header_without_a_form_names_the_nearest_column(tmp_path: Path) -> None:
    found = refused(write(tmp_path, "a,1,2,3,4", header="case_id,x_mm,y_mm,z_mm,diameter"))
    assert (found.code, found.row, found.column) == ("B013", 1, "diameter_mm")
    assert found.fix == "did you mean 'diameter'?"
    # what LUNA16 calls them
    found = refused(write(tmp_path, "a,1,2,3,4", header="seriesuid,coordX,coordY,coordZ,diameter_mm"))
    assert (found.code, found.column, found.expected) == ("B013", "x_mm", "x_mm y_mm z_mm diameter_mm")


@pytest.mark.covers("B012")
@pytest.mark.parametrize(
    ("header", "rows", "word"),
    [
        (f"case_id,{','.join((*SIZES, 'diameter_mm'))}", "a,1,2,3,4,4,4,4", "diameter_mm"),
        (f"case_id,{','.join((*CORNERS, *BALL))}", "a,1,2,3,4,4,4,1,2,3,4", "diameter_mm x_mm y_mm z_mm"),
        (f"case_id,x_mm,{','.join(BALL)}", "a,1,1,2,3,4", "rename"),
        (f"case_id,case_id,{','.join(BALL)}", "a,a,1,2,3,4", "rename"),
    ],
)
def test_two_ways_to_state_a_box_and_two_columns_of_one_name(header: str, rows: str, word: str, tmp_path: Path) -> None:
    found = refused(write(tmp_path, rows, header=header))
    assert found.code == "B012"
    assert word in (found.fix or "")


@pytest.mark.covers("B016")
def test_a_row_of_nobody(tmp_path: Path) -> None:
    found = refused(write(tmp_path, "a,1,2,3,4", " ,1,2,3,4"))
    assert (found.code, found.row, found.column) == ("B016", 3, "case_id")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "B002"),
        (b"case_id;x_mm;y_mm;z_mm;diameter_mm\na;1;2;3;4\n", "B005"),
        (b"case_id,x_mm,y_mm,z_mm,diameter_mm\na,1,2,3,4,5\n", "B007"),
        (b"case_id,x_mm,y_mm,z_mm,diameter_mm\na,1,2,3,4\nb,1\n", "B008"),
        (b"\x1f\x8b\x08", "B030"),
    ],
)
def test_what_is_no_table_is_refused_as_the_cohorts_is(content: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(content)
    assert refused(path).code == code


@pytest.mark.covers("B006", "B119")
@pytest.mark.parametrize(
    ("form", "row", "code", "column"),
    [
        (BALL, "1,2,,4", "B119", "z_mm"),
        (BALL, "1,nan,3,4", "B119", "y_mm"),
        (BALL, "1,2,inf,4", "B119", "z_mm"),
        (BALL, "1e999,2,3,4", "B119", "x_mm"),
        (BALL, "1,-1e6,3,4", "B119", "y_mm"),
        (BALL, '"1,5",2,3,4', "B006", "x_mm"),
        (BALL, "1,2,3,0", "B119", "diameter_mm"),
        (BALL, "1,2,3,-4", "B119", "diameter_mm"),
        (SIZES, "1,2,3,4,0,4", "B119", "y_size_mm"),
        (CORNERS, "1,2,3,4,5,3", "B119", "z_max_mm"),
        (CORNERS, "1,2,3,0,5,6", "B119", "x_max_mm"),
    ],
)
def test_a_number_that_is_none_and_a_box_without_extent(
    form: tuple[str, ...], row: str, code: str, column: str, tmp_path: Path
) -> None:
    path = write(tmp_path, f"b,{HEADERS[form][0]}", f"a,{row}", header=f"case_id,{','.join(form)}")
    table = read(path)
    with pytest.raises(BoxFault) as fault:
        table.values(table.of(case(path))[0])
    assert (fault.value.code, fault.value.line, fault.value.column) == (code, 3, column)
    with pytest.raises(InputError, match=rf"case 'a': boxes.csv is no table of boxes: \[{code}\] row 3"):
        extents(path)
    assert extents(path, case_id="b").centre_N3.tolist() == [[3, 5, 7]]


def test_new_bytes_under_an_old_name_and_time_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a,1,2,3,4")
    assert extents(path).centre_N3.tolist() == [[1, 2, 3]]
    before = path.stat()
    write(tmp_path, "a,9,2,3,4")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert extents(path).centre_N3.tolist() == [[9, 2, 3]]


@pytest.mark.covers("B093")
def test_a_table_that_changed_since_the_check_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a,1,2,3,4")
    known = replace(case(path), sha256={path: sha256_file(path)})
    _, sha256 = boxes_of(known, "nodules", "ras")
    assert sha256 == sha256_file(path)
    write(tmp_path, "a,1,2,3,4", "b,1,2,3,4")
    with pytest.raises(InputError, match=r"B093.*boxes.csv is not the file that was checked"):
        boxes_of(known, "nodules", "ras")
    path.unlink()
    with pytest.raises(WorkError, match=r"boxes.csv could not be read: No such file"):
        boxes_of(known, "nodules", "ras")
    with pytest.raises(InputError, match="B013"):
        extents(write(tmp_path, "a,1", header="case_id,x_mm"))
