"""Tables of boxes beside their scans: their form, whose boxes they hold, and where these lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import Checked, check_cohort, check_headers
from medmtl.data.finding import Finding
from tests.checking.scans import Scans, scan

BALL = "case_id,x_mm,y_mm,z_mm,diameter_mm"
# of the scans: the array's axes lead to the front (0.8 mm), to the head (1.25 mm) and to the left (2 mm), so that they
# reach from x -8 to 4, y -4.4 to -1.2 and z 4.375 to 10.625
BOXES = ("case0,-3,-3,7,2", "case0,1,-2.8,9,2.5", "case1,-1,-2.5,8,2.5", "case2,0,-3,6,2", "case3,-5,-2.8,8,2")


class Tables(Scans):
    """Four cases whose boxes stand in one table."""

    def __init__(self, folder: Path, *rows: str, header: str = BALL, frame: str = "ras") -> None:
        super().__init__(folder, masks=True)
        self.organ = f"  nodules: {{kind: detection, column: nodules, boxes: {frame}}}\n"
        for row in self.rows:
            del row["organ"]
            row["nodules"] = "boxes.csv"
        self.boxes(rows or BOXES, header)

    def boxes(self, rows: Sequence[str], header: str = BALL, name: str = "boxes.csv") -> None:
        (self.folder / name).write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")

    def checked(self, *, to_learn: bool = True) -> Checked:
        config = configuration.load(self.write())
        return check_cohort(config, build_tasks(config), to_learn=to_learn)

    def rejected(self) -> Finding:
        """The only finding, a reject."""
        finding = self.only()
        assert finding.severity == "reject"
        assert (finding.file, finding.key) == ("boxes.csv", None)
        return finding


def test_a_sound_table_has_no_finding_and_sizes_are_right_front_head_in_mm(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    checked = tables.checked()
    assert list(checked.findings) == []
    np.testing.assert_allclose(checked.learnable("nodules")["case0"], [[2, 2, 2], [2.5, 2.5, 2.5]])
    assert checked.sha256["boxes.csv"] == tables.hashes()[str(tmp_path / "boxes.csv")]
    assert set(checked.truths["nodules"].values()) == {tmp_path / "boxes.csv"}
    config = configuration.load(tables.write())
    assert list(check_headers(config, build_tasks(config)).findings) == []


def test_the_same_boxes_in_the_other_frame(tmp_path: Path) -> None:
    mirrored = [
        f"{name},{-float(x):g},{-float(y):g},{rest}" for name, x, y, rest in (row.split(",", 3) for row in BOXES)
    ]
    checked = Tables(tmp_path, *mirrored, frame="lps").checked()
    assert list(checked.findings) == []
    # and the wrong frame is found by where it puts them
    refused = [f for f in Tables(tmp_path, *BOXES, frame="lps").findings() if f.severity == "reject"]
    assert {f.code for f in refused} == {"B096"} and len(refused) == len(BOXES)


def test_a_box_has_the_sizes_of_the_part_inside(tmp_path: Path) -> None:
    header = "case_id,x_min_mm,y_min_mm,z_min_mm,x_max_mm,y_max_mm,z_max_mm"
    rows = ["case0,-9,-4,6,-5,-2,8", *(f"case{n},-3,-4,6,0,-2,8" for n in (1, 2, 3))]
    checked = Tables(tmp_path, *rows, header=header).checked()
    (finding,) = checked.findings
    assert (finding.code, finding.severity, finding.case, finding.row) == ("B096", "fixed", "case0", 2)
    assert finding.found == "0.5 voxels outside"
    np.testing.assert_allclose(checked.learnable("nodules")["case0"], [[3, 2, 2]])


@pytest.mark.covers("B105")
def test_a_case_without_a_row_is_one_without_lesions_and_one_without_a_table_is_not_labelled(tmp_path: Path) -> None:
    tables = Tables(tmp_path, *BOXES[:3], "case2,0,-3,6,2")
    tables.boxes([row for row in BOXES if not row.startswith("case1")])
    checked = tables.checked()
    (finding,) = checked.findings
    assert (finding.code, finding.severity, finding.key) == ("B105", "warn", "tasks.nodules")
    assert finding.found == "1 cases without a row"
    assert checked.learnable("nodules")["case1"].shape == (0, 3)
    tables.rows[1]["nodules"] = ""
    checked = tables.checked()
    assert [(f.code, f.severity, f.found) for f in checked.findings] == [("B094", "warn", "1 of 4 cases not labelled")]
    assert checked.truths["nodules"].keys() == {"case0", "case2", "case3"}


@pytest.mark.covers("B094")
def test_boxes_of_a_case_that_does_not_name_the_table_are_refused(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.rows[3]["nodules"] = ""
    found = [f for f in tables.findings() if f.severity == "reject"]
    assert [(f.code, f.case, f.row, f.column) for f in found] == [("B094", "case3", 6, "case_id")]
    assert found[0].fix == "name this table in column nodules of row 5, or remove its boxes"


@pytest.mark.covers("B014", "B094")
def test_rows_of_strangers_are_counted_but_not_if_all_are_or_if_one_is_nearly_a_case(tmp_path: Path) -> None:
    finding = Tables(tmp_path, *BOXES, "other,1,2,3,4", "else,1,2,3,4", "else,x,2,3,4").only()
    assert (finding.code, finding.severity, finding.found) == ("B014", "warn", "3 rows of cases not in the cohort")
    finding = Tables(tmp_path, *BOXES, "Case1 ,1,2,3,4").rejected()
    assert (finding.code, finding.row, finding.found) == ("B094", 7, "Case1 ")
    assert finding.expected == "the id of a case, such as case1"
    finding = Tables(tmp_path, *(row.replace("case", "scan_") for row in BOXES)).rejected()
    assert (finding.code, finding.found) == ("B094", "5 rows, none of a case")


def test_faults_of_ids_hide_no_faults_of_rows(tmp_path: Path) -> None:
    rows = [row for row in BOXES if not row.startswith("case1")]
    tables = Tables(tmp_path, *rows, "Case1,-1,-2.5,8,2.5", "case0,1,2,3,nan", "case3,0,-3,60,2")
    assert [(f.code, f.severity, f.row) for f in tables.findings()] == [
        ("B094", "reject", 6),
        ("B119", "reject", 7),
        ("B096", "reject", 8),
    ]
    refused = Tables(tmp_path, *(row.replace("case", "CASE") for row in BOXES)).findings()
    assert [(f.code, f.row) for f in refused] == [("B094", 2), ("B094", 4), ("B094", 5), ("B094", 6)]


@pytest.mark.covers("B013")
def test_a_table_without_ids_serves_one_case(tmp_path: Path) -> None:
    tables = Tables(tmp_path, "0,-3,6,2", header="x_mm,y_mm,z_mm,diameter_mm")
    finding = tables.rejected()
    assert (finding.code, finding.column, finding.found) == ("B013", "case_id", "4 cases name a table without it")
    for index, row in enumerate(tables.rows):
        row["nodules"] = f"boxes_{index}.csv"
        tables.boxes([f"0,-3,{6 + index},2"], "x_mm,y_mm,z_mm,diameter_mm", row["nodules"])
    checked = tables.checked()
    assert list(checked.findings) == []
    assert all(len(checked.learnable("nodules")[f"case{index}"]) == 1 for index in range(4))


def test_a_table_that_cannot_be_read_is_one_finding(tmp_path: Path) -> None:
    finding = Tables(tmp_path, "case0,1,2", header="case_id,x_mm,y_mm").rejected()
    assert (finding.code, finding.row, finding.column) == ("B013", 1, "z_mm")
    tables = Tables(tmp_path)
    tables.boxes(BOXES, BALL.replace(",", ";"))
    finding = tables.rejected()
    assert (finding.code, finding.column) == ("B005", "nodules")


@pytest.mark.covers("B032")
def test_a_table_that_is_not_there_is_refused_row_by_row(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    (tmp_path / "boxes.csv").unlink()
    assert [(f.code, f.severity, f.row) for f in tables.findings()] == [("B032", "reject", row) for row in (2, 3, 4, 5)]


@pytest.mark.covers("B030", "B050")
def test_masks_for_tables_and_tables_for_masks_name_the_option(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    for row in tables.rows:
        row["nodules"] = row["t1"]
    found = tables.findings()
    assert {f.code for f in found} == {"B030"} and len(found) == 4
    assert "tasks.nodules.boxes" in (found[0].fix or "")
    tables = Tables(tmp_path)
    tables.organ = "  nodules: {kind: detection, column: nodules}\n"
    found = tables.findings()
    assert {f.code for f in found} == {"B050"} and len(found) == 4
    assert "tasks.nodules.boxes" in (found[0].fix or "")


@pytest.mark.covers("B006", "B119")
def test_every_bad_number_of_a_case_is_found_at_its_line(tmp_path: Path) -> None:
    tables = Tables(tmp_path, *BOXES, "case1,1,nan,3,4", 'case2,"1,5",2,3,4', "case1,1,2,3,0")
    found = [(f.code, f.severity, f.case, f.row, f.column, f.file) for f in tables.findings()]
    assert found == [
        ("B119", "reject", "case1", 7, "y_mm", "boxes.csv"),
        ("B119", "reject", "case1", 9, "diameter_mm", "boxes.csv"),
        ("B006", "reject", "case2", 8, "x_mm", "boxes.csv"),
    ]
    config = configuration.load(tables.write())
    headers = check_headers(config, build_tasks(config)).findings
    assert [(f.code, f.row) for f in headers] == [(code, row) for code, _, _, row, _, _ in found]


@pytest.mark.covers("B096")
def test_a_box_elsewhere_is_refused_with_its_place(tmp_path: Path) -> None:
    finding = Tables(tmp_path, *BOXES, "case2,0,-3,60,2").rejected()
    assert (finding.code, finding.case, finding.row) == ("B096", "case2", 7)
    # in the order right, front, head: head 60 is 55.625 mm or 44.5 voxels above the lowest face
    assert finding.found == "the middle at 44.5 of 5 voxels"


@pytest.mark.covers("B107", "B109")
def test_a_box_that_stands_twice_and_one_that_is_the_scan(tmp_path: Path) -> None:
    checked = Tables(tmp_path, *BOXES, BOXES[3]).checked()
    (finding,) = checked.findings
    assert (finding.code, finding.severity, finding.case, finding.row) == ("B109", "warn", "case2", 4)
    assert finding.found == "1 of 2 rows repeat another"
    assert len(checked.learnable("nodules")["case2"]) == 1
    found = Tables(tmp_path, *BOXES, "case1,-2,-2.8,7.5,100").findings()
    assert [(f.code, f.severity, f.row) for f in found] == [("B096", "fixed", 7), ("B107", "warn", 7)]


@pytest.mark.covers("B109")
def test_boxes_of_several_readers_for_one_lesion_are_told(tmp_path: Path) -> None:
    found = Tables(tmp_path, *BOXES, "case3,-5.1,-2.8,8,2.15").findings()
    (finding,) = [f for f in found if f.code == "B109"]
    assert (finding.severity, finding.case) == ("warn", "case3")
    assert finding.found == "1 of 2 boxes on an earlier one"


@pytest.mark.covers("B110")
def test_boxes_that_working_spacing_does_not_show_are_told(tmp_path: Path) -> None:
    tables = Tables(tmp_path, *BOXES, "case3,-5.1,-2.8,8,2.15")
    found = [(f.code, f.case, f.found) for f in tables.findings() if f.code != "B109"]
    assert found == [("B110", "case3", "1 like another (of 2)")]
    tables.plan += "  spacing: [2.1, 0.8, 1.25]\n"
    found = [(f.code, f.severity, f.case, f.found) for f in tables.findings() if f.code != "B109"]
    assert found == [
        ("B110", "warn", "case0", "1 under a voxel (of 2)"),
        ("B110", "warn", "case2", "1 under a voxel (of 1)"),
        ("B110", "warn", "case3", "1 under a voxel, 1 like another (of 2)"),
    ]


@pytest.mark.covers("B106")
def test_a_cohort_without_a_lesion_in_a_training_part_is_refused_once_but_may_be_scored(tmp_path: Path) -> None:
    tables = Tables(tmp_path, BOXES[0])
    refused = [f for f in tables.findings() if f.severity == "reject"]
    assert [(f.code, f.key, f.column) for f in refused] == [("B106", "tasks.nodules", "nodules")]
    assert not tables.checked(to_learn=False).findings.rejected()


def test_a_link_to_the_outside_is_refused_as_any_file_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    tables = Tables(tmp_path / "cohort")
    (tmp_path / "cohort" / "boxes.csv").rename(tmp_path / "elsewhere.csv")
    (tmp_path / "cohort" / "boxes.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert {f.code for f in tables.findings()} == {"B035"}


def test_of_several_cohorts_each_has_ids_of_its_own(tmp_path: Path) -> None:
    for name, rows in (("north", BOXES), ("south", (*BOXES[:2], BOXES[4]))):
        (tmp_path / name).mkdir()
        cohort = Tables(tmp_path / name, *rows)
        cohort.rows[3]["id"] = f"last of {name}"
        cohort.boxes([row.replace("case3", "last of north") for row in rows])
        for index in range(4):
            cohort.image(index, np.roll(scan(index), 1 if name == "south" else 0, 0))
        cohort.write()
    sections = "".join(
        f"  - {{name: {name}, table: {name}/cohort.csv, case: id, patient: person, channels: {{t1: t1}}}}\n"
        for name in ("north", "south")
    )
    path = tmp_path / "both.yaml"
    path.write_text(
        f"schema: 1\ncohorts:\n{sections}tasks:\n  nodules: {{kind: detection, column: nodules, boxes: ras}}\n"
        "plan: {normalisation: {t1: zscore}}\nsplit: {folds: 2}\ntraining: {steps: 1}\n"
    )
    config = configuration.load(path)
    checked = check_cohort(config, build_tasks(config))
    assert [(f.code, f.severity, f.found) for f in checked.findings if f.found != "1 column that nothing uses"] == [
        ("B014", "warn", "1 rows of cases not in the cohort"),
        ("B105", "warn", "3 cases without a row"),
    ]
    sizes = {name: len(found) for name, found in checked.learnable("nodules").items()}
    assert sizes == {
        **{f"north/case{index}": (2, 1, 1)[index] for index in range(3)},
        **{f"south/case{index}": (2, 0, 0)[index] for index in range(3)},
        "north/last of north": 1,
        "south/last of south": 0,
    }
