from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medmtl.data import preparation
from medmtl.data.case import Case
from medmtl.data.formats.nifti import write_mask
from medmtl.data.preparation import prepare_case
from medmtl.data.prepared import Preparation
from medmtl.data.volume import Grid
from medmtl.errors import InputError


@pytest.mark.covers("B079")
def test_a_scan_in_a_wrong_unit_is_refused_before_terabytes_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(preparation, "to_grid")
    write_mask(
        tmp_path / "t1.nii.gz",
        np.arange(96 * 96 * 24).reshape(96, 96, 24),
        Grid((96, 96, 24), np.diag([45.0, 45.0, 45.0, 1.0])),
    )
    case = Case("007", "007", None, 2, {"t1": tmp_path / "t1.nii.gz"})
    with pytest.raises(InputError, match=r"^\[B079\] case '007': with voxels of 45 x 45 x 45 mm it would have") as told:
        prepare_case(case, Preparation((1.0, 1.0, 1.0), ("t1",), {}))
    assert "[4320, 4320, 1080] voxels at working spacing instead of [96, 96, 24]" in str(told.value)
