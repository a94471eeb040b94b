from __future__ import annotations

from pathlib import Path

import pytest

from medmtl.data.case import Case
from medmtl.data.cohort import Cohort
from medmtl.data.manifest import with_hashes
from medmtl.errors import InputError

covers = pytest.mark.covers


def cohort(folder: Path) -> Cohort:
    case = Case("a", "p", None, 2, {"t1": folder / "images" / "a.nii"}, files={"mask": folder / "masks" / "a.nii"})
    return Cohort(folder / "cohort.csv", (case,), "0" * 64, ())


@covers("B093", "P02")
@pytest.mark.parametrize("folder", ["/data/cohort", "/copied/elsewhere"])
def test_a_case_knows_what_its_files_were_wherever_the_cohort_lies(folder: str) -> None:
    (case,) = with_hashes(cohort(Path(folder)), {"images/a.nii": "1", "masks/a.nii": "2"}).cases
    image, mask = case.images["t1"], case.files["mask"]
    case.refuse_change(image, "1")
    case.refuse_change(mask, "2")
    for path, found in ((image, "2"), (mask, None)):
        with pytest.raises(InputError, match=r"^\[B093\] case 'a' \(row 2\): a\.nii is not the file that was checked"):
            case.refuse_change(path, found)
    assert InputError.exit_code == 2


@covers("B093")
def test_a_file_that_nobody_checked_is_refused() -> None:
    with pytest.raises(InputError, match=r"^\[B093\] case 'a': masks/a\.nii is not among the files"):
        with_hashes(cohort(Path("/data")), {"images/a.nii": "1"})


def test_a_case_that_nobody_checked_expects_nothing() -> None:
    Case("a", "p", None, 2, {}).refuse_change(Path("/x"), "anything")
