"""The quick check: headers only."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import medmtl
from medmtl.cli import main
from tests.checking.cohort_folder import CONFIG, Array, Folder, mask, save, scan


def test_a_sound_cohort_has_no_finding(folder: Folder) -> None:
    assert folder.headers() == []


@pytest.mark.parametrize(
    ("name", "array", "shift", "code", "column"),
    [
        ("t2_1", scan(9)[:-1], 0.0, "B076", "t2"),
        ("t2_1", scan(9), 0.2, "B077", "t2"),
        ("organ_1", mask(1, 2)[:, :-1], 0.0, "B095", "organ"),
        ("organ_1", mask(1, 2), 0.2, "B096", "organ"),
        ("t1_1", np.ones((6, 7, 1), np.float32), 0.0, "B075", "t1"),
    ],
)
def test_headers_tell_what_lies_on_which_grid(
    folder: Folder, name: str, array: Array, shift: float, code: str, column: str
) -> None:
    save(folder.path / f"{name}.nii.gz", array, shift)
    (finding,) = folder.headers()
    assert (finding.code, finding.severity, finding.row, finding.column) == (code, "reject", 3, column)
    assert finding.file == f"{name}.nii.gz"


def test_voxels_are_not_read(folder: Folder) -> None:
    whole = gzip.decompress((folder.path / "t1_1.nii.gz").read_bytes())
    (folder.path / "t1_1.nii.gz").write_bytes(gzip.compress(whole)[:-30])
    save(folder.path / "organ_2.nii.gz", mask(9))
    assert folder.headers() == []
    assert [finding.code for finding in folder.findings()] == ["B051", "B100"]


def test_the_table_is_checked_in_full(folder: Folder) -> None:
    folder.rows[1]["grade"] = "huge"
    folder.config = CONFIG.replace("{folds: 2}", "{folds: 9}")
    assert folder.codes() == [("B112", "reject", 3), ("B024", "reject", None)]


def test_the_command_says_that_voxels_were_not_read(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write()
    config = str(folder.path / "config.yaml")
    unread = "voxels were not read, run the check without --headers before training"
    assert medmtl.check(config, headers=True) == []
    assert main(["check", config, "--headers", "--quiet"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"0 rejected, 0 warned about, 0 repaired: no fault in the table and the headers; {unread}"
    (folder.path / "t1_0.nii.gz").write_bytes(b"")
    assert main(["check", config, "--headers", "--quiet", "--json", str(tmp_path / "f.json")]) == 2
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"not fit for training; {unread}")
    assert [entry["code"] for entry in json.loads((tmp_path / "f.json").read_text())] == ["B050"]


def test_training_takes_no_check_of_headers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "config.yaml", "--out", "run", "--headers"]) == 2
    assert "--headers" in capsys.readouterr().err
