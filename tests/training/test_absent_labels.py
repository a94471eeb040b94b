from __future__ import annotations

from pathlib import Path

import pytest

from medmtl import config as configuration
from medmtl.errors import CohortError
from medmtl.training.start import make_ready
from tests.checking.scans import Scans, mask


@pytest.mark.covers("B106")
def test_a_cohort_with_a_fold_whose_training_cases_lack_a_value_does_not_train(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    scans = Scans(cohort, masks=True)
    for index in (0, 1, 2):
        scans.mask(index, mask(index, 2))  # only the last case holds a 3

    with pytest.raises(CohortError, match=r"\[B106\] key tasks.organ: found train [01] lacks \[3\]"):
        make_ready(configuration.load(scans.write(), {"split.folds": 2}))

    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]
