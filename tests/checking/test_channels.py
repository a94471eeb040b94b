from __future__ import annotations

import pytest

from medmtl.errors import CohortError
from tests.checking.cohort_folder import CASES, Folder, mask, scan

OPTIONAL = "{t1: t1, t2: {column: t2, optional: true}}"
BOTH = "{t1: {column: t1, optional: true}, t2: {column: t2, optional: true}}"


def optional(folder: Folder, channels: str = OPTIONAL, site: bool = False) -> Folder:
    folder.config = folder.config.replace("{t1: t1, t2: t2}", channels)
    if site:
        folder.config = folder.config.replace("  patient: person\n", "  patient: person\n  site: place\n")
        for index, row in enumerate(folder.rows):
            row["place"] = "north" if index < 3 else "south"
    return folder


@pytest.mark.covers("B076")
def test_a_case_without_an_optional_channel_is_kept_and_counted(folder: Folder) -> None:
    for index in (1, 4):
        folder.rows[index]["t2"] = ""
    checked = optional(folder).check()
    (finding,) = checked.findings
    assert (finding.code, finding.severity, finding.column) == ("B076", "warn", "t2")
    assert (finding.key, finding.found) == ("cohort.channels.t2", "2 of 8 cases without it")
    assert len(checked.cohort.cases) == CASES
    assert list(checked.cohort.cases[1].images) == ["t1"]
    assert list(checked.fingerprints["case1"].channels) == ["t1"]
    # the headers alone tell it too
    assert [(code, severity) for code, severity, _ in folder.codes()] == [("B076", "warn")]


def test_sites_that_lack_it_are_told(folder: Folder) -> None:
    for index in (0, 1, 4):
        folder.rows[index]["t2"] = ""
    finding = optional(folder, site=True).only()
    assert finding.fix is not None and finding.fix.endswith("; by site: north 2 of 3, south 1 of 5")


@pytest.mark.covers("B076")
def test_a_case_without_any_channel_is_refused(folder: Folder) -> None:
    folder.rows[2] |= {"t1": "", "t2": ""}
    folder.rows[5] |= {"t1": ""}
    rejected = optional(folder, BOTH).check().findings.rejected()
    assert [(f.code, f.row, f.found) for f in rejected] == [("B076", 4, "no channel at all")]


@pytest.mark.covers("B076")
def test_a_channel_that_is_not_optional_must_be_there(folder: Folder) -> None:
    folder.rows[2]["t1"] = ""
    (finding,) = optional(folder).check().findings.rejected()
    assert (finding.code, finding.row, finding.column) == ("B076", 4, "t1")
    assert finding.fix is not None and "optional: true" in finding.fix


@pytest.mark.covers("B076")
@pytest.mark.parametrize(
    ("having", "found"), [((), "no case of the cohort has it"), ((0,), "no case of train of fold")]
)
def test_a_channel_that_no_training_part_could_teach_is_refused(
    folder: Folder, having: tuple[int, ...], found: str
) -> None:
    for index, row in enumerate(folder.rows):
        row["t2"] = row["t2"] if index in having else ""
    checked = optional(folder).check()
    (finding,) = checked.findings.rejected()
    assert (finding.code, finding.column) == ("B076", "t2")
    assert finding.found is not None and finding.found.startswith(found)
    with pytest.raises(CohortError):
        checked.refuse()


def test_a_refused_row_may_be_the_one_that_has_it(folder: Folder) -> None:
    for index, row in enumerate(folder.rows):
        row["t2"] = row["t2"] if index == 2 else ""
    folder.rows[2]["t1"] = "gone.nii.gz"
    assert [(f.code, f.row) for f in optional(folder).check().findings.rejected()] == [("B032", 4)]


def test_each_fold_holds_its_share_of_an_optional_channel(folder: Folder) -> None:
    # two cases have it, and there are two folds: each must train on one of them
    for index, row in enumerate(folder.rows):
        row["t2"] = row["t2"] if index in (2, 6) else ""
    checked = optional(folder).check()
    assert checked.findings.rejected() == []
    assert checked.splits is not None
    assert [len({"case2", "case6"} & set(fold.val)) for fold in checked.splits.folds] == [1, 1]


def test_the_grid_is_that_of_the_first_channel_that_is_there(folder: Folder) -> None:
    folder.rows[3]["t1"] = ""
    folder.save("t2_3", scan(99), 0.5)
    folder.save("organ_3", mask(1, 2, place=3), 0.5)
    checked = optional(folder, BOTH).check()
    assert checked.findings.rejected() == []
    assert checked.fingerprints["case3"].grid.affine[0, 3] == 0.5
