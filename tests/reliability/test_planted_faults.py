"""Promise 1: sixty faults in one cohort give sixty rejects in one pass, each in its row, and no other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from medmtl import api
from tests.reliability.planted import FAULTS, plant

CODES = sorted({fault.code for fault in FAULTS})


def bytes_of(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.covers(
    "P01", "B008", "B016", "B017", "B019", "B020", "B032", "B034", "B035", "B036", "B041", "B050", "B051", "B053",
    "B055", "B057", "B058", "B060", "B061", "B062", "B064", "B065", "B066", "B067", "B068", "B069", "B070", "B071",
    "B072", "B074", "B075", "B076", "B077", "B078", "B079", "B080", "B082", "B083", "B095", "B096", "B097", "B099",
    "B100", "B103", "B112", "B119", "B121",
)  # fmt: skip
def test_sixty_planted_faults_are_found_in_one_pass_and_none_besides(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    folder.mkdir()
    planted = [(fault.code, row, fault.column) for fault, row in plant(folder)]
    assert len(planted) == 60
    before, names = bytes_of(tmp_path), sorted(os.listdir(folder))

    found = [finding for finding in api.check(folder / "config.yaml") if finding.severity == "reject"]

    assert [(f.code, f.row, f.column) for f in sorted(found, key=lambda f: f.row or 0)] == planted
    assert all(finding.found and (finding.expected or finding.fix) for finding in found)
    assert (bytes_of(tmp_path), sorted(os.listdir(folder))) == (before, names)


@pytest.mark.covers("P01")
def test_the_planted_faults_are_of_every_kind() -> None:
    assert len(CODES) >= 40
    assert {int(code[1:]) // 10 for code in CODES} >= {0, 1, 3, 5, 6, 7, 8, 9, 11}
