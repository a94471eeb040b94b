"""A column that is said to follow from masks."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmtl.build import build_tasks
from medmtl.checking import check_cohort
from medmtl.errors import ConfigError
from tests.checking.cohort_folder import Folder

SIZE = "column: size, range: [0, 100]"


def told(folder: Folder) -> list[str | None]:
    folder.write()
    return [finding.found for finding in folder.check().findings if finding.code == "B128"]


@pytest.mark.covers("B128")
@pytest.mark.parametrize(
    ("unit", "of", "value", "found"),
    [
        ("mm3", "organ", "6", None),  # three voxels of 2 mm3
        ("mm3", "organ", "11", None),  # measured otherwise
        ("mm3", "organ/core", "4", None),
        ("ml", "organ", "6", "1000 times the masks', 8 cases"),
        ("mm3", "organ", "0.006", "0.001 times the masks', 8 cases"),
        ("'%'", "{measure: fraction, part: organ/core, whole: organ}", "67", None),
        ("'%'", "{measure: fraction, part: organ/core, whole: organ}", "0.67", "0.0101 times the masks', 8 cases"),
    ],
)
def test_a_unit_that_is_not_the_column_s_is_warned_of(
    tmp_path: Path, unit: str, of: str, value: str, found: str | None
) -> None:
    folder = Folder(tmp_path)
    folder.config = folder.config.replace(SIZE, f"column: size, unit: {unit}, derived_from: {of}")
    for index, row in enumerate(folder.rows):
        row["size"] = f"{float(value) * (1 + index / 1000):g}"
    assert told(folder) == ([] if found is None else [found])


def test_masks_that_may_lack_labels_are_not_compared(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.config = folder.config.replace(SIZE, "column: size, unit: ml, derived_from: organ")
    folder.config = folder.config.replace("core: 2}}", "core: 2}, annotated: drawn}")
    for index, row in enumerate(folder.rows):
        row |= {"size": f"{6 + index}", "drawn": ""}
    assert told(folder) == []


def test_a_structure_that_is_not_there_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.config = folder.config.replace(SIZE, "column: size, unit: ml, derived_from: organ/lid")
    with pytest.raises(ConfigError, match="lid"):
        folder.write()
        folder.check()


def test_a_mask_that_is_not_read_of_another_cohort_is_not_asked_for(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.config = folder.config.replace(SIZE, "column: size, unit: ml, derived_from: organ")
    config = folder.write()
    tasks = build_tasks(config)
    del tasks["organ"]
    check_cohort(config, tasks, to_learn=False).refuse()
