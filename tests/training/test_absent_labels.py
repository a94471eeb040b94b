from __future__ import annotations

from pathlib import Path

import pytest

from medmtl import config as configuration
from medmtl.errors import InputError
from medmtl.training.start import make_ready, start_run
from tests.checking.scans import Scans, mask


@pytest.mark.covers("B106")
def test_a_fold_whose_training_cases_lack_a_value_is_refused(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    scans = Scans(cohort, masks=True)
    for index in (0, 1, 2):
        scans.mask(index, mask(index, 2))  # only the last case holds a 3
    ready = make_ready(configuration.load(scans.write(), {"split.folds": 2}))
    (lacking,) = [number for number in range(2) if "case3" in ready.splits.folds[number].val]

    with pytest.raises(InputError, match=r"^\[B106\] .*holds the values \[3\] of tasks.organ"):
        start_run(ready, tmp_path / "run", lacking, "cpu")

    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]
