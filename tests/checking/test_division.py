"""The split in the check: what it refuses, and what its parts lack."""

from __future__ import annotations

import json

import pytest

from medmtl import config as configuration
from medmtl.errors import CohortError
from medmtl.training.start import make_ready
from tests.checking.cohort_folder import CASES, CONFIG, Folder, mask

COLUMN = CONFIG.replace("{folds: 2}", "{column: part}")
FILE = CONFIG.replace("{folds: 2}", "{file: splits_final.json}")


@pytest.fixture
def parts(folder: Folder) -> Folder:
    """A cohort whose table says who trains: two of either class are validated."""
    folder.config = COLUMN
    for index, row in enumerate(folder.rows):
        row["part"] = "train" if index < 4 else "val"
    return folder


def test_the_splits_of_the_check_are_those_of_the_training(parts: Folder) -> None:
    checked = parts.check()
    assert list(checked.findings) == []
    assert checked.splits is not None
    assert checked.splits.folds[0].val == tuple(f"case{i}" for i in range(4, 8))
    assert make_ready(configuration.load(parts.path / "config.yaml")).splits == checked.splits


@pytest.mark.covers("B021")
def test_a_patient_in_two_parts(parts: Folder) -> None:
    parts.rows[6]["person"] = "p0"
    (finding,) = parts.headers()
    assert (finding.code, finding.severity, finding.case, finding.row) == ("B021", "reject", "case6", 8)
    assert (finding.column, finding.found) == ("part", "train (row 2) and val, fold 0")
    assert parts.check().splits is None
    with pytest.raises(CohortError, match="B021"):
        make_ready(configuration.load(parts.path / "config.yaml"))


@pytest.mark.covers("B023")
def test_a_part_that_is_none(parts: Folder) -> None:
    parts.rows[1]["part"] = "Train "
    (finding,) = parts.headers()
    assert (finding.code, finding.severity, finding.row, finding.column) == ("B023", "reject", 3, "part")
    assert (finding.found, finding.fix) == ("Train ", "write train")


@pytest.mark.covers("B024")
def test_more_folds_than_patients(folder: Folder) -> None:
    folder.config = CONFIG.replace("{folds: 2}", "{folds: 9}")
    (finding,) = folder.findings()
    assert (finding.code, finding.severity, finding.case, finding.key) == ("B024", "reject", None, "split.folds")
    assert finding.found == "9 folds, 8 patients"


@pytest.mark.covers("B024")
def test_a_part_without_a_case(parts: Folder) -> None:
    for row in parts.rows:
        row["part"] = "val"
    (finding,) = parts.headers()
    assert (finding.code, finding.case, finding.found) == ("B024", None, "no train case in fold 0")


def test_split_faults_are_found_beside_all_others(parts: Folder) -> None:
    parts.rows[0]["t1"] = "absent.nii.gz"  # left out for its image, and still one of its patient's two
    parts.rows[7]["person"] = "p0"
    parts.rows[2]["part"] = "tarin"
    parts.rows[3]["size"] = "x"
    assert sorted(parts.codes(), key=lambda found: found[2] or 0) == [
        ("B032", "reject", 2),
        ("B023", "reject", 4),
        ("B119", "reject", 5),
        ("B021", "reject", 9),
    ]


def test_what_a_lost_row_may_explain_is_not_told(folder: Folder) -> None:
    folder.config = CONFIG.replace("{folds: 2}", "{folds: 8}")
    for row in folder.rows:
        row["grade"] = ""
    folder.rows[5]["id"] = ""  # the eighth patient
    assert ("B024", "reject", None) not in folder.codes()
    assert ("B016", "reject", 7) in folder.codes()


def test_a_file_of_folds(folder: Folder) -> None:
    folder.config = FILE
    ids = [row["id"] for row in folder.rows]
    folds = [{"train": ids[4:], "val": ids[:4]}, {"train": ids[:4], "val": [*ids[4:], "ghost"]}]
    (folder.path / "splits_final.json").write_text(json.dumps(folds))
    (finding,) = folder.headers()
    assert (finding.code, finding.file, finding.found) == ("B023", "splits_final.json", "ghost")
    folder.rows[3]["id"] = folder.rows[2]["id"]  # now an id of the file is missing because of a fault of the table
    assert folder.codes() == [("B017", "reject", 5)]


@pytest.mark.covers("B023")
def test_cases_that_no_fold_of_a_file_names(folder: Folder) -> None:
    folder.config = FILE
    ids = [row["id"] for row in folder.rows]
    folds = [{"train": ids[2:6], "val": ids[:2]}, {"train": ids[:4], "val": ids[4:6]}]
    (folder.path / "splits_final.json").write_text(json.dumps(folds))
    checked = folder.check()
    (finding,) = checked.findings
    assert (finding.code, finding.severity, finding.case, finding.key) == ("B023", "warn", None, "split.file")
    assert finding.found == "2 cases in no fold, first row 8"
    assert checked.splits is not None and checked.splits.test == tuple(ids[6:])
    (folder.path / "splits_final.json").write_text(json.dumps(checked.splits.to_json()))  # a run's, which names them
    assert list(folder.check().findings) == []


@pytest.mark.covers("B027", "B028", "B029")
@pytest.mark.parametrize(
    ("text", "code"), [("[", "B027"), ('[{"train": [NaN]}]', "B028"), ("[" * 99 + "]" * 99, "B029")]
)
def test_a_file_of_folds_that_is_no_json(folder: Folder, text: str, code: str) -> None:
    folder.config = FILE
    (folder.path / "splits_final.json").write_text(text)
    (finding,) = folder.headers()
    assert (finding.code, finding.severity, finding.key) == (code, "reject", "split.file")


@pytest.mark.covers("B025")
def test_a_class_that_a_scored_part_does_not_hold(parts: Folder) -> None:
    for row in parts.rows[4:]:
        row["grade"] = "low"
    (finding,) = parts.headers()
    assert (finding.code, finding.severity, finding.case, finding.key) == ("B025", "warn", None, "tasks.grade")
    assert finding.found == "no case of high in val 0"
    assert "not computable" in str(finding.fix)


@pytest.mark.covers("B025")
def test_a_scored_part_without_labels(parts: Folder) -> None:
    parts.rows[0]["part"] = "test"
    parts.rows[0]["size"] = ""
    found = {(finding.code, finding.key, finding.found) for finding in parts.headers()}
    assert found == {
        ("B116", "tasks.size", "1 of 8 cases not labelled"),
        ("B025", "tasks.size", "no label in test"),
        ("B025", "tasks.grade", "no case of high in test"),
    }


@pytest.mark.covers("B115")
def test_a_class_rarer_than_the_folds(folder: Folder) -> None:
    for row in folder.rows[2:]:
        row["grade"] = "low"
    (finding,) = folder.headers()
    assert (finding.code, finding.severity, finding.case, finding.key) == ("B115", "reject", None, "tasks.grade")
    assert finding.found == "1 of high"


@pytest.mark.covers("B115")
def test_one_class_in_train(parts: Folder) -> None:
    for row in parts.rows[:4]:
        row["grade"] = "low"
    (finding,) = parts.headers()
    assert (finding.code, finding.severity, finding.key) == ("B115", "reject", "tasks.grade")
    assert finding.found == "no case of high in train 0"


@pytest.mark.covers("B120")
def test_one_value_in_train(parts: Folder) -> None:
    for index, row in enumerate(parts.rows):
        row["size"] = "5" if index < 4 else str(index + 2)
    (finding,) = parts.headers()
    assert (finding.code, finding.found) == ("B120", "4 values, all equal in train 0")


@pytest.mark.covers("B116")
def test_no_label_in_train(parts: Folder) -> None:
    for row in parts.rows[:4]:
        row["size"] = ""
    codes = [(finding.severity, finding.code, finding.found) for finding in parts.headers()]
    assert codes == [
        ("warn", "B116", "4 of 8 cases not labelled"),
        ("reject", "B116", "no labelled case in train of fold 0"),
    ]


def test_every_case_is_validated_once(folder: Folder) -> None:
    splits = folder.check().splits
    assert splits is not None
    assert sorted(case_id for fold in splits.folds for case_id in fold.val) == [f"case{i}" for i in range(CASES)]


def test_folds_share_the_cases_in_which_a_label_was_annotated(folder: Folder) -> None:
    folder.config = folder.config.replace("core: 2}}", "core: 2}, annotated: drawn}")
    for index, row in enumerate(folder.rows):
        row["drawn"] = "rim" if index in (2, 3, 5, 6) else ""
        if row["drawn"]:
            folder.save(f"organ_{index}", mask(1, place=index))
    splits = folder.check().splits
    assert splits is not None
    for fold in splits.folds:
        assert sum(folder.rows[int(case_id[4:])]["drawn"] == "rim" for case_id in fold.val) == 2


@pytest.mark.covers("B025")
def test_a_part_without_an_event_is_told_and_one_without_a_censored_patient_is_not(parts: Folder) -> None:
    outcome = "  outcome: {kind: survival, time: time, event: event, horizon: 5}\nsplit: {column: part}"
    parts.config = COLUMN.replace("split: {column: part}", outcome)
    for index, row in enumerate(parts.rows):
        row |= {"time": str(index + 1), "event": str(int(index in (0, 1, 2)))}
    (finding,) = parts.headers()
    assert (finding.code, finding.severity, finding.key) == ("B025", "warn", "tasks.outcome")
    assert finding.found == "no case of event in val 0"
    for row in parts.rows:
        row["event"] = str(int(row["part"] == "val" or row["id"] in ("case0", "case1")))
    assert parts.headers() == []


@pytest.mark.covers("B115")
def test_few_censored_patients_are_counted_and_are_no_class(folder: Folder) -> None:
    folder.config = CONFIG.replace(
        "split:", "  outcome: {kind: survival, time: time, event: event, horizon: 5}\nsplit:"
    )
    for index, row in enumerate(folder.rows):
        row |= {"time": str(index + 1), "event": str(int(index != 3))}
    checked = folder.check()
    assert not checked.findings.rejected() and checked.splits is not None
    held = [row.labels for row in checked.splits.balance if row.part == "val"]
    assert sum(labels["outcome:event"] for labels in held) == 7
    assert sum(labels["outcome:censored"] for labels in held) == 1
    assert "organ:any" not in held[0] and held[0]["organ:labelled"] == 4
    for row in folder.rows[1:]:
        row["event"] = "0"
    found = {(finding.code, finding.severity, finding.found) for finding in folder.headers()}
    assert ("B115", "reject", "1 of event") in found
